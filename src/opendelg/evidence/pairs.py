"""A pair of photos as a page holds it: each photo once, drawn side by side and for phones."""

from dataclasses import dataclass

from opendelg.evidence.layout import MAX_LINES, Layout, side_by_side, stacked
from opendelg.evidence.photos import Photo, jpeg_data_uri
from opendelg.evidence.records import Box, Evidence
from opendelg.evidence.vectors import Drawing, PlacedPhoto, draw_pair

PHOTO_SIDE = 1280  # px
CHANGED = "The file has changed since it was indexed: what is shown is not what was compared."
_WIDE_HEIGHT = 1200  # units of the drawing, about 2 per px on a desktop screen
_NARROW_WIDTH = 1200
_GAP = 20
_STACKED_FROM = 2.2  # sum of both aspects from which a phone shows the photos one above the other


@dataclass(frozen=True)
class Drawings:
    """Both ways to draw a pair; ``narrow`` is None where the wide one fits a phone too."""

    wide: Drawing
    narrow: Drawing | None


def draw_both(
    evidence: Evidence,
    query: Photo,
    placed_query: PlacedPhoto,
    photo: Photo,
    placed: PlacedPhoto,
    box: Box | None,
) -> Drawings:
    """The drawings of a pair; without matches where a photo is not the one that was compared."""
    has_matches = query.is_as_indexed and photo.is_as_indexed

    def drawing(layout: Layout) -> Drawing:
        return draw_pair(evidence, layout, placed_query, placed, box, has_matches)

    aspects = query.size[0] / query.size[1] + photo.size[0] / photo.size[1]
    narrow = stacked(query.size, photo.size, _NARROW_WIDTH, _GAP)
    return Drawings(
        drawing(side_by_side(query.size, photo.size, _WIDE_HEIGHT, _GAP)),
        drawing(narrow) if aspects >= _STACKED_FROM else None,
    )


def placed_photo(name: str, photo: Photo, max_bytes: int) -> PlacedPhoto:
    """A photo as drawings refer to it."""
    return PlacedPhoto(name, photo.size, data_uri(photo, PHOTO_SIDE, max_bytes))


def data_uri(photo: Photo, max_side: int, max_bytes: int) -> str:
    """A photo as a ``data:`` address; empty if there is none."""
    return "" if photo.pixels is None else jpeg_data_uri(photo.pixels, max_side, max_bytes)


def shown_aspect(photo: Photo) -> float:
    """Width by height of a thumbnail; very wide and very high photos are cut."""
    return min(3.0, max(0.4, photo.size[0] / photo.size[1]))


def notes_on(evidence: Evidence, query: Photo, photo: Photo) -> list[str]:
    """What a reader of this pair must know besides the numbers."""
    notes = []
    if photo.problem:
        notes.append(f"This photo cannot be shown: {photo.problem}.")
    if photo.has_changed:
        notes.append(CHANGED)
    elif query.has_changed:
        notes.append("No lines are drawn, because the query photo has changed.")
    elif evidence.num_inliers > MAX_LINES and query.is_as_indexed and photo.is_as_indexed:
        notes.append(f"{MAX_LINES} of {evidence.num_inliers:,} lines are drawn.")
    return notes
