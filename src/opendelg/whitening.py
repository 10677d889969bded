"""PCA-whitening of global descriptors, learnt on the database without labels.

Descriptors are centred, turned to their principal axes, scaled to equal variance along each and
brought to unit length again: a direction in which all photos differ alike then counts no more
than one that tells few of them apart.  Small variances are mostly noise; shrinkage draws all of
them to their mean, from 0 (full whitening) to 1 (axes only, no scaling).

Source: Jégou and Chum, "Negative evidences and co-occurrences in image retrieval: the benefit of
PCA and whitening", ECCV 2012; linear shrinkage as of Ledoit and Wolf, 2004.
"""

from dataclasses import dataclass

import numpy as np

from opendelg.errors import OpenDelgError
from opendelg.expansion import unit_rows

_BLOCK_ROWS = 1 << 14
_LEAST_VARIANCE = 1e-9  # of the largest: below, an axis holds rounding errors of float32


@dataclass(frozen=True)
class Whitening:
    """An affine map of descriptors, followed by a division by the length."""

    mean: np.ndarray  # (D,) float64
    axes: np.ndarray  # (D, K) float64, unit columns, of the largest variance first
    variances: np.ndarray  # (K,) float64 along the axes, before shrinkage
    scales: np.ndarray  # (K,) float64 factors along the axes

    def project(self, descriptors: np.ndarray) -> np.ndarray:
        """Rows (N, K) float64 of any length: zero mean, without shrinkage variance 1."""
        return np.asarray((descriptors - self.mean) @ (self.axes * self.scales))

    def apply(self, descriptors: np.ndarray) -> np.ndarray:
        """Descriptors (N, K) float32 of unit length; one equal to the mean becomes zeros."""
        applied = np.zeros((len(descriptors), len(self.scales)), np.float32)
        for start in range(0, len(descriptors), _BLOCK_ROWS):
            block = slice(start, start + _BLOCK_ROWS)
            applied[block] = unit_rows(self.project(descriptors[block]))
        return applied


def fit_whitening(
    descriptors: np.ndarray, max_dimensions: int, shrinkage: float = 0.0
) -> Whitening:
    """Learn whitening.

    Args:
        descriptors: (N, D) float32 of the database.
        max_dimensions: Axes kept at most; those of no variance are never kept.
        shrinkage: In [0, 1], how far variances are drawn to the mean of all D.

    Raises:
        OpenDelgError: If the descriptors do not differ: there is nothing to learn.
        ValueError: If a setting is out of its range.
    """
    if max_dimensions < 1:
        raise ValueError(f"max_dimensions must be at least 1, got {max_dimensions}")
    require_shrinkage(shrinkage)
    mean, covariance = _moments(descriptors)
    variances, axes = np.linalg.eigh(covariance)
    variances, axes = variances[::-1], axes[:, ::-1]
    if len(variances) == 0 or variances[0] <= 1e-12:
        raise OpenDelgError(
            "whitening must be learnt on descriptors that differ, got "
            f"{len(descriptors)} that do not"
        )
    kept = min(max_dimensions, int((variances > _LEAST_VARIANCE * variances[0]).sum()))
    shrunk = (1 - shrinkage) * variances[:kept] + shrinkage * variances.mean()
    # An axis may point either way: the same data shall give the same numbers everywhere.
    kept_axes = axes[:, :kept]
    largest = np.abs(kept_axes).argmax(axis=0)
    kept_axes = kept_axes * np.sign(kept_axes[largest, np.arange(kept)])
    return Whitening(mean, kept_axes, variances[:kept], 1 / np.sqrt(shrunk))


def require_shrinkage(shrinkage: float) -> None:
    """Raises ValueError unless it lies in [0, 1]."""
    if not 0 <= shrinkage <= 1:
        raise ValueError(f"shrinkage must be between 0 and 1, got {shrinkage}")


def _moments(descriptors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (D,) and covariance (D, D), float64, block by block."""
    num_rows, num_columns = descriptors.shape
    mean = descriptors.sum(axis=0, dtype=np.float64) / max(1, num_rows)
    total = np.zeros((num_columns, num_columns))
    for start in range(0, num_rows, _BLOCK_ROWS):
        centred = descriptors[start : start + _BLOCK_ROWS] - mean
        total += centred.T @ centred
    return mean, total / max(1, num_rows)
