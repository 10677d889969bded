"""What is shown of one result: two photos, the numbers, and what ties them together."""

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from opendelg.same import is_confident

Box = tuple[float, float, float, float]  # x1, y1, x2, y2 px of the original, upright image


def _no_points() -> np.ndarray:
    return np.zeros((0, 2), np.float32)


def _no_inliers() -> np.ndarray:
    return np.zeros(0, bool)


@dataclass(frozen=True)
class Side:
    """One photo of a pair."""

    label: str  # what to call it, usually the file name
    path: Path
    size: tuple[int, int]  # (width, height) px of the original, upright image when it was indexed
    data: bytes | None = field(default=None, repr=False)  # the file, if it is not read from path


@dataclass(frozen=True)
class Evidence:
    """One result of a search, with all its matches; M is 0 where nothing was verified.

    Points and regions are ``(x, y)`` px of the original, upright images, also when only a box of
    the query was searched; the centre of the first pixel is ``(0, 0)``.
    """

    query: Side
    database: Side
    rank: int  # 1 is the best
    similarity: float  # of the global descriptors
    num_matches: int
    num_inliers: int
    same: float | None = None  # probability that both show the same place; None is "not rated"
    query_points: np.ndarray = field(default_factory=_no_points)  # (M, 2)
    database_points: np.ndarray = field(default_factory=_no_points)  # (M, 2)
    inliers: np.ndarray = field(default_factory=_no_inliers)  # (M,) bool
    query_region: np.ndarray = field(default_factory=_no_points)  # (K, 2) polygon around inliers
    database_region: np.ndarray = field(default_factory=_no_points)  # (K', 2)

    def __post_init__(self) -> None:
        expected = (len(self.inliers), 2)
        for name in ("query_points", "database_points"):
            shape = getattr(self, name).shape
            if shape != expected:
                raise ValueError(f"{name} must have shape {expected} as inliers have, got {shape}")

    @property
    def is_rated(self) -> bool:
        """Whether there is a probability."""
        return self.same is not None and not math.isnan(self.same)

    @property
    def is_confident(self) -> bool:
        """Whether the same place is likely enough to be called found."""
        return is_confident(self.same)
