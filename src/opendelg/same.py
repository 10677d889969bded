"""The probability that two photos show the same thing, from what both stages of search found.

A logistic model over similarity, inliers and their spread: few enough numbers to be fitted on
a few thousand labelled pairs and to be explained to whoever asks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Least probability of a confident match.  A search shows the best of a hundred candidates: at one
# half each, a few wrong ones among them are to be expected.
CONFIDENT = 0.9


@dataclass(frozen=True)
class SameModel:
    """Coefficients of the log-odds; fitted with the weights they are stored with."""

    intercept: float
    similarity: float  # per unit of cosine similarity of the global descriptors
    log_inliers: float  # per unit of log(1 + inliers, weighted with their share of the matches)
    spread: float  # per unit of the query's share that the inliers cover

    def probability(
        self, similarities: np.ndarray, num_inliers: np.ndarray, spreads: np.ndarray
    ) -> np.ndarray:
        """Probabilities (K,) in (0, 1) of K pairs."""
        log_odds = _columns(similarities, num_inliers, spreads) @ np.array(
            [self.intercept, self.similarity, self.log_inliers, self.spread]
        )
        # Beyond 35 a float64 would be 1 exactly.
        return np.asarray(1 / (1 + np.exp(-np.clip(log_odds, -35, 35))))


def is_confident(same: float | None) -> bool:
    """Whether a probability is enough to call the same thing found; None is "not rated"."""
    return same is not None and same >= CONFIDENT


def fit_same(
    similarities: np.ndarray,
    num_inliers: np.ndarray,
    spreads: np.ndarray,
    is_same: np.ndarray,
    ridge: float = 1e-5,
) -> SameModel:
    """Fit the model to K labelled pairs by Newton's method on the log-likelihood.

    More evidence never lowers the probability: a coefficient that would be negative is 0.  Pairs
    of several kinds of photos can ask for one, where the kind that is alike has fewer true pairs.

    Args:
        similarities: (K,) cosine similarities of global descriptors.
        num_inliers: (K,) inliers, as `Verification.support` counts them.
        spreads: (K,) share of the query that the inliers cover.
        is_same: (K,) bool labels.
        ridge: Weight per pair of the squared coefficients, which keeps separable data finite.

    Raises:
        ValueError: Unless both labels occur.
    """
    if not 0 < np.count_nonzero(is_same) < len(is_same):
        raise ValueError(f"is_same must hold both labels, got {len(is_same)} of one")
    rows = _columns(similarities, num_inliers, spreads)
    used = np.ones(rows.shape[1], bool)
    coefficients = _fit(rows, used, is_same, ridge)
    while coefficients[1:].min() < 0:
        used[1 + coefficients[1:].argmin()] = False
        coefficients = _fit(rows, used, is_same, ridge)
    return SameModel(*(float(value) for value in coefficients))


def _fit(rows: np.ndarray, used: np.ndarray, is_same: np.ndarray, ridge: float) -> np.ndarray:
    """Coefficients (4,) of the used columns, the others being 0."""
    chosen = rows[:, used]
    coefficients = np.zeros(chosen.shape[1])
    # The intercept is free.
    penalty = ridge * len(rows) * np.diag(np.arange(len(coefficients)) > 0).astype(np.float64)
    for _ in range(100):
        predicted = 1 / (1 + np.exp(-np.clip(chosen @ coefficients, -50, 50)))
        gradient = chosen.T @ (predicted - is_same) + penalty @ coefficients
        curvature = (chosen * (predicted * (1 - predicted))[:, None]).T @ chosen + penalty
        step = np.linalg.solve(curvature + 1e-9 * np.eye(len(curvature)), gradient)
        coefficients -= np.clip(step, -5, 5)
        if np.abs(step).max() < 1e-8:
            break
    fitted = np.zeros(rows.shape[1])
    fitted[used] = coefficients
    return fitted


def _columns(
    similarities: np.ndarray | Sequence[float],
    num_inliers: np.ndarray | Sequence[int],
    spreads: np.ndarray | Sequence[float],
) -> np.ndarray:
    similarities = np.asarray(similarities, np.float64)
    logs = np.log1p(np.asarray(num_inliers, np.float64))
    return np.column_stack(
        [np.ones_like(similarities), similarities, logs, np.asarray(spreads, np.float64)]
    )
