"""What every reader demands of the arrays of a file, whoever wrote it."""

import numpy as np

from opendelg.errors import FormatError
from opendelg.features import LocalFeatures


def checked_local(
    keypoints: np.ndarray,
    descriptors: np.ndarray,
    scores: np.ndarray,
    scales: np.ndarray,
    where: str,
) -> LocalFeatures:
    """Local features in float32.

    Args:
        keypoints: (N, 2), our coordinates.
        descriptors: (N, D).
        scores: (N,).
        scales: (N,), pyramid scales.
        where: Name of the file, for error messages.

    Raises:
        FormatError: If shapes do not fit, a number is not finite or a scale is not positive.
    """
    if keypoints.ndim != 2 or keypoints.shape[1] != 2:
        raise FormatError(f"keypoints must be (N, 2), got {keypoints.shape} in {where!r}")
    rows = len(keypoints)
    if descriptors.ndim != 2 or len(descriptors) != rows:
        raise FormatError(f"descriptors must be ({rows}, D), got {descriptors.shape} in {where!r}")
    for name, array in (("scores", scores), ("scales", scales)):
        if array.shape != (rows,):
            raise FormatError(f"{name} must be ({rows},), got {array.shape} in {where!r}")
    local = LocalFeatures(
        keypoints=_finite(keypoints, "keypoints", where),
        descriptors=_finite(descriptors, "descriptors", where),
        scores=_finite(scores, "scores", where),
        scales=_finite(scales, "scales", where),
    )
    if rows and local.scales.min() <= 0:
        raise FormatError(f"scales must be positive, got {local.scales.min()} in {where!r}")
    return local


def checked_global(descriptor: np.ndarray, where: str) -> np.ndarray:
    """A global descriptor (D,) in float32; D may be 0.

    Raises:
        FormatError: If it has another shape or a number is not finite.
    """
    if descriptor.ndim != 1:
        raise FormatError(f"global_descriptor must be (D,), got {descriptor.shape} in {where!r}")
    return _finite(descriptor, "global_descriptor", where)


def _finite(array: np.ndarray, name: str, where: str) -> np.ndarray:
    """The numbers in float32."""
    if array.dtype.kind not in "fiu":
        raise FormatError(f"{name} must be numbers, got {array.dtype} in {where!r}")
    with np.errstate(over="ignore"):  # told below, with the file
        numbers = array.astype(np.float32, copy=False)
    if not np.isfinite(numbers).all():
        raise FormatError(f"{name} must be finite, got other numbers in {where!r}")
    return numbers
