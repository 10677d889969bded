"""Feature files of this project: one .npz per image, for use outside a collection.

Arrays by our own names (see `features`): keypoints, descriptors, scores, scales, size,
global_descriptor; and `recipe`, the JSON of what made them.
"""

import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from opendelg.collection.recipe import Recipe
from opendelg.errors import FormatError
from opendelg.feature_files.checking import checked_global, checked_local
from opendelg.feature_files.writing import replacing
from opendelg.features import ImageFeatures

MAX_BYTES = 1 << 30  # of all arrays; 1000 features of 128 numbers have 0.6 MB
# What numpy and zipfile raise for files of all other kinds; RuntimeError for an encrypted one.
FOREIGN = (
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


@contextmanager
def open_npz(path: Path) -> Iterator[Any]:
    """The arrays of an .npz file by name, read when they are asked for.

    Raises:
        One of `FOREIGN`: If it is none, or its arrays take more than `MAX_BYTES`.
    """
    with path.open("rb") as stream:
        if stream.read(2) != b"PK":  # numpy would take it for a pickle
            raise ValueError("no .npz file")
        stream.seek(0)
        with np.load(stream, allow_pickle=False) as file:
            size = sum(member.file_size for member in file.zip.infolist())
            if size > MAX_BYTES:
                raise ValueError(f"arrays of {size} bytes, {MAX_BYTES} at most")
            yield file


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
        with open_npz(path) as file:
            local = checked_local(
                file["keypoints"], file["descriptors"], file["scores"], file["scales"], str(path)
            )
            width, height = (int(side) for side in file["size"])
            if min(width, height) < 1:
                raise ValueError(f"size of {width} x {height} px")
            descriptor = checked_global(file["global_descriptor"], str(path))
            return ImageFeatures((width, height), descriptor, local), str(file["recipe"])
    except FOREIGN as error:
        raise FormatError(
            f"feature file must be one that `delg extract` wrote, got {str(path)!r} ({error})"
        ) from error


def is_current(path: Path, image: Path, recipe: str) -> bool:
    """Whether `path` is a feature file made with `recipe`, and no older than the image."""
    try:
        if path.stat().st_mtime_ns < image.stat().st_mtime_ns:
            return False
        with open_npz(path) as file:
            stored = str(file["recipe"])
        # The same weights may lie elsewhere now.
        return stored == recipe or not Recipe.from_json(stored).differences(
            Recipe.from_json(recipe)
        )
    except (*FOREIGN, FormatError):
        return False
