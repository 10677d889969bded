"""Formats of photos as browsers know them."""

import cv2
import numpy as np

from opendelg.errors import ImageError
from opendelg.image import image_kind
from opendelg.server.problems import Problem

CONTENT_TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "GIF": "image/gif",
    "WebP": "image/webp",
    "TIFF": "image/tiff",
    "JPEG 2000": "image/jp2",
    "AVIF": "image/avif",
    "BMP": "image/bmp",
    "PNM": "image/x-portable-anymap",
}  # by what `image_kind` calls them
SUFFIXES = {
    "JPEG": ".jpg",
    "PNG": ".png",
    "GIF": ".gif",
    "WebP": ".webp",
    "TIFF": ".tif",
    "JPEG 2000": ".jp2",
    "AVIF": ".avif",
    "BMP": ".bmp",
    "PNM": ".pnm",
}
JPEG_QUALITY = 85


def kind_of_upload(photo: bytes) -> str:
    """Format of a photo that was sent; a Problem with status 415 if it is none."""
    try:
        return image_kind(photo)
    except ImageError as error:
        raise Problem(415, str(error)) from error


def jpeg(pixels: np.ndarray, max_side: int | None) -> bytes:
    """A JPEG of pixels (H, W, 3) uint8 RGB, its longer side at most ``max_side`` px."""
    height, width = pixels.shape[:2]
    if max_side is not None and max(width, height) > max_side:
        scale = max_side / max(width, height)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
    is_encoded, encoded = cv2.imencode(".jpg", pixels[:, :, ::-1], quality)
    if not is_encoded:
        raise ImageError(f"image must fit a JPEG, got {width} x {height} px")
    return encoded.tobytes()
