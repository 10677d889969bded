import numpy as np
import pytest

from opendelg.evaluation import top_k
from opendelg.evaluation.top_k import TopK, most_similar
from tests.collection_samples import unit_rows


def in_blocks(database: np.ndarray, size: int, ids: np.ndarray | None = None):
    ids = np.arange(len(database)) if ids is None else ids

    def blocks():
        for start in range(0, len(database), size):
            yield ids[start : start + size], database[start : start + size]

    def fetch(wanted: np.ndarray) -> np.ndarray:
        sorter = np.argsort(ids)
        return database[sorter[np.searchsorted(ids, wanted, sorter=sorter)]]

    return blocks, fetch


def by_sorting(queries: np.ndarray, database: np.ndarray, ids: np.ndarray, k: int):
    exact = (queries.astype(np.float64) @ database.astype(np.float64).T).astype(np.float32)
    orders = [np.lexsort((ids, -row))[:k] for row in exact]
    return [ids[order].tolist() for order in orders], [
        row[order].tolist() for row, order in zip(exact, orders, strict=True)
    ]


@pytest.fixture
def small_steps(monkeypatch):
    monkeypatch.setattr(top_k, "QUERY_ROWS", 3)
    monkeypatch.setattr(top_k, "BLOCK_ROWS", 32)
    monkeypatch.setattr(top_k, "_MEASURE_BYTES", 4 * 16 * 40)


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("size", [1, 7, 64, 500])
@pytest.mark.parametrize("k", [1, 5, 150, 300])
@pytest.mark.parametrize("seed", range(3))
def test_the_most_similar_are_those_of_a_sort(seed: int, k: int, size: int) -> None:
    generator = np.random.default_rng(seed)
    # Sixteenths: products are exact and many similarities are equal.
    queries = generator.integers(-2, 3, (8, 4)).astype(np.float32) / 4
    database = generator.integers(-2, 3, (200, 4)).astype(np.float32) / 4
    ids = generator.permutation(1000)[:200]
    found_ids, found = most_similar(queries, *in_blocks(database, size, ids), k)
    assert (found_ids.tolist(), found.tolist()) == by_sorting(queries, database, ids, k)


@pytest.mark.usefixtures("small_steps")
def test_the_answer_does_not_depend_on_the_blocks() -> None:
    generator = np.random.default_rng(0)
    database = unit_rows(generator, 400, 128)
    database[200:] = database[:200]  # each twice
    queries = unit_rows(generator, 20, 128)
    whole = most_similar(queries, *in_blocks(database, 400), 30)
    for size in (1, 13, 128):
        parts = most_similar(queries, *in_blocks(database, size), 30)
        assert [part.tobytes() for part in parts] == [part.tobytes() for part in whole]


@pytest.mark.usefixtures("small_steps")
def test_more_ties_than_are_kept_are_searched_again() -> None:
    database = np.tile(unit_rows(np.random.default_rng(1), 1, 16), (150, 1))
    ids = np.random.default_rng(2).permutation(150)
    found, _ = most_similar(database[:2], *in_blocks(database, 10, ids), 3)
    assert found.tolist() == [[0, 1, 2]] * 2


def test_progress_counts_the_database_once() -> None:
    database, done = np.tile(unit_rows(np.random.default_rng(1), 1, 16), (150, 1)), []
    most_similar(database[:2], *in_blocks(database, 60), 3, done.append)
    assert done == [60, 60, 30]


def test_an_empty_database_gives_nothing() -> None:
    blocks, fetch = in_blocks(np.zeros((0, 4), np.float32), 5)
    ids, similarities = most_similar(np.ones((2, 4), np.float32), blocks, fetch, 3)
    assert (ids.shape, similarities.shape) == ((2, 0), (2, 0))


def test_no_query_gives_no_row() -> None:
    blocks, fetch = in_blocks(np.ones((5, 4), np.float32), 5)
    ids, similarities = most_similar(np.zeros((0, 4), np.float32), blocks, fetch, 3)
    assert (ids.shape, similarities.shape) == ((0, 3), (0, 3))


def test_at_least_one_must_be_wanted() -> None:
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        TopK(1, 0)
