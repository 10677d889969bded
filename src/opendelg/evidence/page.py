"""One HTML page per search: the answer, the ranks at a glance, then every pair with its matches."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from opendelg.evidence.layout import MAX_LINES, box_corners
from opendelg.evidence.pairs import (
    CHANGED,
    PHOTO_SIDE,
    data_uri,
    draw_both,
    notes_on,
    placed_photo,
    shown_aspect,
)
from opendelg.evidence.photos import Photo, read_photo
from opendelg.evidence.records import Box, Evidence, Side
from opendelg.evidence.templates import page_template
from opendelg.evidence.vectors import Drawing, PlacedPhoto, svg_path
from opendelg.evidence.wording import headline
from opendelg.evidence.writing import make_folder, write_whole

_PAGE_NAME = "index.html"
# A page with 100 results stays below 12 MB, so that it can be sent by mail.
_MAX_PHOTO_BYTES = 8_000_000  # all JPEGs together, before base64 makes them a third longer
_MAX_QUERY_BYTES = 320_000
_MAX_RESULT_BYTES = 320_000
_MIN_RESULT_BYTES = 24_000  # of pages with far more results; these may become longer
_THUMBNAIL_BYTES = 14_000
_LINE_BYTES = 15_000  # what the lines of a pair take at most, and its texts
_THUMBNAIL_SIDE = 360  # px


@dataclass(frozen=True)
class _Pair:
    """One result as the template shows it."""

    anchor: str
    evidence: Evidence
    photo: PlacedPhoto
    thumbnail: str
    aspect: float
    wide: Drawing
    narrow: Drawing | None
    notes: list[str]


def write_page(
    query: Side,
    query_box: Box | None,
    evidences: Sequence[Evidence],
    folder: Path,
    *,
    seconds: Mapping[str, float] | None = None,
    settings: Mapping[str, str] | None = None,
) -> Path:
    """Write ``index.html`` for one search; nothing else is needed to show it.

    Args:
        query: The query photo.
        query_box: The part of it that was searched, if not all.
        evidences: The results, best first; may be empty.
        folder: Where to write; created if need be, a page in it is replaced.
        seconds: What took how long, such as ``{"extract": 0.8}``, shown in this order.
        settings: What the search was made with, such as ``{"Model": ...}``, shown in this order.

    Returns:
        The path of the page.

    Raises:
        OpenDelgError: If the disk is full or the folder is not writable.
    """
    make_folder(folder)
    html = page_html(query, query_box, evidences, seconds=seconds, settings=settings)
    path = folder / _PAGE_NAME
    write_whole(path, html.encode())
    return path


def page_html(
    query: Side,
    query_box: Box | None,
    evidences: Sequence[Evidence],
    *,
    seconds: Mapping[str, float] | None = None,
    settings: Mapping[str, str] | None = None,
) -> str:
    """The page of :func:`write_page`, whose arguments these are."""
    query_photo = read_photo(query, PHOTO_SIDE)
    # A box belongs to the photo that was searched, not to one that has taken its place.
    box = query_box if query_photo.is_as_indexed else None
    placed_query = placed_photo("photo-query", query_photo, _MAX_QUERY_BYTES)
    pairs = [
        _pair(number, evidence, query_photo, placed_query, box, len(evidences))
        for number, evidence in enumerate(evidences, 1)
    ]
    title, explanation = headline(evidences)
    return page_template("page.html.jinja", "page.css").render(
        title=title,
        explanation=explanation,
        query=query,
        query_photo=placed_query,
        query_problem=query_photo.problem,
        query_notes=[CHANGED] if query_photo.has_changed else [],
        query_box=query_box,
        query_box_path="" if box is None else svg_path([box_corners(box) + 0.5], closed=True),
        pairs=pairs,
        facts=dict(settings or {}),
        seconds=", ".join(f"{name} {value:.2f}" for name, value in (seconds or {}).items()),
        max_lines=MAX_LINES,
    )


def _pair(
    number: int,
    evidence: Evidence,
    query: Photo,
    placed_query: PlacedPhoto,
    box: Box | None,
    num_results: int,
) -> _Pair:
    photo = read_photo(evidence.database, PHOTO_SIDE)
    share = (_MAX_PHOTO_BYTES - _MAX_QUERY_BYTES) // num_results - _THUMBNAIL_BYTES - _LINE_BYTES
    max_bytes = min(_MAX_RESULT_BYTES, max(_MIN_RESULT_BYTES, share))
    placed = placed_photo(f"photo-{number}", photo, max_bytes)
    drawings = draw_both(evidence, query, placed_query, photo, placed, box)
    return _Pair(
        anchor=f"result-{number}",
        evidence=evidence,
        photo=placed,
        thumbnail=data_uri(photo, _THUMBNAIL_SIDE, _THUMBNAIL_BYTES),
        aspect=shown_aspect(photo),
        wide=drawings.wide,
        narrow=drawings.narrow,
        notes=notes_on(evidence, query, photo),
    )
