import io
import os
import random
import socket
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pytest
from PIL import Image

from opendelg.errors import ImageError
from opendelg.image import (
    DecodedImage,
    ImageLimits,
    crop_factor,
    crop_image,
    find_images,
    read_file,
    read_image,
    resize_bilinear,
    resize_to_limit,
    scale_size,
)

ORIENTATION = 0x0112  # EXIF tag
STORED = np.array([[0, 40, 80], [120, 160, 200]], np.uint8)
UPRIGHT = {
    1: [[0, 40, 80], [120, 160, 200]],
    2: [[80, 40, 0], [200, 160, 120]],
    3: [[200, 160, 120], [80, 40, 0]],
    4: [[120, 160, 200], [0, 40, 80]],
    5: [[0, 120], [40, 160], [80, 200]],
    6: [[120, 0], [160, 40], [200, 80]],
    7: [[200, 80], [160, 40], [120, 0]],
    8: [[80, 200], [40, 160], [0, 120]],
}  # EXIF: where row 0 and column 0 of STORED are seen


def draw(width: int = 40, height: int = 30) -> Image.Image:
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - x], axis=2).astype(np.uint8))


def encode(image: Image.Image, kind: str, orientation: int | None = None, **options: Any) -> bytes:
    if orientation is not None:
        options["exif"] = Image.Exif()
        options["exif"][ORIENTATION] = orientation
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def first_pixel(data: bytes) -> list[int]:
    values: list[int] = read_image(data).pixels[0, 0].tolist()
    return values


def with_jpeg_size(data: bytes, width: int, height: int) -> bytes:
    """The same JPEG with another size in its frame header."""
    start = data.index(b"\xff\xc0") + 5
    return data[:start] + struct.pack(">HH", height, width) + data[start + 4 :]


# Reading


def test_pixels_of_a_file_are_rgb_and_its_size_is_width_height(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    draw().save(path)
    image = read_image(path)
    np.testing.assert_array_equal(image.pixels, np.array(draw()))
    assert image.size == (40, 30)
    assert image.pixels.dtype == np.uint8
    assert image.pixels.flags.writeable


@pytest.mark.parametrize("kind", ["BMP", "PNG", "PPM", "TIFF"])
def test_lossless_formats_are_read_exactly(kind: str) -> None:
    np.testing.assert_array_equal(read_image(encode(draw(), kind)).pixels, np.array(draw()))


@pytest.mark.parametrize("kind", ["AVIF", "GIF", "JPEG", "JPEG2000", "MPO", "WEBP"])
def test_lossy_formats_are_read_nearly(kind: str) -> None:
    difference = read_image(encode(draw(), kind)).pixels - np.array(draw(), float)
    assert abs(difference).mean() < 8


def test_image_of_one_pixel_is_read() -> None:
    assert read_image(encode(Image.new("RGB", (1, 1), "red"), "PNG")).pixels.tolist() == [
        [[255, 0, 0]]
    ]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF", "WEBP"])
def test_first_frame_counts(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green")]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    np.testing.assert_allclose(first_pixel(data), [255, 0, 0], atol=3)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(Image.fromarray(STORED).convert("RGB"), kind, orientation, **options)
    assert read_image(data).pixels[..., 0].tolist() == UPRIGHT[orientation]


@pytest.mark.parametrize("draft_size", [None, 24])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_of_a_jpeg_is_applied(orientation: int, draft_size: int | None) -> None:
    stored = Image.fromarray(STORED.repeat(32, axis=0).repeat(32, axis=1))
    image = read_image(encode(stored, "JPEG", orientation), draft_size=draft_size)
    expected = np.array(UPRIGHT[orientation])
    step = image.pixels.shape[0] // expected.shape[0]
    np.testing.assert_allclose(
        image.pixels[step // 2 :: step, step // 2 :: step, 0], expected, atol=4
    )
    assert image.size == (32 * expected.shape[1], 32 * expected.shape[0])


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_orientation_that_does_not_exist_is_ignored(orientation: int) -> None:
    assert read_image(encode(draw(), "JPEG", orientation)).size == (40, 30)


@pytest.mark.parametrize(
    ("exif", "size"),
    [
        pytest.param(b"", (40, 30), id="empty"),
        pytest.param(b"Exif\0\0", (40, 30), id="prefix only"),
        pytest.param(b"Exif\0\0nonsense", (40, 30), id="no TIFF"),
        pytest.param(b"Exif\0\0II*\0\xff\xff\xff\xff", (40, 30), id="offset outside"),
        pytest.param(b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\0", (40, 30), id="tags outside"),
        pytest.param(
            b"Exif\0\0MM\0*\0\0\0\x08\0\x02" + bytes.fromhex("010f0002ffffffffffffffff")
            + bytes.fromhex("011200030000000100060000"), (30, 40), id="damaged tag before",
        ),
        pytest.param(
            b"Exif\0\0II*\0\x08\0\0\0\x01\0" + bytes.fromhex("120104000100000006000000"),
            (30, 40), id="32-bit value",
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_damaged_exif_does_not_fail_the_image(
    kind: str, exif: bytes, size: tuple[int, int]
) -> None:
    assert read_image(encode(draw(), kind, exif=exif)).size == size


# Modes


@pytest.mark.parametrize(
    ("mode", "colour", "kind", "expected"),
    [
        pytest.param("1", 1, "PNG", [255, 255, 255], id="1 bit"),
        pytest.param("L", 100, "PNG", [100, 100, 100], id="grey"),
        pytest.param("LA", (100, 255), "PNG", [100, 100, 100], id="grey, opaque"),
        pytest.param("LA", (100, 0), "PNG", [255, 255, 255], id="grey, transparent"),
        pytest.param("RGBA", (0, 0, 200, 255), "PNG", [0, 0, 200], id="opaque"),
        pytest.param("RGBA", (0, 0, 200, 0), "PNG", [255, 255, 255], id="transparent"),
        pytest.param("RGBA", (0, 100, 200, 51), "PNG", [204, 224, 244], id="a fifth opaque"),
        pytest.param("I;16", 0x80FF, "PNG", [128, 128, 128], id="16-bit PNG"),
        pytest.param("I;16", 0x80FF, "TIFF", [128, 128, 128], id="16-bit TIFF"),
        pytest.param("I;16B", 0x80FF, "TIFF", [128, 128, 128], id="16-bit, big-endian"),
        pytest.param("I", 0x80FF, "PPM", [128, 128, 128], id="16-bit PGM"),
        pytest.param("I", 2**30, "TIFF", [128, 128, 128], id="32-bit"),
        pytest.param("F", 0.5, "TIFF", [128, 128, 128], id="float up to 1"),
        pytest.param("F", 100.2, "TIFF", [100, 100, 100], id="float up to 255"),
        pytest.param("F", 1e6, "TIFF", [255, 255, 255], id="float above"),
        pytest.param("F", float("nan"), "TIFF", [0, 0, 0], id="no number"),
        pytest.param("CMYK", (0, 255, 255, 0), "TIFF", [255, 0, 0], id="CMYK"),
        pytest.param("CMYK", (0, 255, 255, 0), "JPEG", [254, 0, 0], id="CMYK as Adobe inverts it"),
        pytest.param("YCbCr", (76, 85, 255), "TIFF", [254, 0, 0], id="YCbCr"),
    ],
)
def test_every_mode_becomes_rgb(mode: str, colour: Any, kind: str, expected: list[int]) -> None:
    data = encode(Image.new(mode, (8, 8), colour), kind)
    np.testing.assert_allclose(first_pixel(data), expected, atol=1)


@pytest.mark.parametrize(
    ("colour", "expected"), [((255, 128, 128), [255, 255, 255]), ((136, 208, 195), [255, 0, 0])]
)
def test_lab_becomes_rgb(colour: tuple[int, int, int], expected: list[int]) -> None:
    data = encode(Image.new("LAB", (8, 8), colour), "TIFF")
    np.testing.assert_allclose(first_pixel(data), expected, atol=6)


@pytest.mark.parametrize("transparency", [0, b"\0\xff"])
def test_transparent_palette_colour_is_white(transparency: int | bytes) -> None:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([10, 20, 30, 40, 50, 60])
    assert first_pixel(encode(image, "PNG", transparency=transparency)) == [255, 255, 255]
    assert first_pixel(encode(image, "PNG")) == [10, 20, 30]


@pytest.mark.parametrize(("mode", "colour", "key"), [("L", 10, 10), ("RGB", (1, 2, 3), (1, 2, 3))])
def test_transparent_colour_is_white(mode: str, colour: Any, key: Any) -> None:
    data = encode(Image.new(mode, (8, 8), colour), "PNG", transparency=key)
    assert first_pixel(data) == [255, 255, 255]


def test_16_bit_colour_keeps_its_upper_byte() -> None:
    bgr = np.full((4, 4, 3), [0x30FF, 0x20FF, 0x10FF], np.uint16)
    _, data = cv2.imencode(".png", bgr)
    assert first_pixel(data.tobytes()) == [0x10, 0x20, 0x30]


# Files that are no images


@pytest.mark.parametrize("kind", ["BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF"])
def test_truncated_file_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "half.jpg"
    path.write_bytes(encode(draw(), kind)[:-300] if kind != "PNG" else encode(draw(), kind)[:-40])
    with pytest.raises(ImageError, match=r"image must be .*, got .* in '.*half.jpg'$"):
        read_image(path)


def test_truncated_jpeg_is_called_so() -> None:
    with pytest.raises(ImageError, match=r"complete, got a truncated JPEG file in 'a\.jpg'$"):
        read_image(encode(draw(), "JPEG")[:-100], name="a.jpg")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"", "image must not be empty, got 0 bytes$", id="empty"),
        pytest.param(b"some text\n", "one that starts with b'some tex'$", id="text"),
        pytest.param(b"\xff\xd8\xff", "must be an intact JPEG file, got", id="JPEG start"),
        pytest.param(b"BMI am a text", "BMP file", id="almost BMP"),
        pytest.param(b"P6\n40 30\n255\n", "PNM file", id="no pixels"),
        pytest.param(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "got HEIC; convert it", id="HEIC"),
        pytest.param(b"\0\0\0\x18ftypavif\0\0\0\0mif1avif", "AVIF file", id="AVIF start"),
        pytest.param(b"%!PS-Adobe-3.0 EPSF-3.0", "must be a JPEG", id="PostScript is not run"),
        pytest.param(b"\x89PNG\r\n\x1a\n", "PNG file", id="PNG start"),
        pytest.param(b"RIFF\x10\0\0\0WEBPVP8 ", "WebP file", id="WebP start"),
        pytest.param(b"II*\0\x08\0\0\0\0\0", "TIFF file", id="TIFF without tags"),
    ],
)
def test_bytes_that_are_no_image_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        read_image(data)


def test_format_follows_the_content_and_not_the_name(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(encode(draw(), "PNG"))
    assert read_image(path).size == (40, 30)


@pytest.mark.parametrize("kind", ["AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "TIFF", "WEBP"])
def test_changed_bytes_give_an_image_or_an_image_error(kind: str) -> None:
    data = encode(draw(), kind)
    generator = random.Random(kind)
    for _ in range(60):
        changed = bytearray(data)
        for _ in range(generator.choice((1, 3, 10))):
            changed[generator.randrange(generator.choice((40, len(data))))] = generator.randrange(
                256
            )
        try:
            image = read_image(bytes(changed), ImageLimits(max_pixels=10**6), draft_size=10)
        except ImageError:
            continue
        assert image.pixels.shape[2] == 3


def test_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="must be a regular file, got a folder in"):
        read_image(tmp_path)


def test_missing_file_is_refused_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(
        ImageError, match=r"must be readable, got 'no such file or directory' in '.*gone"
    ):
        read_image(tmp_path / "gone.jpg")


def test_null_byte_in_a_path_is_refused() -> None:
    with pytest.raises(ImageError, match="must be readable"):
        read_image(Path("a\0b.jpg"))


def test_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError, match="must be a regular file, got a pipe in"):
        read_image(tmp_path / "pipe.jpg")


def test_file_that_turns_into_a_pipe_is_refused_without_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    status = os.stat(__file__)
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", lambda path: status)
        with pytest.raises(ImageError, match="got a pipe in"):
            read_image(tmp_path / "pipe.jpg")


def test_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.bind("socket.jpg")
        with pytest.raises(ImageError, match="must be a regular file, got a socket in"):
            read_image(Path("socket.jpg"))


def test_device_is_refused() -> None:
    with pytest.raises(ImageError, match="must be a regular file, got a device in '/dev/zero'"):
        read_image(Path("/dev/zero"))


def test_file_without_permission_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw().save(tmp_path / "photo.png")

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        with pytest.raises(ImageError, match="'permission denied' in"):
            read_image(tmp_path / "photo.png")


# Limits


def test_file_above_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"x" * 101)
    assert len(read_file(path, ImageLimits(max_file_bytes=101))) == 101
    with pytest.raises(ImageError, match=r"at most 100 bytes, got 101 in '.*photo\.jpg'"):
        read_file(path, ImageLimits(max_file_bytes=100))


@pytest.mark.parametrize("kind", ["AVIF", "GIF", "JPEG", "JPEG2000", "PNG", "TIFF", "WEBP"])
def test_pixels_above_the_limit_are_refused(kind: str) -> None:
    data = encode(draw(), kind)
    assert read_image(data, ImageLimits(max_pixels=1200)).size == (40, 30)
    with pytest.raises(ImageError, match="must have at most 1199 pixels, got 40 x 30 in 'a'"):
        read_image(data, ImageLimits(max_pixels=1199), name="a")


def test_png_bomb_is_refused() -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0"))
    with pytest.raises(ImageError, match="at most 200000000 pixels, got 60000 x 60000"):
        read_image(data)


def test_jpeg_of_300_megapixels_needs_a_draft() -> None:
    data = with_jpeg_size(encode(draw(), "JPEG"), 20000, 15000)
    with pytest.raises(ImageError, match="at most 200000000 pixels, got 20000 x 15000"):
        read_image(data)
    image = read_image(data, draft_size=1024)
    assert image.pixels.shape == (1875, 2500, 3)
    assert image.size == (20000, 15000)


def test_jpeg_of_4_gigapixels_is_refused_in_spite_of_a_draft() -> None:
    data = with_jpeg_size(encode(draw(), "JPEG"), 65500, 65500)
    with pytest.raises(ImageError, match="at most 600000000 pixels, got 65500 x 65500"):
        read_image(data, draft_size=1024)


def test_progressive_jpeg_is_limited_at_its_full_size() -> None:
    data = encode(draw(400, 300), "JPEG", progressive=True)
    with pytest.raises(ImageError, match="at most 60000 pixels, got 400 x 300"):
        read_image(data, ImageLimits(max_pixels=60000), draft_size=50)


@pytest.mark.parametrize("kind", ["AVIF", "GIF", "JPEG", "JPEG2000", "PNG", "TIFF", "WEBP"])
def test_pillow_does_not_warn_about_many_pixels(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(draw(), kind)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # of 1200: Pillow warns, below twice
    assert read_image(data).size == (40, 30)


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP"])
def test_pillows_own_limit_is_an_image_error(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(draw(), kind)
    if kind == "GIF":  # a small canvas that its first frame enlarges
        data = data[:6] + b"\x01\0\x01\0" + data[10:]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with pytest.raises(ImageError, match=r"must have fewer pixels, got a .* above Pillow's limit"):
        read_image(data)


def test_limit_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="max_pixels must be at least 1, got 0"):
        ImageLimits(max_pixels=0)


# Draft


@pytest.mark.parametrize(
    ("draft_size", "shape"),
    [(1, (38, 50, 3)), (50, (38, 50, 3)), (51, (75, 100, 3)), (101, (150, 200, 3)),
     (201, (300, 400, 3)), (1000, (300, 400, 3))],
)  # fmt: skip
def test_draft_keeps_the_longer_side_above_its_size(
    draft_size: int, shape: tuple[int, int, int]
) -> None:
    image = read_image(encode(draw(400, 300), "JPEG"), draft_size=draft_size)
    assert image.pixels.shape == shape
    assert image.size == (400, 300)


@pytest.mark.parametrize("size", [(403, 301), (301, 403), (999, 97), (641, 640)])
def test_draft_ends_at_the_same_size_as_the_whole_image(size: tuple[int, int]) -> None:
    data = encode(draw(*size), "JPEG", quality=95)
    draft, whole = read_image(data, draft_size=100), read_image(data)
    assert draft.pixels.size < whole.pixels.size
    drafted = resize_to_limit(draft.pixels, draft.size, 100)
    resized = resize_to_limit(whole.pixels, whole.size, 100)
    assert drafted.shape == resized.shape
    assert abs(drafted - resized.astype(float)).mean() < 3


def test_draft_of_other_formats_is_the_whole_image() -> None:
    assert read_image(encode(draw(), "PNG"), draft_size=1).pixels.shape == (30, 40, 3)


def test_narrow_image_is_not_drafted() -> None:
    assert read_image(encode(draw(400, 63), "JPEG"), draft_size=1).pixels.shape == (63, 400, 3)


def test_draft_size_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="draft_size must be at least 1, got 0"):
        read_image(b"", draft_size=0)


def test_threads_read_the_same_pixels() -> None:
    files = [encode(draw(200 + i, 150), kind) for i in range(8) for kind in ("JPEG", "TIFF", "GIF")]
    with ThreadPoolExecutor(4) as pool:
        images = list(pool.map(lambda data: read_image(data, draft_size=60), files))
    for image, data in zip(images, files, strict=True):
        np.testing.assert_array_equal(image.pixels, read_image(data, draft_size=60).pixels)


# Crops


def numbered(width: int, height: int) -> DecodedImage:
    values = np.arange(width * height, dtype=np.uint8).reshape(height, width, 1)
    return DecodedImage(values.repeat(3, axis=2), (width, height))


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        pytest.param((1, 0, 3, 2), [[1, 2], [5, 6]], id="inside"),
        pytest.param((0.5, -0.4, 2.5, 1.4), [[0, 1]], id="rounded half to even"),
        pytest.param((2, 1, 99, 99), [[6, 7], [10, 11]], id="beyond the end"),
        pytest.param((-5, -5, 1, 1), [[0]], id="before the start"),
        pytest.param((-9, -9, 9, 9), [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]], id="around"),
    ],
)
def test_crop_keeps_the_part_inside(box: Any, expected: list[list[int]]) -> None:
    crop = crop_image(numbered(4, 3), box)
    assert crop.pixels[..., 0].tolist() == expected
    assert crop.size == (len(expected[0]), len(expected))


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((2, 0, 1, 3), "must have x1 < x2 and y1 < y2 after rounding"),
        ((0, 0, 0.5, 3), r"x1 < x2 .*, got \(0, 0, 0, 3\)"),
        ((0, 2, 3, 2), "must have x1 < x2 and y1 < y2 after rounding"),
        ((4, 0, 9, 3), "must overlap the image of 4 x 3 px"),
        ((0, -9, 4, 0), "must overlap the image of 4 x 3 px"),
    ],
)
def test_box_without_a_pixel_is_refused(box: Any, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        crop_image(numbered(4, 3), box)


@pytest.mark.parametrize("box", [(0, 0, 1), (0, 0, float("nan"), 1), (0, 0, float("inf"), 1)])
def test_box_of_other_than_four_numbers_is_refused(box: Any) -> None:
    with pytest.raises(ValueError, match="box must be four finite numbers"):
        crop_image(numbered(4, 3), box)


def test_crop_of_a_draft_has_its_full_size() -> None:
    draft = DecodedImage(numbered(4, 3).pixels, (40, 30))
    crop = crop_image(draft, (10, 10, 30, 30))
    assert crop.size == (20, 20)
    assert crop.pixels[..., 0].tolist() == [[5, 6], [9, 10]]
    assert crop_image(draft, (39, 29, 40, 30)).pixels[..., 0].tolist() == [[11]]


# Resizing


@pytest.mark.parametrize(
    ("size", "limits", "expected"),
    [
        pytest.param((200, 100), (100, -1), (100, 50), id="shrunk"),
        pytest.param((200, 101), (100, -1), (100, 50), id="half to even, down"),
        pytest.param((200, 103), (100, -1), (100, 52), id="half to even, up"),
        pytest.param((100, 50), (100, -1), (100, 50), id="at the limit"),
        pytest.param((50, 20), (100, 80), (80, 32), id="enlarged"),
        pytest.param((90, 20), (100, 80), (90, 20), id="between the limits"),
        pytest.param((200, 20), (-1, -1), (200, 20), id="no limits"),
        pytest.param((300, 1), (100, -1), (100, 1), id="at least one pixel"),
    ],
)
def test_longer_side_is_brought_within_the_limits(
    size: tuple[int, int], limits: tuple[int, int], expected: tuple[int, int]
) -> None:
    pixels = resize_to_limit(np.array(draw(*size)), size, *limits)
    assert (pixels.shape[1], pixels.shape[0]) == expected


def test_resizing_is_that_of_pillow() -> None:
    expected = draw(200, 150).resize((100, 75), Image.Resampling.BILINEAR)
    resized = resize_to_limit(np.array(draw(200, 150)), (200, 150), 100, -1)
    np.testing.assert_array_equal(resized, np.array(expected))


def test_crop_is_resized_as_if_the_whole_image_were() -> None:
    factor = crop_factor((50, 20), (200, 100))
    pixels = resize_to_limit(np.array(draw(50, 20)), (50, 20), 100, factor=factor)
    assert factor == 0.25
    assert pixels.shape == (10, 25, 3)


def test_factor_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="factor must be positive, got 0"):
        resize_to_limit(np.array(draw()), (40, 30), 100, factor=0)


@pytest.mark.parametrize(
    ("scale", "expected"),
    [(0.5, (512, 2)), (0.25, (256, 1)), (1.0, (1025, 3)), (2.0, (2050, 6)), (0.1, (102, 1))],
)
def test_sizes_of_the_pyramid_are_rounded_half_to_even(
    scale: float, expected: tuple[int, int]
) -> None:
    assert scale_size((1025, 3), scale) == expected


@pytest.mark.parametrize(
    ("rule", "expected"), [("legacy", [0, 5, 10, 10]), ("half_pixel", [0, 2.5, 7.5, 10])]
)
def test_bilinear_rules_differ_in_where_pixels_lie(
    rule: Literal["legacy", "half_pixel"], expected: list[float]
) -> None:
    line = np.array([0, 10], np.uint8).reshape(1, 2, 1).repeat(3, axis=2)
    along = resize_bilinear(line, (4, 1), rule)
    down = resize_bilinear(line.transpose(1, 0, 2), (1, 4), rule)
    assert along.dtype == np.float32
    assert along[0, :, 0].tolist() == expected
    assert down[:, 0, 2].tolist() == expected


def plain_bilinear(pixels: np.ndarray, size: tuple[int, int], offset: float) -> np.ndarray:
    """Half-pixel centres with offset 0.5, the legacy rule with 0."""
    height, width, _ = pixels.shape
    result = np.zeros((size[1], size[0], 3))
    for row, column in np.ndindex(size[1], size[0]):
        y = min(max((row + offset) * height / size[1] - offset, 0), height - 1)
        x = min(max((column + offset) * width / size[0] - offset, 0), width - 1)
        top, left = int(y), int(x)
        bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
        upper = pixels[top, left] * (1 - x + left) + pixels[top, right] * (x - left)
        lower = pixels[bottom, left] * (1 - x + left) + pixels[bottom, right] * (x - left)
        result[row, column] = upper * (1 - y + top) + lower * (y - top)
    return result


@pytest.mark.parametrize("size", [(7, 5), (29, 31), (26, 9), (1, 1), (13, 22)])
@pytest.mark.parametrize(("rule", "offset"), [("legacy", 0.0), ("half_pixel", 0.5)])
def test_bilinear_resizing_equals_a_plain_loop(
    rule: Literal["legacy", "half_pixel"], offset: float, size: tuple[int, int]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (11, 13, 3)).astype(np.uint8)
    expected = plain_bilinear(pixels, size, offset)
    np.testing.assert_allclose(resize_bilinear(pixels, size, rule), expected, atol=2e-3)


@pytest.mark.parametrize("rule", ["legacy", "half_pixel"])
def test_bilinear_resizing_to_the_same_size_copies(rule: Literal["legacy", "half_pixel"]) -> None:
    pixels = np.array(draw(), np.float32)
    resized = resize_bilinear(pixels, (40, 30), rule)
    np.testing.assert_array_equal(resized, pixels)
    assert not np.shares_memory(resized, pixels)


def test_unknown_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="rule must be 'half_pixel' or 'legacy', got 'cubic'"):
        resize_bilinear(np.array(draw()), (4, 4), "cubic")  # type: ignore[arg-type]


# Finding


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_images_are_found_by_extension_and_sorted(tmp_path: Path) -> None:
    touch(tmp_path, "b.JPG", "a/z.png", "a/notes.txt", "c.heic", "a.jpeg.part", "jpg")
    names = [str(path.relative_to(tmp_path)) for path in find_images([tmp_path])]
    assert names == ["a/z.png", "b.JPG", "c.heic"]


def test_hidden_files_and_copies_of_systems_are_skipped(tmp_path: Path) -> None:
    touch(tmp_path, ".a.jpg", ".cache/b.jpg", "__MACOSX/c.jpg", "@eaDir/d.jpg", "x/._e.jpg")
    assert find_images([tmp_path]) == []


def test_hidden_folder_is_searched_if_it_is_given(tmp_path: Path) -> None:
    touch(tmp_path, ".hidden/a.jpg")
    assert find_images([tmp_path / ".hidden"]) == [tmp_path / ".hidden" / "a.jpg"]


def test_given_files_are_kept_whatever_their_name(tmp_path: Path) -> None:
    touch(tmp_path, "scan.dat", ".b")
    assert find_images([tmp_path / "scan.dat", tmp_path / ".b"]) == [
        tmp_path / ".b",
        tmp_path / "scan.dat",
    ]


def test_images_are_listed_once(tmp_path: Path) -> None:
    touch(tmp_path, "a/b.jpg")
    assert find_images([tmp_path, tmp_path / "a", tmp_path / "a/b.jpg"]) == [tmp_path / "a/b.jpg"]


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    touch(tmp_path, "a/b.jpg")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    assert find_images([tmp_path]) == [tmp_path / "a/b.jpg"]


def test_links_that_lead_nowhere_are_found_and_refused_when_read(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to(tmp_path / "gone.jpg")
    assert find_images([tmp_path]) == [tmp_path / "a.jpg"]
    with pytest.raises(ImageError, match="must be readable"):
        read_image(tmp_path / "a.jpg")


def test_path_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"path must exist, got '.*gone'"):
        find_images([tmp_path / "gone"])


def test_unreadable_folder_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refuse)
        assert find_images([tmp_path]) == []
    assert "folder must be readable, got 'Permission denied'" in caplog.text
