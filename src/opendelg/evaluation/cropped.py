"""Queries that are parts of photos: cropped by their boxes before anything is extracted."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from opendelg.datasets.revisited import ORIGINAL_SIDE
from opendelg.errors import OpenDelgError
from opendelg.extraction import Box, Extractor
from opendelg.features import ImageFeatures
from opendelg.image import read_image

BOX_TOLERANCE = 0.01  # of the photo's longer side that a box may reach beyond the photo


@dataclass(frozen=True)
class CroppedQuery:
    """One query as it was searched for."""

    name: str
    features: ImageFeatures  # size and keypoints in px of the whole photo
    box: Box  # px of the photo as it is on disk


def extract_queries(
    queries: Iterable[tuple[str, Path, Box]],
    extractor: Extractor,
    original_side: int | None = None,
    is_cropped: bool = True,
    want_local: bool = True,
    progress: Callable[[str], None] | None = None,
) -> Iterator[CroppedQuery]:
    """Features of the boxes in photos.

    Args:
        queries: Name, photo, and box in px of the photo as it was published.
        extractor: Network and settings.
        original_side: Longer side in px of the photos as they were published, if those on disk
            are reduced copies; None: they are not.
        is_cropped: Without, the whole photo is the query, which no published protocol allows.
        want_local: As of `Extractor.extract`.
        progress: Called with each name that is done.

    Raises:
        ImageError: If a photo cannot be read.
        OpenDelgError: If a box does not lie in its photo.
    """
    for name, path, published in queries:
        image = read_image(path, draft_size=extractor.config.draft_size)
        box = _box(name, published, image.size, original_side)
        features = extractor.extract(image, box if is_cropped else None, want_local)
        yield CroppedQuery(name, features, box if is_cropped else (0.0, 0.0, *image.size))
        if progress is not None:
            progress(name)


def reduced_from(queries: Iterable[tuple[str, Path, Box]]) -> int | None:
    """The longer side in px that photos were reduced from; None if all boxes lie in their photos.

    Published photos have one of 1024 px: where a box reaches beyond its photo, they are smaller
    copies.

    Raises:
        ImageError: If a photo cannot be read.
    """
    for _, path, box in queries:
        size = read_image(path, draft_size=1).size
        if _is_beyond(box, size):
            return ORIGINAL_SIDE
    return None


def _is_beyond(box: Box, size: tuple[int, int]) -> bool:
    """Whether a box in px of a photo (width, height) does not lie in it."""
    x1, y1, x2, y2 = box
    allowed = BOX_TOLERANCE * max(size)
    return min(x1, y1) < -allowed or x2 > size[0] + allowed or y2 > size[1] + allowed


def _box(name: str, published: Box, size: tuple[int, int], original_side: int | None) -> Box:
    """A published box in px of the photo that is there."""
    factor = 1.0 if original_side is None else max(size) / original_side
    x1, y1, x2, y2 = (value * factor for value in published)
    if _is_beyond((x1, y1, x2, y2), size):
        raise OpenDelgError(
            f"box must lie in its photo of {size[0]} x {size[1]} px, got "
            f"{', '.join(f'{value:g}' for value in (x1, y1, x2, y2))} for {name!r}; take the "
            "photos as they were published, or give the longer side that they were reduced from "
            "with --original-side"
        )
    return x1, y1, x2, y2
