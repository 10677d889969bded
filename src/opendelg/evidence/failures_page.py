"""One HTML page of queries that failed: what was found instead, and why it looked alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

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
from opendelg.evidence.wording import count
from opendelg.evidence.writing import make_folder, write_whole

Mark = Literal["right", "wrong", "junk"]

_PAGE_NAME = "index.html"
# A page of 20 failures stays below 12 MB, so that it can be sent by mail.
_MAX_PHOTO_BYTES = 8_000_000  # all JPEGs together, before base64 makes them a third longer
_THUMBNAIL_BYTES = 12_000
_MIN_BYTES = 24_000  # of a photo on pages of far more failures; these may become longer
_MAX_BYTES = 200_000
_THUMBNAIL_SIDE = 360  # px
_PHOTOS_DRAWN = 3  # per failure: the query, the wrong result, the missed one


@dataclass(frozen=True)
class RankedPhoto:
    """A database photo in a ranking."""

    side: Side
    rank: int | None  # from 1; None: not among those that were kept
    mark: Mark
    about: Sequence[str] = ()  # lines for people, such as "16 inliers"


@dataclass(frozen=True)
class FailedQuery:
    """A query with what was found."""

    query: Side
    box: Box | None  # the part of the query that was searched for
    summary: str  # its figure, and where the first right photo was
    results: Sequence[RankedPhoto]  # the first few, best first
    missed: RankedPhoto | None  # the best right one that came too late, if it is not among these
    pairs: Sequence[tuple[RankedPhoto, Evidence]]  # the wrong result, the missed right one


@dataclass(frozen=True)
class _Thumbnail:
    ranked: RankedPhoto
    uri: str
    aspect: float
    is_missed: bool


@dataclass(frozen=True)
class _DrawnPair:
    ranked: RankedPhoto
    evidence: Evidence
    photo: PlacedPhoto
    wide: Drawing
    narrow: Drawing | None
    notes: list[str]


@dataclass(frozen=True)
class _Failure:
    anchor: str
    failed: FailedQuery
    photo: PlacedPhoto
    size: tuple[int, int]
    thumbnail: str
    aspect: float
    box_path: str
    notes: list[str]
    results: list[_Thumbnail]
    pairs: list[_DrawnPair]


def write_failures_page(
    failures: Sequence[FailedQuery],
    folder: Path,
    *,
    title: str,
    explanation: str,
    facts: Mapping[str, str],
    notes: Sequence[str] = (),
) -> Path:
    """Write ``index.html`` of failures; nothing else is needed to show it.

    Args:
        failures: The queries, worst first; may be empty.
        folder: Where to write; created if need be, a page in it is replaced.
        title: The answer in a few words.
        explanation: What it rests on, in a sentence.
        facts: What the run was made with, such as ``{"Model": ...}``, shown in this order.
        notes: What a reader must know besides.

    Returns:
        The path of the page.

    Raises:
        OpenDelgError: If the disk is full or the folder is not writable.
    """
    make_folder(folder)
    html = page_template("failures.html.jinja", "page.css", "failures.css").render(
        title=title,
        explanation=explanation,
        facts=dict(facts),
        notes=list(notes),
        failures=[
            _failure(number, failed, len(failures)) for number, failed in enumerate(failures, 1)
        ],
        max_lines=MAX_LINES,
    )
    path = folder / _PAGE_NAME
    write_whole(path, html.encode())
    return path


def _failure(number: int, failed: FailedQuery, num_failures: int) -> _Failure:
    num_thumbnails = 2 + len(failed.results)
    share = _MAX_PHOTO_BYTES // num_failures - num_thumbnails * _THUMBNAIL_BYTES
    max_bytes = min(_MAX_BYTES, max(_MIN_BYTES, share // _PHOTOS_DRAWN))
    query = read_photo(failed.query, PHOTO_SIDE)
    box = failed.box if query.is_as_indexed else None
    placed = placed_photo(f"query-{number}", query, max_bytes)
    notes = [f"The query photo cannot be shown: {query.problem}."] if query.problem else []
    return _Failure(
        anchor=f"failure-{number}",
        failed=failed,
        photo=placed,
        size=query.size,
        thumbnail=data_uri(query, _THUMBNAIL_SIDE, _THUMBNAIL_BYTES),
        aspect=shown_aspect(query),
        box_path="" if box is None else svg_path([box_corners(box) + 0.5], closed=True),
        notes=notes + ([CHANGED] if query.has_changed else []),
        results=[_thumbnail(ranked, False) for ranked in failed.results]
        + ([] if failed.missed is None else [_thumbnail(failed.missed, True)]),
        pairs=[
            _drawn(f"photo-{number}-{place}", ranked, evidence, (query, placed), box, max_bytes)
            for place, (ranked, evidence) in enumerate(failed.pairs, 1)
        ],
    )


def _thumbnail(ranked: RankedPhoto, is_missed: bool) -> _Thumbnail:
    photo = read_photo(ranked.side, _THUMBNAIL_SIDE)
    uri = data_uri(photo, _THUMBNAIL_SIDE, _THUMBNAIL_BYTES)
    return _Thumbnail(ranked, uri, shown_aspect(photo), is_missed)


def _drawn(
    name: str,
    ranked: RankedPhoto,
    evidence: Evidence,
    query: tuple[Photo, PlacedPhoto],
    box: Box | None,
    max_bytes: int,
) -> _DrawnPair:
    photo = read_photo(ranked.side, PHOTO_SIDE)
    placed = placed_photo(name, photo, max_bytes)
    drawings = draw_both(evidence, *query, photo, placed, box)
    notes = notes_on(evidence, query[0], photo)
    return _DrawnPair(ranked, evidence, placed, drawings.wide, drawings.narrow, notes)


def failures_title(num_failed: int, num_queries: int) -> str:
    """The answer of a page of failures in a few words."""
    if num_failed == 0:
        return "No query failed"
    return f"{num_failed:,} of {count(num_queries, 'query', 'queries')} failed"
