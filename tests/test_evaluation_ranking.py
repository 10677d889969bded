import numpy as np
import pytest

from opendelg.evaluation.ranking import NOT_VERIFIED, Ranking, StreamedRanking


def ids(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def streamed(
    queries: np.ndarray, database: np.ndarray, judged: list[np.ndarray], kept: int, block: int
) -> list[Ranking]:
    similarities = queries @ database.T
    given = [similarities[row, ids_] for row, ids_ in enumerate(judged)]
    ranking = StreamedRanking(queries, judged, given, kept)
    for start in range(0, len(database), block):
        part = database[start : start + block]
        ranking.add(np.arange(start, start + len(part)), part)
    return ranking.rankings()


@pytest.mark.parametrize("block", [1, 7, 64, 500])
@pytest.mark.parametrize("kept", [0, 1, 20, 500])
@pytest.mark.parametrize("seed", range(5))
def test_a_streamed_ranking_is_that_of_a_stable_sort(seed: int, kept: int, block: int) -> None:
    generator = np.random.default_rng(seed)
    # Small whole numbers: products are exact and many similarities are equal.
    queries = generator.integers(-2, 3, (4, 3)).astype(np.float32)
    database = generator.integers(-2, 3, (200, 3)).astype(np.float32)
    judged = [generator.permutation(200)[: generator.integers(0, 30)] for _ in queries]
    found = streamed(queries, database, judged, kept, block)
    for query, ranking, wanted in zip(queries, found, judged, strict=True):
        order = np.argsort(-(database @ query), kind="stable")
        is_kept = (np.arange(200) < kept) | np.isin(order, wanted)
        assert ranking.positions.tolist() == np.flatnonzero(is_kept).tolist()
        assert ranking.ids.tolist() == order[is_kept].tolist()
        assert ranking.similarities.tolist() == (database @ query)[ranking.ids].tolist()


def test_similarities_of_judged_images_are_those_that_were_given() -> None:
    queries, database = np.float32([[1, 0]]), np.float32([[0.5, 0], [0.25, 0]])
    ranking = StreamedRanking(queries, [ids(1)], [np.float32([0.75])], kept=2)
    ranking.add(np.arange(2), database)
    assert ranking.rankings()[0].ids.tolist() == [1, 0]
    assert ranking.rankings()[0].similarities.tolist() == [0.75, 0.5]


def test_without_closes_the_gaps() -> None:
    ranking = Ranking(
        ids(4, 9, 2), ids(0, 3, 8), np.float32([3, 2, 1]), np.full(3, NOT_VERIFIED, np.int32)
    )
    left = ranking.without(ids(9, 77))
    assert (left.ids.tolist(), left.positions.tolist()) == ([4, 2], [0, 7])


def test_reordering_keeps_each_similarity_with_its_image() -> None:
    ranking = Ranking.whole(ids(4, 9, 2), np.float32([3, 2, 1]))
    again = ranking.reordered(ids(9, 4), np.int32([12, 5]))
    assert again.ids.tolist() == [9, 4, 2]
    assert again.similarities.tolist() == [2, 3, 1]
    assert again.num_inliers.tolist() == [12, 5, NOT_VERIFIED]


def test_only_the_first_images_can_be_reordered() -> None:
    ranking = Ranking.whole(ids(4, 9, 2), np.float32([3, 2, 1]))
    with pytest.raises(ValueError, match="head must hold the first 2 images"):
        ranking.reordered(ids(2, 4), np.int32([1, 1]))


def test_arrays_of_a_ranking_must_fit() -> None:
    with pytest.raises(ValueError, match=r"arrays must be of one length, got \[1, 2\]"):
        Ranking(ids(1, 2), ids(0, 1), np.float32([1]), np.int32([0, 0]))
    with pytest.raises(ValueError, match="positions must be 0 or more and ascending"):
        Ranking(ids(1, 2), ids(0, 0), np.float32([1, 1]), np.int32([0, 0]))
