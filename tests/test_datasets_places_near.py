import numpy as np
import pytest

from opendelg.datasets.places.near import heading_differences, near, region_numbers


def zeros(count: int) -> np.ndarray:
    return np.zeros(count, np.int64)


def plain(
    queries: np.ndarray, database: np.ndarray, radius: float, theirs: np.ndarray, ours: np.ndarray
) -> list[list[int]]:
    """The same by comparing every pair."""
    return [
        [
            number
            for number, other in enumerate(database)
            if ours[number] == region and np.hypot(*(other - place)) <= radius
        ]
        for place, region in zip(queries, theirs, strict=True)
    ]


@pytest.mark.parametrize("seed", range(20))
def test_the_grid_finds_what_comparing_every_pair_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    spread = 10 ** rng.uniform(0, 4)
    centre = rng.uniform(-5e6, 5e6, 2)
    # Whole metres, so that many are exactly as far as the radius.
    queries = np.round(centre + rng.normal(0, spread, (60, 2)))
    database = np.round(centre + rng.normal(0, spread, (200, 2)))
    theirs, ours = rng.integers(0, 3, 60), rng.integers(0, 3, 200)
    found = near(queries, database, 25.0, theirs, ours)
    assert [ids.tolist() for ids in found] == plain(queries, database, 25.0, theirs, ours)


def test_more_queries_than_one_block_are_found_in_their_order() -> None:
    rng = np.random.default_rng(1)
    queries, database = rng.uniform(0, 300, (2100, 2)), rng.uniform(0, 300, (50, 2))
    found = near(queries, database, 40.0, zeros(2100), zeros(50))
    expected = plain(queries, database, 40.0, zeros(2100), zeros(50))
    assert [ids.tolist() for ids in found] == expected


def test_the_radius_itself_is_near() -> None:
    database = np.array([[25.0, 0.0], [25.0 + 1e-6, 0.0], [-15.0, -20.0], [0.0, 0.0]])
    (found,) = near(np.zeros((1, 2)), database, 25.0, zeros(1), zeros(4))
    assert found.tolist() == [0, 2, 3]


def test_nothing_is_near_in_an_empty_database() -> None:
    (found,) = near(np.zeros((1, 2)), np.zeros((0, 2)), 25.0, zeros(1), zeros(0))
    assert (found.tolist(), found.dtype) == ([], np.int64)


def test_no_queries_find_nothing() -> None:
    assert near(np.zeros((0, 2)), np.zeros((1, 2)), 25.0, zeros(0), zeros(1)) == []


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e12])
def test_positions_out_of_range_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="database must have finite positions"):
        near(np.zeros((1, 2)), np.full((1, 2), value), 25.0, zeros(1), zeros(1))


@pytest.mark.parametrize("radius", [0.0, -1.0, np.nan, np.inf])
def test_a_radius_out_of_range_is_refused(radius: float) -> None:
    with pytest.raises(ValueError, match="radius must be between"):
        near(np.zeros((1, 2)), np.zeros((1, 2)), radius, zeros(1), zeros(1))


def test_headings_are_compared_around_the_circle() -> None:
    found = heading_differences(350.0, np.array([350.0, 10.0, 170.0, -10.0, 710.0]))
    assert found.tolist() == [0.0, 20.0, 180.0, 0.0, 0.0]


def test_equal_labels_of_regions_have_equal_numbers() -> None:
    first, second = region_numbers(["b", "a", "b"], ["a", "c"])
    assert (first.tolist(), second.tolist()) == ([0, 1, 0], [1, 2])
