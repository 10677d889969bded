"""Where the feature file of an image lies."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from opendelg.errors import OpenDelgError

MAX_NAME_BYTES = 255  # of a file, on Linux and macOS; Windows counts characters


def feature_paths(
    images: Iterable[Path],
    given: Sequence[Path],
    out: Path,
    suffix: str = ".npz",
    keep_extension: bool = True,
) -> dict[Path, Path]:
    """The feature file of each image (see `feature_path`).

    Raises:
        OpenDelgError: If two images would get the same one.
    """
    image_of: dict[Path, Path] = {}
    for image in images:
        path = feature_path(image, given, out, suffix, keep_extension)
        other = image_of.setdefault(path, image)
        if other != image:
            rule, remedy = (
                ("names that differ without their extension", "rename one of them")
                if other.name != image.name
                else ("different paths below the folders given", "give a folder above both")
            )
            raise OpenDelgError(
                f"images must have {rule}, got {str(other)!r} and {str(image)!r}; {remedy}"
            )
    return {image: path for path, image in image_of.items()}


def feature_path(
    image: Path,
    given: Sequence[Path],
    out: Path,
    suffix: str = ".npz",
    keep_extension: bool = True,
) -> Path:
    """Where an image's features go: below `out` as the image lies below the folder given.

    The image's extension is kept, so that a.jpg and a.png do not meet, unless the format is one
    without it.
    """
    is_whole = keep_extension or not image.stem.strip(".")  # of "..jpg", a folder would be left
    name = f"{image.name if is_whole else image.stem}{suffix}"
    for folder in given:
        if folder.is_dir() and image.is_relative_to(folder):
            return out / image.relative_to(folder).with_name(name)
    return out / name


def require_short_names(paths: Mapping[Path, Path], suffix: str = "") -> None:
    """Check before any work that file systems take the names: one would stop every run.

    Args:
        paths: The feature file of each image.
        suffix: Longest one that the files get beside.

    Raises:
        OpenDelgError: Naming the first image whose name is too long.
    """
    for image, path in paths.items():
        excess = len(os.fsencode(path.name + suffix)) - MAX_NAME_BYTES
        if excess > 0:
            limit = len(os.fsencode(image.name)) - excess
            raise OpenDelgError(
                f"image must have a name of at most {limit} bytes, got {str(image)!r}; rename it"
            )
