"""Images: read, turn upright, crop and resize; find them below folders.

Whatever is wrong with an image file ends as one ``ImageError`` with a short reason, so one bad
photo never stops a run over a million.  A truncated file is an error and not half a picture.
Pixels are 8-bit RGB: transparency is laid over white, 16-bit values keep their upper byte, colour
profiles are ignored.  Of animations and multi-page files the first frame counts.
"""

import io
import logging
import os
import stat
import struct
import threading
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from opendelg.errors import ImageError, ImageTooLargeError
from opendelg.photo_files import FileFacts, open_photo, stat_photo

# HEIC photos cannot be read; they are found all the same, so that each is reported.
EXTENSIONS = frozenset(
    {
        *(".avif", ".bmp", ".gif", ".heic", ".heif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg"),
        *(".jpg", ".mpo", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
    }
)
# Folders that systems fill with copies: macOS archives, Synology thumbnails.
SKIPPED_FOLDERS = frozenset({"__MACOSX", "@eaDir"})

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # EXIF orientation -> what turns the stored pixels upright

_quiet_lock = threading.Lock()
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageLimits:
    """What a file may cost before it is refused; checked before memory is taken.

    A decoded pixel takes about 7 bytes while it is read, 13 in a progressive JPEG.  TIFF, GIF and
    WebP are also bound by ``PIL.Image.MAX_IMAGE_PIXELS``: Pillow refuses twice that number.
    """

    max_file_bytes: int = 512 * 2**20  # bytes; larger than any camera's JPEG or raw-size TIFF
    max_pixels: int = 200_000_000  # decoded pixels, after a draft where one is allowed
    max_draft_pixels: int = 600_000_000  # stored pixels of a JPEG that is decoded smaller

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")


@dataclass(frozen=True)
class DecodedImage:
    """Pixels of one image or of a crop of it, upright."""

    pixels: np.ndarray  # (H, W, 3) uint8 RGB
    size: tuple[int, int]  # (width, height) px at full resolution, also if pixels are a draft


def read_file(path: Path, limits: ImageLimits = ImageLimits()) -> bytes:
    """The bytes of an image file, which may be in a tar (see `photo_files`).

    Only regular files are opened, so a pipe never blocks.

    Raises:
        ImageError: If the file is missing, unreadable, too large or not a regular file.
    """
    where = f" in {str(path)!r}"
    try:
        _require_regular(stat_photo(path), limits, where)
        with open_photo(path) as (file, facts):
            _require_regular(facts, limits, where)
            return file.read(facts.size)
    except (OSError, ValueError, MemoryError) as error:  # ValueError: a null byte in the path
        reason = getattr(error, "strerror", None) or str(error) or "not enough memory"
        raise ImageError(f"image must be readable, got {reason.lower()!r}{where}") from error


def read_image(
    source: Path | bytes,
    limits: ImageLimits = ImageLimits(),
    draft_size: int | None = None,
    name: str | Path | None = None,
) -> DecodedImage:
    """The upright RGB image in a file or in its bytes.

    Args:
        source: Path of the file, or what ``read_file`` returned for it.
        limits: What the file may cost.
        draft_size: Where given, a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size as long as
            its longer side stays at least this many pixels and its shorter 32; up to 4 times
            as fast, other pixel values, content up to one draft pixel off at the far edge.
        name: What messages call the image if ``source`` is bytes.

    Raises:
        ImageError: If the file cannot be read or decoded whole, whatever the cause.
        ValueError: If ``draft_size`` is below 1.
    """
    if draft_size is not None and draft_size < 1:
        raise ValueError(f"draft_size must be at least 1, got {draft_size}")
    if isinstance(source, bytes):
        data, where = source, "" if name is None else f" in {str(name)!r}"
    else:
        data, where = read_file(source, limits), f" in {str(source)!r}"
    if not data:
        raise ImageError(f"image must not be empty, got 0 bytes{where}")
    kind, plugin = _recognise(data, where)
    try:
        return _decode(data, kind, plugin, limits, draft_size, where)
    except ImageError:
        raise
    # On damaged files Pillow's plugins raise about anything (OSError, SyntaxError, ValueError,
    # struct.error, zlib.error, MemoryError, ...); this is the one border where all become one.
    except Exception as error:
        if isinstance(error, Image.DecompressionBombError):
            raise ImageTooLargeError(
                f"image must have fewer pixels, got a {kind} file above Pillow's limit{where}"
            ) from error
        if "truncated" in str(error).lower():
            message = f"image must be complete, got a truncated {kind} file{where}"
        else:
            reason = " ".join(str(error).split())[:100] or type(error).__name__
            message = f"image must be an intact {kind} file, got {reason!r}{where}"
        raise ImageError(message) from error


def image_kind(data: bytes) -> str:
    """Format of an image by its first bytes, as messages call it: "JPEG", "JPEG 2000" ...

    Args:
        data: The file, or its first 256 bytes.

    Raises:
        ImageError: If it starts like none of the formats that ``read_image`` reads.
    """
    return _recognise(data, "")[0]


def crop_image(image: DecodedImage, box: tuple[float, float, float, float]) -> DecodedImage:
    """The part of an image inside a box; what the box has outside the image is dropped.

    Args:
        image: Whole image; a draft is cropped at its own resolution.
        box: (x1, y1, x2, y2) px at full resolution, x2 and y2 excluded; rounded half to even.

    Raises:
        ValueError: If the box is not four finite numbers.
        ImageError: If the box holds no pixel of the image.
    """
    if len(box) != 4 or not np.isfinite(box).all():
        raise ValueError(f"box must be four finite numbers x1, y1, x2, y2, got {tuple(box)}")
    width, height = image.size
    x1, y1, x2, y2 = (round(float(b)) for b in box)
    if x1 >= x2 or y1 >= y2:
        raise ImageError(
            f"box must have x1 < x2 and y1 < y2 after rounding, got {(x1, y1, x2, y2)}"
        )
    if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
        raise ImageError(
            f"box must overlap the image of {width} x {height} px, got {(x1, y1, x2, y2)}"
        )
    x1, y1, x2, y2 = max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)
    rows = _draft_range(y1, y2, height, image.pixels.shape[0])
    columns = _draft_range(x1, x2, width, image.pixels.shape[1])
    return DecodedImage(np.ascontiguousarray(image.pixels[rows, columns]), (x2 - x1, y2 - y1))


def crop_factor(crop_size: tuple[int, int], image_size: tuple[int, int]) -> float:
    """How much smaller the limits of ``resize_to_limit`` are for a crop than for its image.

    With it a crop is resized as if the whole image were brought to the limit (SPEC 3.1).
    """
    return max(crop_size) / max(image_size)


def resize_to_limit(
    pixels: np.ndarray,
    original_size: tuple[int, int],
    max_size: float,
    min_size: float = -1,
    factor: float = 1.0,
) -> np.ndarray:
    """Pixels whose longer side lies within the limits, by Pillow's antialiased bilinear filter.

    Args:
        pixels: (H, W, 3) uint8.
        original_size: (width, height) px at full resolution, ``DecodedImage.size``: the new size
            follows from it, so that a draft ends at the same size as the whole image.
        max_size: Limit of the longer side, px; negative: none.
        min_size: The longer side is enlarged to this, px; negative: never.
        factor: Multiplies both limits; ``crop_factor`` for a query crop.

    Returns:
        (H', W', 3) uint8, sides rounded half to even and at least 1; ``pixels`` itself if they
        have that size already.
    """
    size = limited_size(original_size, max_size, min_size, factor)
    if size == (pixels.shape[1], pixels.shape[0]):
        return pixels
    return np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))


def limited_size(
    size: tuple[int, int], max_size: float, min_size: float = -1, factor: float = 1.0
) -> tuple[int, int]:
    """(width, height) within the limits; arguments as of ``resize_to_limit``."""
    if not factor > 0:
        raise ValueError(f"factor must be positive, got {factor}")
    longer = max(size)
    scale = 1.0
    if 0 <= factor * max_size < longer:
        scale = factor * max_size / longer
    elif factor * min_size > longer:
        scale = factor * min_size / longer
    width, height = size
    return max(1, round(width * scale)), max(1, round(height * scale))


def scale_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """(width, height) of one level of the pyramid: float32, rounded half to even, at least 1."""
    width, height = np.round(np.array(size, np.float32) * np.float32(scale))
    return max(1, int(width)), max(1, int(height))


def resize_bilinear(
    pixels: np.ndarray, size: tuple[int, int], rule: Literal["half_pixel", "legacy"]
) -> np.ndarray:
    """One level of the pyramid: bilinear without antialiasing.

    Args:
        pixels: (H, W, 3) uint8 or float32.
        size: (width, height) px of the result.
        rule: Where a result pixel lies in the source: "half_pixel" aligns the outer edges of the
            images, "legacy" the centres of their first pixels, as TensorFlow 1 did (SPEC 3.2).

    Returns:
        (h, w, 3) float32, in the units of ``pixels``.
    """
    if rule not in ("half_pixel", "legacy"):
        raise ValueError(f"rule must be 'half_pixel' or 'legacy', got {rule!r}")
    source: np.ndarray = pixels.astype(np.float32)
    height, width = source.shape[:2]
    if (width, height) == size:
        return source
    offset = 0.5 if rule == "half_pixel" else 0.0
    columns, rows = _taps(width, size[0], offset), _taps(height, size[1], offset)
    # As one row of numbers per image row: three times as fast as with an axis of 3 colours.
    wide = source.reshape(height, width * 3)
    low, high = (
        (places[:, None] * 3 + np.arange(3)).ravel() for places in (columns.low, columns.high)
    )
    wide = _blend(wide, _Taps(low, high, np.repeat(columns.weight, 3)), axis=1)
    return _blend(wide, rows, axis=0).reshape(size[1], size[0], 3)


def _log_unreadable_folder(error: OSError) -> None:
    logger.warning("folder must be readable, got %r in %r", error.strerror, error.filename)


def find_images(
    paths: Iterable[Path],
    on_unreadable: Callable[[OSError], None] = _log_unreadable_folder,
    endings: Collection[str] = EXTENSIONS,
) -> list[Path]:
    """Image files below the given folders, sorted, each once.

    Folders are searched by file extension; hidden files and folders and ``SKIPPED_FOLDERS`` are
    left out, links to folders not followed.  A path that is no folder is kept whatever its name.

    Args:
        paths: Folders and files.
        on_unreadable: Called for each folder that cannot be listed, its path in ``filename``; by
            default a warning is logged.  What lies below such a folder is left out.
        endings: How names end that are looked for, in lower case.

    Raises:
        ImageError: If a given path does not exist.
    """
    found: set[Path] = set()
    for path in paths:
        if not os.path.isdir(path):
            if not os.path.lexists(path):
                raise ImageError(f"path must exist, got {str(path)!r}")
            found.add(path)
            continue
        for folder, subfolders, names in os.walk(path, onerror=on_unreadable):
            subfolders[:] = [name for name in subfolders if not is_hidden(name)]
            images = {
                Path(folder, name)
                for name in names
                if not is_hidden(name) and name.lower().endswith(tuple(endings))
            }
            found |= images
            if not images and not subfolders and has_image_name(folder) and Path(folder) != path:
                # A folder in a photo's place: reading it will say so.
                found.add(Path(folder))
    return sorted(found)


def has_image_name(name: str) -> bool:
    """Whether a name ends like an image's."""
    return name.lower().endswith(tuple(EXTENSIONS))


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is left out where it was not given itself."""
    return name.startswith(".") or name in SKIPPED_FOLDERS


def _require_regular(facts: FileFacts, limits: ImageLimits, where: str) -> None:
    """Refuses folders, pipes, sockets, devices and files above the limit."""
    if not stat.S_ISREG(facts.mode):
        kinds = {
            stat.S_IFDIR: "a folder",
            stat.S_IFIFO: "a pipe",
            stat.S_IFSOCK: "a socket",
            stat.S_IFCHR: "a device",
            stat.S_IFBLK: "a device",
        }
        kind = kinds.get(stat.S_IFMT(facts.mode), "something else")
        raise ImageError(f"image must be a regular file, got {kind}{where}")
    if facts.size > limits.max_file_bytes:
        raise ImageTooLargeError(
            f"image must have at most {limits.max_file_bytes} bytes, got {facts.size}{where}"
        )


def _recognise(data: bytes, where: str) -> tuple[str, Callable[[io.BytesIO], Image.Image]]:
    """Name and Pillow class of a format, by the first bytes.

    Classes are called directly: ``Image.open`` would try formats that run other programs (EPS)
    and warn about large images, whose limit is ours.
    """
    brands = data[8 : min(int.from_bytes(data[:4]), 256)] if data[4:8] == b"ftyp" else b""
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG", _JpegFile
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG", PngImagePlugin.PngImageFile
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF", _GifFile
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP", WebPImagePlugin.WebPImageFile
    if data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "TIFF", _TiffFile
    if data.startswith((b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n")):
        return "JPEG 2000", Jpeg2KImagePlugin.Jpeg2KImageFile
    if b"avif" in brands or b"avis" in brands:
        return "AVIF", _AvifFile
    if data.startswith(b"BM"):
        return "BMP", BmpImagePlugin.BmpImageFile
    if data[:1] == b"P" and data[1:2] in b"123456" and data[2:3].isspace():
        return "PNM", PpmImagePlugin.PpmImageFile
    if b"hei" in brands or b"mif1" in brands:
        raise ImageError(
            f"image must be in a format that Pillow reads, got HEIC{where}; convert it to JPEG"
        )
    raise ImageError(
        "image must be a JPEG, PNG, GIF, WebP, TIFF, JPEG 2000, AVIF, BMP or PNM file, "
        f"got one that starts with {data[:8]!r}{where}"
    )


def _decode(
    data: bytes,
    kind: str,
    plugin: Callable[[io.BytesIO], Image.Image],
    limits: ImageLimits,
    draft_size: int | None,
    where: str,
) -> DecodedImage:
    """Pixels of a recognised file; raises whatever Pillow raises."""
    image = plugin(io.BytesIO(data))
    size = image.size
    if kind == "JPEG" and draft_size is not None:
        _draft(image, draft_size)
    # A progressive file keeps its coefficients in memory, however small it is decoded.
    _require_pixels(size if "progressive" in image.info else image.size, limits.max_pixels, where)
    _require_pixels(size, max(limits.max_pixels, limits.max_draft_pixels), where)
    image.load()
    # Pillow turns TIFF files upright on its own.
    orientation = 1 if kind == "TIFF" else _orientation(image.info.get("exif", b""))
    image = _to_rgb(image)
    if orientation > 1:
        image = image.transpose(_TRANSPOSE[orientation])
    if kind != "JPEG":
        size = image.size
    elif orientation > 4:
        size = size[::-1]
    return DecodedImage(np.array(image), size)


def _require_pixels(size: tuple[int, int], max_pixels: int, where: str) -> None:
    if size[0] * size[1] > max_pixels:
        raise ImageTooLargeError(
            f"image must have at most {max_pixels} pixels, got {size[0]} x {size[1]}{where}"
        )


def _draft(image: Image.Image, draft_size: int) -> None:
    """Lets a JPEG be decoded smaller, its longer side at least ``draft_size`` px.

    The last pixel of a draft may lie partly outside the image, so content is up to one pixel of
    the draft off at the far edge; images too narrow for that to be little are decoded whole.
    """
    for divisor in (8, 4, 2):
        if max(image.size) >= draft_size * divisor and min(image.size) >= 32 * divisor:
            width, height = image.size
            image.draft(None, (max(1, width // divisor), max(1, height // divisor)))
            return


def _draft_range(start: int, stop: int, side: int, draft_side: int) -> slice:
    """The pixels of a draft that a range at full resolution covers, at least one."""
    first = min(round(start * draft_side / side), draft_side - 1)
    return slice(first, max(round(stop * draft_side / side), first + 1))


def _orientation(exif: bytes) -> int:
    """EXIF orientation, 1 to 8; 1 where the data is absent or damaged.

    Pillow's reader goes through every tag and warns about damage in any of them.
    """
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2], "")
    if not order:
        return 1
    try:
        (offset,) = struct.unpack_from(f"{order}I", tiff, 4)
        (num_tags,) = struct.unpack_from(f"{order}H", tiff, offset)
        for position in range(offset + 2, offset + 2 + 12 * num_tags, 12):
            tag, kind = struct.unpack_from(f"{order}HH", tiff, position)
            if tag == 0x0112:
                (value,) = struct.unpack_from(
                    order + ("I" if kind == 4 else "H"), tiff, position + 8
                )
                return int(value) if 1 <= value <= 8 else 1
    except struct.error:  # cut off
        pass
    return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB of an image in any mode of Pillow."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode[0] in "IF":
        return Image.fromarray(_to_8_bit(np.array(image))).convert("RGB")
    if image.mode == "LAB":
        # a and b are stored with a sign; OpenCV counts both from 128.
        lab = np.bitwise_xor(np.array(image), np.array([0, 128, 128], np.uint8))
        return Image.fromarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB))
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image)
        return white.convert("RGB")
    return image.convert("RGB")


def _to_8_bit(values: np.ndarray) -> np.ndarray:
    """Grey levels of more than 8 bits, (H, W) integers or floats, as uint8.

    Integers up to 65535 keep their upper byte, larger ones count as 31 bits.  Floats up to 1
    count as [0, 1], up to 255 as 8 bits, larger ones relative to the largest.
    """
    if values.dtype.kind == "f":
        values = np.nan_to_num(values, nan=0, posinf=0, neginf=0).clip(0)
        full = 1.0 if values.max() <= 1 else max(255.0, float(values.max()))
        levels: np.ndarray = np.round(values * (255 / full))
    else:
        levels = values.clip(0) >> (8 if values.max() <= 65535 else 23)
    return np.asarray(levels.astype(np.uint8))


@dataclass(frozen=True)
class _Taps:
    """Which two source pixels each result pixel of a row or column is between."""

    low: np.ndarray  # (N,) int64
    high: np.ndarray  # (N,) int64
    weight: np.ndarray  # (N,) float32, of ``high``


def _taps(old_length: int, length: int, offset: float) -> _Taps:
    """Where result pixels lie.

    In float32 and operation by operation as in TensorFlow: positions in float64 differ by enough
    to move the scores of its networks by 5e-4.
    """
    half = np.float32(offset)
    ratio = np.float32(old_length) / np.float32(length)
    positions = (np.arange(length, dtype=np.float32) + half) * ratio - half
    floor = np.floor(positions)
    return _Taps(
        low=np.maximum(floor.astype(np.int64), 0),
        high=np.minimum(np.ceil(positions).astype(np.int64), old_length - 1),
        weight=positions - floor,
    )


def _blend(source: np.ndarray, taps: _Taps, axis: Literal[0, 1]) -> np.ndarray:
    """(H, W) float32 interpolated along one axis."""
    lower = source.take(taps.low, axis)
    # In place: at twice the size, temporaries cost more than the arithmetic.
    result: np.ndarray = source.take(taps.high, axis)
    result -= lower
    result *= taps.weight if axis == 1 else taps.weight[:, None]
    result += lower
    return result


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings from Pillow: about many pixels, where our limits decide, and damaged tags.

    The filters belong to the whole process, hence the lock.
    """
    with _quiet_lock, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\b")
        yield


class _JpegFile(JpegImagePlugin.JpegImageFile):
    """JPEG without Pillow's look at EXIF for a resolution, which warns about damaged EXIF."""

    def getexif(self) -> Image.Exif:
        return Image.Exif()


class _GifFile(GifImagePlugin.GifImageFile):
    """GIF whose header does not warn."""

    def _open(self) -> None:
        with _quiet():
            super()._open()


class _AvifFile(AvifImagePlugin.AvifImageFile):
    """AVIF whose header does not warn."""

    def _open(self) -> None:
        with _quiet():
            super()._open()


class _TiffFile(TiffImagePlugin.TiffImageFile):
    """TIFF whose tags do not warn; decoding itself is not under the lock."""

    def _open(self) -> None:
        with _quiet():
            super()._open()

    def load_prepare(self) -> None:
        with _quiet():
            super().load_prepare()

    def load_end(self) -> None:
        with _quiet():
            super().load_end()
