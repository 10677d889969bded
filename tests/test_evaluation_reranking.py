import numpy as np
import pytest

from opendelg.candidates import Candidate
from opendelg.evaluation.preparation import PreparedDatabase
from opendelg.evaluation.ranking import NOT_VERIFIED
from opendelg.evaluation.reranking import ranking_of, verified_ranking
from opendelg.expansion import ExpansionConfig
from opendelg.search import SearchConfig
from opendelg.verification import Verification

# A chain of views: each is similar to the next, the last one not at all to the query.
DATABASE = np.array([[0.96, 0.28], [0.8, 0.6], [0.0, 1.0], [0.6, -0.8]], np.float32)
QUERY = np.array([1, 0], np.float32)
INLIERS = {0: 4, 1: 30, 2: 0, 3: 0}


def compare(rows: np.ndarray) -> list[Candidate]:
    """Found inliers of known numbers; 30 of them are a confident match."""
    return [
        Candidate(
            row,
            float(DATABASE[row] @ QUERY),
            Verification(np.zeros((0, 2), np.int64), np.ones(INLIERS[row], bool), None, 0.0),
            0.99 if INLIERS[row] >= 30 else 0.1,
        )
        for row in rows.tolist()
    ]


def ranking(rerank: int, verified: bool = False, own: int = -1) -> list[int]:
    database = PreparedDatabase(DATABASE)
    config = SearchConfig(rerank=rerank, expansion=ExpansionConfig(alpha=0, verified=verified))
    similarities = database.similarities(QUERY[None], np.array([own]))[0]
    return verified_ranking(database, QUERY, similarities, compare, config, own).ids.tolist()


def test_rows_are_ranked_by_similarity_then_row() -> None:
    similarities = np.array([0.1, 0.7, -np.inf, 0.7, -0.2])
    assert ranking_of(similarities).ids.tolist() == [1, 3, 0, 4]


@pytest.mark.parametrize(
    ("rerank", "expected"),
    [(0, [0, 1, 3, 2]), (1, [0, 1, 3, 2]), (2, [1, 0, 3, 2]), (99, [1, 0, 3, 2])],
)
def test_only_the_first_are_ordered_by_inliers(rerank: int, expected: list[int]) -> None:
    assert ranking(rerank) == expected


def test_confirmed_images_lead_to_those_that_are_like_them() -> None:
    assert ranking(2, verified=True) == [1, 0, 2, 3]


def test_without_a_confirmed_image_nothing_changes() -> None:
    assert ranking(1, verified=True) == ranking(1)


def test_the_query_itself_is_in_no_ranking() -> None:
    assert ranking(2, verified=True, own=0) == [1, 2, 3]
    assert ranking(2, own=0) == [1, 3, 2]


def test_a_ranking_tells_inliers_and_the_similarities_of_the_expanded_query() -> None:
    database = PreparedDatabase(DATABASE)
    config = SearchConfig(rerank=2, expansion=ExpansionConfig(alpha=0, verified=True))
    similarities = DATABASE @ QUERY
    found = verified_ranking(database, QUERY, similarities, compare, config)
    assert found.num_inliers.tolist() == [30, 4, NOT_VERIFIED, NOT_VERIFIED]
    expanded = (QUERY + DATABASE[1]) / np.linalg.norm(QUERY + DATABASE[1])
    np.testing.assert_allclose(found.similarities, DATABASE[[1, 0, 2, 3]] @ expanded, atol=1e-6)
