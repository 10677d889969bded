"""Feature files: one .npz per image, for use outside a collection.

Arrays by our own names (see `features`): keypoints, descriptors, scores, scales, size,
global_descriptor; and `recipe`, the JSON of what made them.
"""

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from opendelg.errors import FormatError, OpenDelgError
from opendelg.features import ImageFeatures, LocalFeatures


def write_npz(path: Path, features: ImageFeatures, recipe: str) -> None:
    """Write a feature file whole or not at all; folders above it are made.

    Raises:
        OpenDelgError: If the file cannot be written.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
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
        part.unlink(missing_ok=True)
        raise OpenDelgError(f"feature file must be writable, got {error}") from error


def read_npz(path: Path) -> tuple[ImageFeatures, str]:
    """Features and recipe of a feature file.

    Raises:
        FormatError: If it is not one.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            local = LocalFeatures(
                file["keypoints"], file["descriptors"], file["scores"], file["scales"]
            )
            width, height = (int(side) for side in file["size"])
            features = ImageFeatures((width, height), file["global_descriptor"], local)
            return features, str(file["recipe"])
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise FormatError(
            f"feature file must be one that `delg extract` wrote, got {str(path)!r} ({error})"
        ) from error


def has_recipe(path: Path, recipe: str) -> bool:
    """Whether `path` is a whole feature file made with `recipe`."""
    if not path.is_file():
        return False
    try:
        return read_npz(path)[1] == recipe
    except FormatError:
        return False


def feature_path(image: Path, given: Sequence[Path], out: Path) -> Path:
    """Where an image's features go: below `out` as the image lies below the folder given.

    The image's extension is kept, so that a.jpg and a.png do not meet.
    """
    for folder in given:
        if folder.is_dir() and image.is_relative_to(folder):
            return out / image.relative_to(folder).with_name(f"{image.name}.npz")
    return out / f"{image.name}.npz"
