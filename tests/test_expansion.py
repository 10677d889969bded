import numpy as np
import pytest

from opendelg import expansion
from opendelg.expansion import (
    AugmentedDatabase,
    ExpansionConfig,
    best_columns,
    expand,
    nearest,
    unit_rows,
)
from tests.collection_samples import unit_rows as drawn_rows


@pytest.fixture
def database() -> np.ndarray:
    """Forty descriptors in eight dimensions: about half of their similarities are negative."""
    return drawn_rows(np.random.default_rng(1), 40, 8)


@pytest.fixture
def queries() -> np.ndarray:
    return drawn_rows(np.random.default_rng(2), 5, 8)


def expand_in_a_loop(query: np.ndarray, database: np.ndarray, k: int, alpha: float) -> np.ndarray:
    similarities = [float(query @ row) for row in database]
    order = sorted(range(len(database)), key=lambda row: (-similarities[row], row))
    total = query.astype(np.float64).copy()
    for row in order[:k]:
        if similarities[row] > 0:
            total += similarities[row] ** alpha * database[row]
    return np.asarray(total / np.linalg.norm(total))


def augment_in_a_loop(database: np.ndarray, k: int, alpha: float) -> np.ndarray:
    rows = range(len(database))
    return np.stack(
        [expand_in_a_loop(database[i], np.delete(database, i, axis=0), k, alpha) for i in rows]
    )


@pytest.mark.parametrize("alpha", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("k", [1, 6, 40, 99])
def test_queries_are_expanded_as_by_a_plain_loop(
    queries: np.ndarray, database: np.ndarray, k: int, alpha: float
) -> None:
    rows, similarities = nearest(queries, database, k)
    expected = np.stack([expand_in_a_loop(query, database, k, alpha) for query in queries])
    np.testing.assert_allclose(
        expand(queries, database[rows], similarities, alpha), expected, atol=1e-6
    )


@pytest.mark.parametrize("alpha", [0.0, 2.5])
@pytest.mark.parametrize("k", [1, 5, 39, 40, 99])
def test_a_database_is_augmented_as_by_a_plain_loop(
    database: np.ndarray, k: int, alpha: float
) -> None:
    augmented = AugmentedDatabase(database, k, alpha)
    np.testing.assert_allclose(
        augmented.descriptors, augment_in_a_loop(database, k, alpha), atol=1e-6
    )


@pytest.mark.parametrize("k", [1, 5, 38, 39, 40, 99])
def test_without_an_image_all_is_as_if_it_had_never_been_there(
    database: np.ndarray, k: int
) -> None:
    augmented = AugmentedDatabase(database, k, 3.0)
    for row in range(len(database)):
        rows, descriptors = augmented.without(row)
        found = augmented.descriptors.copy()
        found[rows] = descriptors
        expected = augment_in_a_loop(np.delete(database, row, axis=0), k, 3.0)
        np.testing.assert_allclose(np.delete(found, row, axis=0), expected, atol=1e-6)


def test_nothing_is_added_by_default() -> None:
    assert not ExpansionConfig().is_on


def test_no_neighbours_change_nothing(queries: np.ndarray, database: np.ndarray) -> None:
    rows, similarities = nearest(queries, database, 0)
    np.testing.assert_array_equal(expand(queries, database[rows], similarities, 3.0), queries)
    augmented = AugmentedDatabase(database, 0, 3.0)
    np.testing.assert_array_equal(augmented.descriptors, database)
    assert [part.shape for part in augmented.without(3)] == [(0,), (0, 8)]


def test_images_at_a_right_angle_or_beyond_count_nothing_at_any_alpha() -> None:
    query = np.array([1, 0], np.float32)
    others = np.array([[0, 1], [-1, 0], [-0.6, 0.8]], np.float32)
    for alpha in (0.0, 0.5, 3.0):
        np.testing.assert_array_equal(expand(query, others, others @ query, alpha), query)


def test_a_descriptor_of_zeros_stays_one(database: np.ndarray) -> None:
    rows, similarities = nearest(np.zeros((1, 8), np.float32), database, 3)
    expanded = expand(np.zeros((1, 8), np.float32), database[rows], similarities, 0.0)
    np.testing.assert_array_equal(expanded, np.zeros((1, 8)))


def test_zeros_in_the_database_help_nobody(queries: np.ndarray) -> None:
    zeros = np.zeros((3, 8), np.float32)
    np.testing.assert_array_equal(expand(queries[0], zeros, zeros @ queries[0], 0.0), queries[0])
    np.testing.assert_array_equal(AugmentedDatabase(zeros, 2, 3.0).descriptors, zeros)


def test_duplicates_come_in_order_of_row() -> None:
    database = np.repeat(np.eye(3, dtype=np.float32), 3, axis=0)
    rows, _ = nearest(np.eye(3, dtype=np.float32)[[1]], database, 4)
    assert rows.tolist() == [[3, 4, 5, 0]]


def test_duplicates_stay_what_they_are() -> None:
    database = np.repeat(np.eye(3, dtype=np.float32), 3, axis=0)
    np.testing.assert_array_equal(AugmentedDatabase(database, 2, 3.0).descriptors, database)


def test_its_own_image_comes_last_and_weighs_nothing(database: np.ndarray) -> None:
    own = np.array([4, -1])
    rows, similarities = nearest(database[[4, 5]], database, 40, own)
    assert (rows[0, -1], similarities[0, -1], rows[1, 0]) == (4, -np.inf, 5)
    expected = expand_in_a_loop(database[4], np.delete(database, 4, axis=0), 40, 3.0)
    np.testing.assert_allclose(
        expand(database[[4]], database[rows[:1]], similarities[:1], 3.0)[0], expected, atol=1e-6
    )


def test_blocks_of_any_size_give_the_same(
    queries: np.ndarray, database: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = nearest(queries, database, 7), AugmentedDatabase(database, 7, 3.0).descriptors
    monkeypatch.setattr(expansion, "_BLOCK_BYTES", 1)
    np.testing.assert_array_equal(nearest(queries, database, 7)[0], whole[0][0])
    np.testing.assert_allclose(AugmentedDatabase(database, 7, 3.0).descriptors, whole[1], atol=1e-6)


def test_turning_all_descriptors_turns_the_averages(database: np.ndarray) -> None:
    turn, _ = np.linalg.qr(np.random.default_rng(3).standard_normal((8, 8)))
    turned = (database @ turn).astype(np.float32)
    np.testing.assert_allclose(
        AugmentedDatabase(turned, 5, 3.0).descriptors,
        AugmentedDatabase(database, 5, 3.0).descriptors @ turn,
        atol=1e-5,
    )


def test_averages_have_unit_length(database: np.ndarray) -> None:
    lengths = np.linalg.norm(AugmentedDatabase(database, 9, 1.5).descriptors, axis=1)
    np.testing.assert_allclose(lengths, 1, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(unit_rows(3 * database), axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("k", [0, 1, 3, 7, 8])
def test_best_columns_are_those_of_a_stable_sort(k: int) -> None:
    similarities = np.random.default_rng(4).integers(0, 4, (50, 8)).astype(np.float32)
    expected = np.argsort(-similarities, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(best_columns(similarities, k), expected)


def test_progress_names_every_row_once(database: np.ndarray) -> None:
    done: list[int] = []
    AugmentedDatabase(database, 3, 3.0, done.append)
    assert done == list(range(40))


def test_an_empty_database_gives_no_neighbours(queries: np.ndarray) -> None:
    empty = np.zeros((0, 8), np.float32)
    rows, similarities = nearest(queries, empty, 5)
    np.testing.assert_array_equal(expand(queries, empty[rows], similarities, 3.0), queries)
    assert AugmentedDatabase(empty, 5, 3.0).descriptors.shape == (0, 8)


@pytest.mark.parametrize("alpha", [-1.0, float("nan"), float("inf")])
def test_alpha_must_be_a_number_from_0_on(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha must be a finite number of at least 0, got"):
        ExpansionConfig(alpha=alpha)


def test_counts_must_not_be_negative(database: np.ndarray) -> None:
    with pytest.raises(ValueError, match="nearest must be at least 0, got -1"):
        ExpansionConfig(nearest=-1)
    with pytest.raises(ValueError, match="num_neighbours must be at least 0, got -2"):
        AugmentedDatabase(database, -2, 3.0)
