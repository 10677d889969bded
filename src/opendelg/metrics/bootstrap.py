"""How far a figure could be off because these queries were asked and not others.

The queries are drawn anew, with replacement, many times; the figure of each draw says how it
varies.  The interval is that of the percentiles.  For the difference of two systems the same
queries are drawn for both, as a query that is hard is hard for both: pass a statistic that
subtracts them.

Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

NUM_RESAMPLES = 10_000
CONFIDENCE = 0.95
MAX_DRAWN = 1 << 22  # indices that are held at a time: 32 MB

# (R, Q) int64 positions of queries, one resample a row -> (R,) float64, the figure of each
Statistic = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Estimate:
    """A figure with what resampling says of it; NaN where there is no query."""

    value: float  # of the queries as they are
    low: float  # ends of the interval
    high: float
    same_sign: float  # share of the resamples whose figure has the sign of `value`; NaN if it is 0


def bootstrap(
    statistic: Statistic,
    num_queries: int,
    num_resamples: int = NUM_RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Estimate:
    """The interval of a figure over resampled queries.

    Args:
        statistic: Computes the figure of chosen queries.
        num_queries: How many there are to choose from.
        num_resamples: How often as many as these are drawn.
        confidence: Share of the resamples inside the interval.
        seed: Of the draws; the same for the same figure again.

    Raises:
        ValueError: If there is no resample, or the confidence is not between 0 and 1.
    """
    if num_resamples < 1:
        raise ValueError(f"num_resamples must be at least 1, got {num_resamples}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}")
    if num_queries == 0:
        return Estimate(*[float("nan")] * 4)
    value = float(statistic(np.arange(num_queries)[None])[0])
    random = np.random.default_rng(seed)
    rows = max(1, MAX_DRAWN // num_queries)
    drawn = np.concatenate(
        [
            statistic(random.integers(num_queries, size=(min(rows, stop), num_queries)))
            for stop in range(num_resamples, 0, -rows)
        ]
    )
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    share = float(np.mean(np.sign(drawn) == np.sign(value))) if value else float("nan")
    return Estimate(value, float(low), float(high), share)


def mean_of(values: np.ndarray) -> Statistic:
    """The mean over queries as a statistic.

    Args:
        values: (Q,) float64, none of them NaN.
    """

    def mean(chosen: np.ndarray) -> np.ndarray:
        means: np.ndarray = values[chosen].mean(axis=1)
        return means

    return mean
