"""Which database images were taken near each query: a grid of cells as wide as the radius."""

from collections.abc import Sequence
from itertools import product

import numpy as np

MAX_COORDINATE = 1e9  # m; more than any map projection gives, and cell numbers stay exact
MIN_RADIUS = 1e-3
_QUERIES_AT_ONCE = 1024  # the candidates of so many are in memory together


def near(
    queries: np.ndarray,
    database: np.ndarray,
    radius: float,
    query_regions: np.ndarray,
    database_regions: np.ndarray,
) -> list[np.ndarray]:
    """Database images within a radius of each query, the radius included.

    Args:
        queries: (Q, 2) float64 positions, (east, north), finite.
        database: (N, 2) float64 positions in the same unit.
        radius: Greatest Euclidean distance.
        query_regions: (Q,) int64; only positions of one region can be compared.
        database_regions: (N,) int64.

    Returns:
        Q arrays (P,) int64 of rows of ``database``, ascending.

    Raises:
        ValueError: If the radius or a position is out of range.
    """
    if not MIN_RADIUS <= radius <= MAX_COORDINATE:
        raise ValueError(
            f"radius must be between {MIN_RADIUS:g} and {MAX_COORDINATE:g}, got {radius}"
        )
    for name, positions in (("queries", queries), ("database", database)):
        if not np.all(np.abs(positions) <= MAX_COORDINATE):  # False for NaN
            raise ValueError(f"{name} must have finite positions up to {MAX_COORDINATE:g}")
    grid = _Grid(database, database_regions, radius)
    found: list[np.ndarray] = []
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        block = slice(start, start + _QUERIES_AT_ONCE)
        found += grid.search(queries[block], query_regions[block])
    return found


class _Grid:
    """Database positions sorted by region and cell."""

    def __init__(self, positions: np.ndarray, regions: np.ndarray, radius: float) -> None:
        self._radius = radius
        # A hair wider than the radius: a position exactly that far is never two cells away.
        self._width = radius * (1 + 1e-9)
        cells = self._cells(positions)
        self._order = np.lexsort([cells[:, 1], cells[:, 0], regions])
        self._positions = positions[self._order]
        self._keys = _keys(regions[self._order], cells[self._order])

    def search(self, queries: np.ndarray, regions: np.ndarray) -> list[np.ndarray]:
        cells = self._cells(queries)
        pairs: list[tuple[np.ndarray, np.ndarray]] = []
        for step in product((-1, 0, 1), repeat=2):
            keys = _keys(regions, cells + np.array(step))
            first = np.searchsorted(self._keys, keys, side="left")
            stop = np.searchsorted(self._keys, keys, side="right")
            pairs.append(_expanded(first, stop))
        owners = np.concatenate([owner for owner, _ in pairs])
        rows = np.concatenate([row for _, row in pairs])
        distances = np.hypot(*(queries[owners] - self._positions[rows]).T)
        is_near = distances <= self._radius
        owners, ids = owners[is_near], self._order[rows[is_near]]
        order = np.lexsort([ids, owners])
        ends = np.cumsum(np.bincount(owners, minlength=len(queries)))
        return np.split(ids[order].astype(np.int64), ends[:-1])

    def _cells(self, positions: np.ndarray) -> np.ndarray:
        return np.floor(positions / self._width).astype(np.int64)


def _keys(regions: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Region and cell (N,) as one value that sorts like the three of them."""
    kinds = [("region", np.int64), ("east", np.int64), ("north", np.int64)]
    keys = np.empty(len(cells), dtype=kinds)
    keys["region"], keys["east"], keys["north"] = regions, cells[:, 0], cells[:, 1]
    return keys


def _expanded(first: np.ndarray, stop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All pairs (owner, row) with first[owner] <= row < stop[owner]."""
    counts = stop - first
    owners = np.repeat(np.arange(len(counts)), counts)
    offsets = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
    return owners, first[owners] + offsets


def heading_differences(heading: float, headings: np.ndarray) -> np.ndarray:
    """Angles (N,) in [0, 180] between one compass heading and others, all in degrees."""
    turned = np.abs(headings - heading) % 360.0
    return np.minimum(turned, 360.0 - turned)


def region_numbers(*labels: Sequence[str]) -> list[np.ndarray]:
    """Labels of regions as numbers (N,) int64, equal labels alike in all the lists."""
    numbers: dict[str, int] = {}
    return [
        np.array([numbers.setdefault(label, len(numbers)) for label in each], np.int64)
        for each in labels
    ]
