"""Average precision as a finite sum, recall in the first k, and their means over queries.

Every database image is right or wrong: there is no junk.  Average precision is the mean, over
all positives, of the precision at the rank where each was found; values differ from the
trapezoids of the Revisited Oxford / Paris protocol.  A recall of 1 means "found at least one",
as place recognition counts it, and not the share of the positives.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class RetrievalScores:
    """Means over the queries that have positives; NaN if there is no such query."""

    num_queries: int  # queries with at least one positive
    mean_average_precision: float  # in [0, 1]
    recall_at: dict[int, float]  # k -> share of the queries, in [0, 1]


def average_precision(ranking: np.ndarray, positives: np.ndarray) -> float:
    """Mean precision at the ranks of the positives of one query.

    Args:
        ranking: (K,) int64 database ids, best first; may leave out any.
        positives: (P,) int64 database ids that the query should find, in any order.

    Returns:
        Value in [0, 1], a positive that is not in the ranking counting 0; NaN without positives.

    Raises:
        ValueError: If an id is ranked twice or is positive twice.
    """
    _require_distinct("ranking", ranking)
    _require_distinct("positives", positives)
    if len(positives) == 0:
        return float("nan")
    ranks = np.flatnonzero(np.isin(ranking, positives))  # 0-based
    precision = np.arange(1, len(ranks) + 1) / (ranks + 1)
    return float(precision.sum() / len(positives))


def recall_at(ranking: np.ndarray, positives: np.ndarray, ks: Sequence[int]) -> dict[int, float]:
    """Whether one query finds any positive among the first k, for each k.

    Args:
        ranking: (K,) int64 database ids, best first.
        positives: (P,) int64 database ids that the query should find.
        ks: Numbers of results looked at; more than K is the same as K.

    Returns:
        k -> 1.0 or 0.0; all NaN without positives.

    Raises:
        ValueError: If a k is below 1, or an id is ranked twice.
    """
    _require_distinct("ranking", ranking)
    if any(k < 1 for k in ks):
        raise ValueError(f"ks must be at least 1, got {list(ks)}")
    if len(positives) == 0:
        return dict.fromkeys(ks, float("nan"))
    is_positive = np.isin(ranking, positives)
    return {k: float(is_positive[:k].any()) for k in ks}


def mean_scores(
    rankings: Sequence[np.ndarray], positives: Sequence[np.ndarray], ks: Sequence[int]
) -> RetrievalScores:
    """Scores over all queries, those without positives left out.

    Args:
        rankings: Q arrays (K,) int64 of database ids, best first, one per query.
        positives: Q arrays (P,) int64 in the same order of queries.
        ks: Numbers of results that recall looks at.

    Raises:
        ValueError: If the numbers of queries differ; see also the functions for one query.
    """
    if len(rankings) != len(positives):
        raise ValueError(
            f"rankings must be as many as positives, got {len(rankings)} and {len(positives)}"
        )
    precisions = [average_precision(r, p) for r, p in zip(rankings, positives, strict=True)]
    recalls = [recall_at(r, p, ks) for r, p in zip(rankings, positives, strict=True)]
    return RetrievalScores(
        num_queries=sum(len(p) > 0 for p in positives),
        mean_average_precision=mean_over_queries(precisions),
        recall_at={k: mean_over_queries([recall[k] for recall in recalls]) for k in ks},
    )


def mean_over_queries(values: Sequence[float]) -> float:
    """Mean of the values that are not NaN, which marks queries without positives; else NaN."""
    counted = [value for value in values if not np.isnan(value)]
    return float(np.mean(counted)) if counted else float("nan")


def _require_distinct(name: str, ids: np.ndarray) -> None:
    distinct = len(np.unique(ids))
    if distinct != len(ids):
        raise ValueError(f"{name} must not repeat ids, got {distinct} distinct of {len(ids)}")
