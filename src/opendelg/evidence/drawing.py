"""One picture per pair: both photos at the same height, lines between inliers, and the numbers."""

import io
import itertools
import re
import unicodedata
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from opendelg.evidence.layout import (
    COLOURS,
    Layout,
    Placement,
    box_corners,
    placed_lines,
    placed_region,
    side_by_side,
)
from opendelg.evidence.photos import Photo, read_photo, resized
from opendelg.evidence.records import Box, Evidence, Side
from opendelg.evidence.wording import numbers, sentence, verdict_with_number, visible
from opendelg.evidence.writing import make_folder, write_whole

_PAPER = (251, 250, 248)
_INK = (28, 27, 25)
_QUIET_INK = (98, 93, 87)
_PLACEHOLDER = (228, 225, 219)
_OVERSAMPLING = 2  # everything is drawn larger and then averaged: fine, smooth lines
_SUBPIXEL_BITS = 4  # OpenCV takes coordinates in 1/16 px
_FALLBACK_FONTS = ("DejaVuSans.ttf", "NotoSansCJK-Regular.ttc", "Arial Unicode.ttf", "arial.ttf")

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def draw_evidence(
    evidence: Evidence,
    height: int = 640,
    *,
    query_box: Box | None = None,
    show_rejected: bool = False,
) -> Image.Image:
    """Query and result side by side with inlier lines, matched regions and the numbers.

    Args:
        evidence: What to draw.
        height: Of the photos in px; very wide pairs become lower.
        query_box: The part of the query that was searched, drawn as a frame.
        show_rejected: Whether to draw matches that are not inliers too, faintly.

    Returns:
        An RGB image, the photos surrounded by a margin and two lines of text above and below.
        A photo that cannot be read is a grey tile that says so.
    """
    draft_size = 2 * height * _OVERSAMPLING
    query = read_photo(evidence.query, draft_size)
    database = read_photo(evidence.database, draft_size)
    drawn_height = height * _OVERSAMPLING
    layout = side_by_side(query.size, database.size, drawn_height, gap=drawn_height // 50)
    canvas = np.full((int(layout.height), int(layout.width), 3), _PAPER, np.uint8)
    _paste(canvas, query, layout.query)
    _paste(canvas, database, layout.database)
    if query.is_as_indexed and database.is_as_indexed:
        canvas = _with_matches(canvas, evidence, layout, show_rejected)
    if query_box is not None and query.is_as_indexed:
        corners = layout.query.place(box_corners(query_box))
        canvas = _with_strokes(canvas, _dashes(corners), opacity=0.95)
    photos = Image.fromarray(canvas).reduce(_OVERSAMPLING)
    return _with_captions(photos, evidence, (query, database), layout)


def write_png(
    evidence: Evidence,
    path: Path,
    height: int = 640,
    *,
    query_box: Box | None = None,
    show_rejected: bool = False,
) -> None:
    """Write the picture of :func:`draw_evidence`; its folder is created if need be.

    Raises:
        OpenDelgError: If the disk is full or the folder is not writable.
    """
    image = draw_evidence(evidence, height, query_box=query_box, show_rejected=show_rejected)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    make_folder(path.parent)
    write_whole(path, buffer.getvalue())


def png_name(evidence: Evidence) -> str:
    """A file name such as ``001_notre_dame.png`` that every operating system accepts."""
    plain = unicodedata.normalize("NFKD", evidence.database.path.stem)
    stem = re.sub("[^A-Za-z0-9-]+", "_", plain.encode("ascii", "ignore").decode()).strip("_-")
    return f"{evidence.rank:03d}_{stem[:60] or 'photo'}.png"


def _paste(canvas: np.ndarray, photo: Photo, placement: Placement) -> None:
    x, y, width, height = (
        int(value) for value in (placement.x, placement.y, placement.width, placement.height)
    )
    if photo.pixels is None:
        canvas[y : y + height, x : x + width] = _placeholder((width, height))
    else:
        canvas[y : y + height, x : x + width] = resized(photo.pixels, (width, height))


def _placeholder(size: tuple[int, int]) -> np.ndarray:
    tile = Image.new("RGB", size, _PLACEHOLDER)
    draw = ImageDraw.Draw(tile)
    middle = (size[0] / 2, size[1] / 2)
    text = "photo not available"
    draw.text(middle, text, _QUIET_INK, _font(text, max(8, min(size) / 20)), anchor="mm")
    return np.asarray(tile)


def _with_matches(
    canvas: np.ndarray, evidence: Evidence, layout: Layout, show_rejected: bool
) -> np.ndarray:
    regions = [
        placed_region(evidence.query_region, layout.query),
        placed_region(evidence.database_region, layout.database),
    ]
    canvas = _with_strokes(canvas, [_closed(region) for region in regions], opacity=0.75)
    if show_rejected:
        rejected = placed_lines(evidence, layout, inliers=False)
        canvas = _with_lines(canvas, rejected, ["#ffffff"], opacity=0.3)
    lines = placed_lines(evidence, layout, inliers=True)
    return _with_lines(canvas, lines, COLOURS, opacity=0.95 if len(lines) <= 40 else 0.8)


def _fixed(points: np.ndarray) -> np.ndarray:
    """Points of the drawing as OpenCV wants them: pixel centres whole, 1/16 px, int32."""
    bounded = np.clip(points - 0.5, -20_000, 20_000)
    return np.asarray((bounded * 2**_SUBPIXEL_BITS).round(), np.int32)


def _with_strokes(canvas: np.ndarray, strokes: list[np.ndarray], opacity: float) -> np.ndarray:
    """White strokes with a dark edge; each is (K, 2) and open."""
    fixed = [_fixed(stroke) for stroke in strokes if len(stroke)]
    if not fixed:
        return canvas
    for ink, thickness, share in (((0, 0, 0), 6, 0.35), ((255, 255, 255), 3, opacity)):
        over = canvas.copy()
        cv2.polylines(over, fixed, False, ink, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)
        canvas = cv2.addWeighted(over, share, canvas, 1 - share, 0.0)
    return canvas


def _closed(polygon: np.ndarray) -> np.ndarray:
    return np.vstack([polygon, polygon[:1]])


def _dashes(polygon: np.ndarray) -> list[np.ndarray]:
    """The outline of a polygon in pieces, so that it is not taken for a region."""
    pieces = []
    corners = _closed(polygon)
    for start, end in itertools.pairwise(corners):
        num_pieces = 1 + 2 * round(float(np.hypot(*(end - start))) / 40)
        cuts = start + np.linspace(0, 1, num_pieces + 1)[:, None] * (end - start)
        pieces += [cuts[i : i + 2] for i in range(0, num_pieces, 2)]
    return pieces


def _with_lines(
    canvas: np.ndarray, lines: np.ndarray, colours: list[str] | tuple[str, ...], opacity: float
) -> np.ndarray:
    if len(lines) == 0:
        return canvas
    inks = [ImageColor.getrgb(colours[i % len(colours)])[:3] for i in range(len(lines))]
    for is_edge, share in ((True, opacity / 3), (False, opacity)):
        over = canvas.copy()
        for (start, end), ink in zip(_fixed(lines), inks, strict=True):
            ink = (0, 0, 0) if is_edge else ink
            thickness, radius = (6, 9) if is_edge else (3, 7)
            cv2.line(over, start, end, ink, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)
            for point in (start, end):
                radius_fixed = radius << _SUBPIXEL_BITS
                cv2.circle(over, point, radius_fixed, ink, -1, cv2.LINE_AA, _SUBPIXEL_BITS)
        canvas = cv2.addWeighted(over, share, canvas, 1 - share, 0.0)
    return canvas


def _with_captions(
    photos: Image.Image, evidence: Evidence, pair: tuple[Photo, Photo], layout: Layout
) -> Image.Image:
    unit = max(8, photos.height // 40)
    margin, head, foot = 2 * unit, 5 * unit, 4 * unit
    width = max(photos.width, 36 * unit)
    page = Image.new("RGB", (width + 2 * margin, photos.height + 2 * margin + head + foot), _PAPER)
    left = margin + (width - photos.width) // 2
    page.paste(photos, (left, margin + head))
    draw = ImageDraw.Draw(page)
    title = f"{evidence.rank}   {sentence(verdict_with_number(evidence.same))}"
    _write(draw, (left, margin - unit // 3), title, 2 * unit, _INK, width)
    subtitle = sentence(numbers(evidence))
    _write(draw, (left, margin + 2.3 * unit), subtitle, 1.2 * unit, _QUIET_INK, width)
    top = margin + head + photos.height + unit
    for side, photo, placement in (
        (evidence.query, pair[0], layout.query),
        (evidence.database, pair[1], layout.database),
    ):
        x = left + placement.x / _OVERSAMPLING
        room = placement.width / _OVERSAMPLING
        _write(draw, (x, top), side.label, 1.2 * unit, _INK, room)
        _write(draw, (x, top + 1.6 * unit), _about(side, photo), unit, _QUIET_INK, room)
    return page


def _about(side: Side, photo: Photo) -> str:
    if photo.problem:
        return photo.problem
    changed = ", changed since it was indexed" if photo.has_changed else ""
    return f"{photo.size[0]} x {photo.size[1]} px{changed}"


def _write(
    draw: ImageDraw.ImageDraw,
    position: tuple[float, float],
    text: str,
    size: float,
    ink: tuple[int, int, int],
    room: float,
) -> None:
    """One line of text, shortened at its end to fit ``room`` px."""
    text = visible(text).replace("\u00a0", " ")
    font = _font(text, size)
    text = "".join(_showable(font, letter) for letter in text)
    if font.getlength(text) > room:
        while text and font.getlength(text + "...") > room:
            text = text[:-1]
        text += "..."
    draw.text(position, text, ink, font)


def _font(text: str, size: float) -> Font:
    """Pillow's own font, or a font of this machine if only that has all letters of ``text``."""
    own = ImageFont.load_default(size)
    if all(_covers(own, letter) for letter in set(text)):
        return own
    for name in _FALLBACK_FONTS:
        try:
            font = ImageFont.truetype(name, size)
        except OSError:
            continue
        if all(_covers(font, letter) for letter in set(text)):
            return font
    return own


def _showable(font: Font, letter: str) -> str:
    plain = unicodedata.normalize("NFKD", letter)[0]  # without its accent
    return next((shown for shown in (letter, plain) if _covers(font, shown)), "?")


def _covers(font: Font, letter: str) -> bool:
    """Whether ``font`` has a picture of its own for ``letter``."""
    return letter == " " or bytes(font.getmask(letter)) != bytes(font.getmask("\uffff"))
