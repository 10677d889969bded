"""Photos as the evidence shows them: read once, small, and never a reason to fail."""

import base64
import io
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from opendelg.errors import ImageError
from opendelg.evidence.records import Side
from opendelg.image import read_image
from opendelg.photo_files import is_there

# Longer side in px and JPEG quality, from generous to frugal.
_JPEG_STEPS = (
    (1280, 84),
    (1024, 80),
    (880, 76),
    (720, 72),
    (600, 66),
    (480, 58),
    (360, 50),
    (300, 40),
)
_MIN_BYTES_PER_PIXEL = 0.08  # of a JPEG; photos mostly need twice that


@dataclass(frozen=True)
class Photo:
    """A photo, or the reason why there is none."""

    pixels: np.ndarray | None  # (H, W, 3) uint8 RGB, upright, maybe smaller than the file
    size: tuple[int, int]  # (width, height) px of the original, upright image
    problem: str = ""  # why there are no pixels
    has_changed: bool = False  # the file is no longer the one that was indexed

    @property
    def is_as_indexed(self) -> bool:
        """Whether points and regions fit what is shown."""
        return self.pixels is not None and not self.has_changed


def read_photo(side: Side, draft_size: int) -> Photo:
    """The photo of ``side`` as it is on disk now.

    Args:
        side: Which photo.
        draft_size: Px of the longer side below which no detail may be lost.

    Returns:
        A photo; without pixels if the file is missing or cannot be read.
    """
    try:
        source = side.path if side.data is None else side.data
        image = read_image(source, draft_size=draft_size)
    except ImageError as error:
        known = (max(1, side.size[0]), max(1, side.size[1]))
        return Photo(None, known, problem=_reason(side, error))
    return Photo(image.pixels, image.size, has_changed=image.size != tuple(side.size))


def _reason(side: Side, error: Exception) -> str:
    if not is_there(side.path):
        return "the file is no longer there; it may have been moved, renamed or deleted"
    return str(error)


def resized(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """``pixels`` (H, W, 3) uint8 at ``size`` (width, height), smoothly."""
    if pixels.shape[1::-1] == size:
        return pixels
    # Averaging areas is as sharp as Lanczos when an image shrinks, and ten times as fast.
    shrinks = size[0] < pixels.shape[1] and size[1] < pixels.shape[0]
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def jpeg_data_uri(pixels: np.ndarray, max_side: int, max_bytes: int) -> str:
    """``pixels`` as a ``data:`` address of a JPEG.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        max_side: Limit of the longer side in px.
        max_bytes: The best of a few qualities that stays under this; the least if none does.
    """
    encoded = b""
    shape = pixels.shape
    for side, quality in _JPEG_STEPS:
        scale = min(1.0, side / max(shape), max_side / max(shape))
        width, height = (max(1, round(length * scale)) for length in shape[1::-1])
        is_last = side == _JPEG_STEPS[-1][0]
        if not is_last and width * height * _MIN_BYTES_PER_PIXEL > max_bytes:
            continue  # only a photo of plain sky could fit: do not try
        pixels = resized(pixels, (width, height))
        encoded = _jpeg(pixels, quality)
        if len(encoded) <= max_bytes:
            break
    return "data:image/jpeg;base64," + base64.b64encode(encoded).decode("ascii")


def _jpeg(pixels: np.ndarray, quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()
