"""One HTML page per search: the answer, the ranks at a glance, then every pair with its matches."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from opendelg.evidence.layout import MAX_LINES, Layout, box_corners, side_by_side, stacked
from opendelg.evidence.photos import Photo, jpeg_data_uri, read_photo
from opendelg.evidence.records import Box, Evidence, Side
from opendelg.evidence.vectors import Drawing, PlacedPhoto, draw_pair, svg_path
from opendelg.evidence.wording import (
    count,
    headline,
    numbers,
    sentence,
    short_verdict,
    verdict_with_number,
    visible,
)
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
_PHOTO_SIDE = 1280  # px
_WIDE_HEIGHT = 1200  # units of the drawing, about 2 per px on a desktop screen
_NARROW_WIDTH = 1200
_GAP = 20
_STACKED_FROM = 2.2  # sum of both aspects from which a phone shows the photos one above the other
_CHANGED = "The file has changed since it was indexed: what is shown is not what was compared."


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
    query_photo = read_photo(query, _PHOTO_SIDE)
    # A box belongs to the photo that was searched, not to one that has taken its place.
    box = query_box if query_photo.is_as_indexed else None
    placed_query = _placed("photo-query", query_photo, _MAX_QUERY_BYTES)
    pairs = [
        _pair(number, evidence, query_photo, placed_query, box, len(evidences))
        for number, evidence in enumerate(evidences, 1)
    ]
    title, explanation = headline(evidences)
    return _template().render(
        title=title,
        explanation=explanation,
        query=query,
        query_photo=placed_query,
        query_problem=query_photo.problem,
        query_notes=[_CHANGED] if query_photo.has_changed else [],
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
    photo = read_photo(evidence.database, _PHOTO_SIDE)
    share = (_MAX_PHOTO_BYTES - _MAX_QUERY_BYTES) // num_results - _THUMBNAIL_BYTES - _LINE_BYTES
    max_bytes = min(_MAX_RESULT_BYTES, max(_MIN_RESULT_BYTES, share))
    placed = _placed(f"photo-{number}", photo, max_bytes)
    has_matches = query.is_as_indexed and photo.is_as_indexed

    def drawing(layout: Layout) -> Drawing:
        return draw_pair(evidence, layout, placed_query, placed, box, has_matches)

    aspects = query.size[0] / query.size[1] + photo.size[0] / photo.size[1]
    narrow = stacked(query.size, photo.size, _NARROW_WIDTH, _GAP)
    return _Pair(
        anchor=f"result-{number}",
        evidence=evidence,
        photo=placed,
        thumbnail=_data_uri(photo, _THUMBNAIL_SIDE, _THUMBNAIL_BYTES),
        aspect=min(3.0, max(0.4, photo.size[0] / photo.size[1])),
        wide=drawing(side_by_side(query.size, photo.size, _WIDE_HEIGHT, _GAP)),
        narrow=drawing(narrow) if aspects >= _STACKED_FROM else None,
        notes=_notes(evidence, query, photo),
    )


def _placed(name: str, photo: Photo, max_bytes: int) -> PlacedPhoto:
    return PlacedPhoto(name, photo.size, _data_uri(photo, _PHOTO_SIDE, max_bytes))


def _data_uri(photo: Photo, max_side: int, max_bytes: int) -> str:
    return "" if photo.pixels is None else jpeg_data_uri(photo.pixels, max_side, max_bytes)


def _notes(evidence: Evidence, query: Photo, photo: Photo) -> list[str]:
    """What a reader of this pair must know besides the numbers."""
    notes = []
    if photo.problem:
        notes.append(f"This photo cannot be shown: {photo.problem}.")
    if photo.has_changed:
        notes.append(_CHANGED)
    elif query.has_changed:
        notes.append("No lines are drawn, because the query photo has changed.")
    elif evidence.num_inliers > MAX_LINES and query.is_as_indexed and photo.is_as_indexed:
        notes.append(f"{MAX_LINES} of {evidence.num_inliers:,} lines are drawn.")
    return notes


def _template() -> Template:
    folder = files("opendelg.evidence")
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.globals.update(
        css=Markup(folder.joinpath("page.css").read_text("utf-8")),
        count=count,
        numbers=numbers,
        sentence=sentence,
        short_verdict=short_verdict,
        verdict_with_number=verdict_with_number,
    )
    return environment.from_string(folder.joinpath("page.html.jinja").read_text("utf-8"))


def _shown(value: object) -> str:
    """Everything that the template prints, made visible before it is escaped."""
    return value if isinstance(value, Markup) else visible(str(value))
