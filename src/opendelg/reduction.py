"""Shorter global descriptors: their principal axes, folded into the last layer of the network.

A global descriptor is a linear layer's output brought to unit length.  Projected on fewer axes it
still is one, of a layer that is the product of both: the reduced model is a model like any other,
and every command, runtime and collection takes it.

The axes are those of the products about the origin, not about the mean as in `whitening`: they
lose least of the similarities, and a mean could not be taken away before the length is divided by.

Source: Jégou and Chum, "Negative evidences and co-occurrences in image retrieval: the benefit of
PCA and whitening", ECCV 2012, for the use of PCA; the folding is linear algebra.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from opendelg.errors import ImageError, OpenDelgError
from opendelg.extraction import Extractor, extract_stream
from opendelg.finding import tell_unreadable
from opendelg.indexing import failure_reason
from opendelg.weights import Weights, write_weights

MAX_PHOTOS = 4096  # that axes are learnt on; more change them little
_LAYER = "whitening"  # of `model.Delg`: makes the descriptor of the pooled features


def learn_axes(
    extractor: Extractor,
    photos: Sequence[Path],
    num_dimensions: int,
    progress: Callable[[Path], None] | None = None,
) -> tuple[np.ndarray, float]:
    """Principal axes of the global descriptors of photos; unreadable ones are told and left out.

    Args:
        extractor: Of the model that is to be reduced.
        photos: Of these, `MAX_PHOTOS` at most are taken, evenly spread.
        num_dimensions: Axes wanted, K.
        progress: Called with each photo that is done.

    Returns:
        Axes (D, K) float64, unit columns, the one that carries most first; and the share in [0, 1]
        of the descriptors' squared length that they keep.

    Raises:
        OpenDelgError: If the descriptors are not longer than K, or the readable photos are fewer.
    """
    num_now = extractor.runtime.architecture.num_global_dimensions
    if not 1 <= num_dimensions < num_now:
        raise OpenDelgError(
            f"dimensions must be between 1 and {num_now - 1}, fewer than the model has, "
            f"got {num_dimensions}"
        )
    descriptors = []
    for photo, features in extract_stream(
        chosen(photos), extractor, decode_threads=2, want_local=False
    ):
        if isinstance(features, ImageError):
            tell_unreadable(photo, failure_reason(photo, features))
        else:
            descriptors.append(features.global_descriptor)
        if progress is not None:
            progress(photo)
    if len(descriptors) < num_dimensions:
        raise OpenDelgError(
            f"photos must be at least as many as dimensions, {num_dimensions}, got "
            f"{len(descriptors)} that are readable"
        )
    return principal_axes(np.stack(descriptors), num_dimensions)


def chosen(photos: Sequence[Path]) -> list[Path]:
    """`MAX_PHOTOS` of the photos, evenly spread, or all."""
    rows = np.linspace(0, len(photos) - 1, min(len(photos), MAX_PHOTOS)).astype(int)
    return [photos[row] for row in rows]


def principal_axes(descriptors: np.ndarray, num_dimensions: int) -> tuple[np.ndarray, float]:
    """Axes (D, K) of descriptors (N, D), and the share of the squared length; see `learn_axes`."""
    rows = descriptors.astype(np.float64)
    energies, axes = np.linalg.eigh(rows.T @ rows)  # ascending
    kept = energies[::-1][:num_dimensions].sum() / energies.sum()
    return axes[:, ::-1][:, :num_dimensions], float(kept)


def write_reduced(weights: Weights, axes: np.ndarray, kept: float, path: Path) -> None:
    """Write the weights file of a model whose descriptors are projected on `axes` (D, K).

    Raises:
        OSError: If the file cannot be written.
    """
    matrix = weights.state[f"{_LAYER}.weight"]
    layer = {
        f"{_LAYER}.weight": axes.T @ matrix.astype(np.float64),
        f"{_LAYER}.bias": axes.T @ weights.state[f"{_LAYER}.bias"].astype(np.float64),
    }
    num_before, num_dimensions = axes.shape
    write_weights(
        path,
        f"{weights.name}-{num_dimensions}",
        {**weights.state, **layer},
        weights.model | {"num_global_dimensions": num_dimensions},
        weights.score_threshold,
        weights.same,
        weights.training
        | {"reduced": {"from": weights.sha256, "dimensions": num_before, "kept": round(kept, 6)}},
        precision="float16" if matrix.dtype == np.float16 else "float32",
    )
