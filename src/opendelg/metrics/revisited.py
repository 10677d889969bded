"""Measures of the Revisited Oxford / Paris protocol.

Junk leaves the ranking before positions are counted, and the precision-recall curve is
integrated with trapezoids: values differ from the finite sum of `retrieval`.  All measures take
rankings that leave images out, if they say at which positions of the whole ranking theirs are:
of a million images only those count that the ground truth names.

Source: Radenović et al., "Revisiting Oxford and Paris", CVPR 2018.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Level = Literal["easy", "medium", "hard"]
LEVELS: tuple[Level, ...] = ("easy", "medium", "hard")


@dataclass(frozen=True)
class GroundTruth:
    """What one query should find.  A database id in neither array is a negative."""

    positives: np.ndarray  # (P,) int64, images that show the query's landmark
    junk: np.ndarray  # (J,) int64, neither right nor wrong: ignored wherever they rank


def ground_truth(level: Level, easy: np.ndarray, hard: np.ndarray, junk: np.ndarray) -> GroundTruth:
    """What a query should find at one level of difficulty, from the three lists of the dataset."""
    match level:
        case "easy":
            return GroundTruth(easy, np.concatenate([junk, hard]))
        case "medium":
            return GroundTruth(np.concatenate([easy, hard]), junk)
        case "hard":
            return GroundTruth(hard, np.concatenate([junk, easy]))


def average_precision(
    ranking: np.ndarray, truth: GroundTruth, positions: np.ndarray | None = None
) -> float:
    """Area under the precision-recall curve of one query.

    Args:
        ranking: (K,) int64 database ids, best first.
        truth: Positives and junk of this query.
        positions: (K,) int64 ascending, where these ids are in the whole ranking, from 0; None:
            the ranking is whole, or its first K.  All junk before the last positive must be named.

    Returns:
        Area in [0, 1]; NaN without positives (the mean leaves such queries out).

    Raises:
        ValueError: If an id is ranked twice.
    """
    if len(truth.positives) == 0:
        return float("nan")
    ranks = positive_ranks(ranking, truth, positions)
    found = np.arange(len(ranks))
    precision_after = (found + 1) / (ranks + 1)
    # Nothing precedes rank 0: the protocol calls the precision there 1, not 0 / 0.
    precision_before = np.where(ranks == 0, 1.0, found / np.maximum(ranks, 1))
    # A positive that was never returned adds no area but still counts in the divisor.
    return float((precision_before + precision_after).sum() / (2 * len(truth.positives)))


def precision_at(
    ranking: np.ndarray, truth: GroundTruth, k: int, positions: np.ndarray | None = None
) -> float:
    """Share of positives among the first k, or up to the last positive where that comes earlier.

    Returns:
        Value in [0, 1]; 0 if no positive is ranked, NaN without positives.

    Raises:
        ValueError: If k is below 1, or an id is ranked twice.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    if len(truth.positives) == 0:
        return float("nan")
    ranks = positive_ranks(ranking, truth, positions)
    if len(ranks) == 0:
        return 0.0
    considered = min(int(ranks[-1]) + 1, k)
    return float(np.count_nonzero(ranks < considered) / considered)


def positive_ranks(
    ranking: np.ndarray, truth: GroundTruth, positions: np.ndarray | None = None
) -> np.ndarray:
    """0-based ranks (J,) int64, ascending, of the ranked positives once junk is taken out.

    Raises:
        ValueError: If an id is ranked twice.
    """
    distinct = len(np.unique(ranking))
    if distinct != len(ranking):
        raise ValueError(f"ranking must not repeat ids, got {distinct} distinct of {len(ranking)}")
    if positions is None:
        positions = np.arange(len(ranking))
    is_junk = np.isin(ranking, truth.junk)
    ranks: np.ndarray = (positions - np.cumsum(is_junk))[
        np.isin(ranking, truth.positives) & ~is_junk
    ]
    return ranks
