"""Features of an image within a number of bytes: how precise, and how many.

The finest descriptors of which all keypoints fit; where not even one bit a column is small enough,
fewer keypoints.  `benchmarks/budget.py` measures what each costs in quality.
"""

from collections.abc import Sequence
from dataclasses import replace

from opendelg.collection import Precision, keypoint_bytes, record_bytes
from opendelg.collection.codebook import PART
from opendelg.errors import OpenDelgError
from opendelg.extraction import ExtractionConfig

FINEST_FIRST: Sequence[Precision] = ("float16", "int8", "pq", "1bit")
MIN_KEYPOINTS = 50  # fewer verify next to nothing


def feature_bytes(config: ExtractionConfig, global_dimensions: int, local_dimensions: int) -> int:
    """Most bytes that an image's features take in a collection, its files' overhead left out."""
    local = record_bytes(config.max_keypoints, local_dimensions, config.precision)
    return 4 * global_dimensions + local


def within_budget(
    config: ExtractionConfig, num_bytes: int, global_dimensions: int, local_dimensions: int
) -> ExtractionConfig:
    """Settings like these whose features take at most so many bytes an image.

    Args:
        config: Neither precision nor keypoints become more than they are here.
        num_bytes: Of the global descriptor and all local features.
        global_dimensions: Of the model.
        local_dimensions: Of the model.

    Raises:
        OpenDelgError: If not even `MIN_KEYPOINTS` of one bit a column fit.
    """
    for precision in FINEST_FIRST[FINEST_FIRST.index(config.precision) :]:
        if precision == "pq" and local_dimensions % PART:
            continue
        tried = replace(config, precision=precision)
        if feature_bytes(tried, global_dimensions, local_dimensions) <= num_bytes:
            return tried
    coarse = replace(config, precision="1bit", max_keypoints=0)
    empty = feature_bytes(coarse, global_dimensions, local_dimensions)
    each = keypoint_bytes(local_dimensions, "1bit")
    num_keypoints = (num_bytes - empty) // each
    if num_keypoints < min(MIN_KEYPOINTS, config.max_keypoints):
        raise OpenDelgError(
            f"bytes_per_image must be at least {empty + MIN_KEYPOINTS * each} with this model, got "
            f"{num_bytes}; a model with shorter global descriptors takes less (delg weights reduce)"
        )
    return replace(coarse, max_keypoints=num_keypoints)
