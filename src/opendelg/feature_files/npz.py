"""Feature files of this project: one .npz per image, for use outside a collection.

Arrays by our own names (see `features`): keypoints, descriptors, scores, scales, size,
global_descriptor; and `recipe`, the JSON of what made them.
"""

import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np

from opendelg.errors import FormatError
from opendelg.feature_files.checking import checked_global, checked_local
from opendelg.feature_files.writing import replacing
from opendelg.features import ImageFeatures

# What numpy and zipfile raise for files of all other kinds; RuntimeError for an encrypted one.
_FOREIGN = (
    OSError,
    KeyError,
    ValueError,
    TypeError,
    EOFError,
    MemoryError,
    RuntimeError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


def write_npz(path: Path, features: ImageFeatures, recipe: str) -> None:
    """Write a feature file whole or not at all; folders above it are made.

    Raises:
        OpenDelgError: If the file cannot be written.
    """
    with replacing(path) as part, part.open("wb") as file:
        np.savez(
            file,
            keypoints=features.local.keypoints,
            descriptors=features.local.descriptors,
            scores=features.local.scores,
            scales=features.local.scales,
            size=np.array(features.size, np.int64),
            global_descriptor=features.global_descriptor,
            recipe=np.array(recipe),
        )


def read_npz(path: Path) -> tuple[ImageFeatures, str]:
    """Features and recipe of a feature file.

    Raises:
        FormatError: If it is not one, or its arrays do not fit together.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            local = checked_local(
                file["keypoints"], file["descriptors"], file["scores"], file["scales"], str(path)
            )
            width, height = (int(side) for side in file["size"])
            descriptor = checked_global(file["global_descriptor"], str(path))
            return ImageFeatures((width, height), descriptor, local), str(file["recipe"])
    except _FOREIGN as error:
        raise FormatError(
            f"feature file must be one that `delg extract` wrote, got {str(path)!r} ({error})"
        ) from error


def is_current(path: Path, image: Path, recipe: str) -> bool:
    """Whether `path` is a feature file made with `recipe`, and no older than the image."""
    try:
        if path.stat().st_mtime_ns < image.stat().st_mtime_ns:
            return False
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return str(file["recipe"]) == recipe
    except _FOREIGN:
        return False
