import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial import cKDTree

from opendelg.matching import match, match_nearest


def unit_rows(num_rows, num_columns=16, seed=0):
    rows = np.random.default_rng(seed).normal(size=(num_rows, num_columns)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_matches_are_mutual_nearest_neighbours():
    query, database = unit_rows(60, seed=1), unit_rows(80, seed=2)
    cosines = query.astype(np.float64) @ database.T
    expected = [
        (row, best)
        for row, best in enumerate(cosines.argmax(1))
        if cosines[:, best].argmax() == row
    ]
    matches, similarities = match(query, database, min_similarity=-1)
    assert_array_equal(matches, expected)
    assert_allclose(similarities, cosines[tuple(matches.T)], atol=1e-6)


def test_matching_is_symmetric():
    query, database = unit_rows(60, seed=1), unit_rows(80, seed=2)
    there, back = match(query, database, 0.1)[0], match(database, query, 0.1)[0]
    assert_array_equal(there, back[np.argsort(back[:, 1])][:, ::-1])


def test_shuffled_descriptors_find_themselves():
    database = unit_rows(50)
    order = np.random.default_rng(3).permutation(50)
    matches, similarities = match(database[order], database, 0.99)
    assert_array_equal(matches, np.column_stack([np.arange(50), order]))
    assert_allclose(similarities, 1, atol=1e-6)


def test_only_similarities_from_the_minimum_on_are_kept():
    query = np.array([[1, 0], [0, 1]], np.float32)
    database = np.array([[0.8, 0.6], [-1, 0]], np.float32)
    assert_array_equal(match(query, database, 0.8)[0], [[0, 0]])
    assert match(query, database, 0.81)[0].shape == (0, 2)


def test_equal_descriptors_are_matched_once():
    query, database = np.repeat(unit_rows(1), 5, axis=0), np.repeat(unit_rows(1), 3, axis=0)
    assert_array_equal(match(query, database, 0.5)[0], [[0, 0]])


def test_a_used_buffer_changes_nothing():
    query, database = unit_rows(40, seed=1), unit_rows(30, seed=2)
    buffer = np.full(2000, np.nan, np.float32)
    fresh, reused = match(query, database, 0.0), match(query, database, 0.0, buffer)
    assert_array_equal(fresh[0], reused[0])
    assert_array_equal(fresh[1], reused[1])


@pytest.mark.parametrize("find", [match, match_nearest])
@pytest.mark.parametrize("num_rows", [(0, 5), (5, 0), (0, 0)])
def test_no_descriptors_make_no_matches(find, num_rows):
    matches, similarities = find(unit_rows(num_rows[0]), unit_rows(num_rows[1]), 0.5)
    assert matches.shape == (0, 2)
    assert matches.dtype == np.int64
    assert similarities.dtype == np.float32


@pytest.mark.parametrize("find", [match, match_nearest])
def test_descriptors_of_another_model_are_refused(find):
    with pytest.raises(ValueError, match=r"must have 16 columns like the query's, got \(4, 8\)"):
        find(unit_rows(5), unit_rows(4, num_columns=8), 0.5)


def test_nearest_matches_equal_those_of_a_kd_tree():
    query, database = unit_rows(300, num_columns=6, seed=4), unit_rows(200, num_columns=6, seed=5)
    distances, rows = cKDTree(database).query(query, distance_upper_bound=0.6)
    found = np.flatnonzero(np.isfinite(distances))
    matches, similarities = match_nearest(query, database, max_distance=0.6)
    assert 0 < len(found) < 300
    assert_array_equal(matches, np.column_stack([found, rows[found]]))
    assert_allclose(similarities, 1 - distances[found] ** 2 / 2, atol=1e-5)


def test_nearest_matches_may_share_a_database_descriptor():
    database = unit_rows(3)
    matches, _ = match_nearest(database[[1, 1, 2]], database, max_distance=1.0)
    assert_array_equal(matches, [[0, 1], [1, 1], [2, 2]])
