"""Feature files: one .npz per image, for use outside a collection.

Arrays by our own names (see `features`): keypoints, descriptors, scores, scales, size,
global_descriptor; and `recipe`, the JSON of what made them.
"""

import contextlib
import os
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from opendelg.errors import FormatError, OpenDelgError
from opendelg.features import ImageFeatures, LocalFeatures

# What numpy raises for files of all other kinds.
_FOREIGN = (OSError, KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile)


def write_npz(path: Path, features: ImageFeatures, recipe: str) -> None:
    """Write a feature file whole or not at all; folders above it are made.

    Raises:
        OpenDelgError: If the file cannot be written.
    """
    part = path.with_name(f".{os.getpid()}.part")  # short: photos may have the longest names
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
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
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):  # the first error says what is wrong
            part.unlink(missing_ok=True)
        reason = error.strerror or str(error)
        raise OpenDelgError(
            f"feature file must be writable, got {reason!r} for {str(path)!r}"
        ) from error


def read_npz(path: Path) -> tuple[ImageFeatures, str]:
    """Features and recipe of a feature file.

    Raises:
        FormatError: If it is not one.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            local = LocalFeatures(
                file["keypoints"], file["descriptors"], file["scores"], file["scales"]
            )
            width, height = (int(side) for side in file["size"])
            features = ImageFeatures((width, height), file["global_descriptor"], local)
            return features, str(file["recipe"])
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


def feature_paths(images: Iterable[Path], given: Sequence[Path], out: Path) -> dict[Path, Path]:
    """The feature file of each image (see `feature_path`).

    Raises:
        OpenDelgError: If two images would get the same one.
    """
    image_of: dict[Path, Path] = {}
    for image in images:
        other = image_of.setdefault(feature_path(image, given, out), image)
        if other != image:
            raise OpenDelgError(
                f"images must lie at different paths below the folders given, got "
                f"{str(other)!r} and {str(image)!r}; give a folder above both"
            )
    return {image: path for path, image in image_of.items()}


def feature_path(image: Path, given: Sequence[Path], out: Path) -> Path:
    """Where an image's features go: below `out` as the image lies below the folder given.

    The image's extension is kept, so that a.jpg and a.png do not meet.
    """
    for folder in given:
        if folder.is_dir() and image.is_relative_to(folder):
            return out / image.relative_to(folder).with_name(f"{image.name}.npz")
    return out / f"{image.name}.npz"
