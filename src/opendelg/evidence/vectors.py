"""The drawing of a pair as parts of an SVG: photos by reference, lines and regions as paths."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from opendelg.evidence.layout import (
    COLOURS,
    Layout,
    Placement,
    box_corners,
    placed_lines,
    placed_region,
)
from opendelg.evidence.records import Box, Evidence


@dataclass(frozen=True)
class PlacedPhoto:
    """A photo that the page holds once and drawings refer to by name."""

    name: str
    size: tuple[int, int]  # (width, height), the units in which it is defined
    data_uri: str  # empty: a placeholder is shown

    @property
    def smaller_side(self) -> int:
        """Width or height; the text of a placeholder is sized by it."""
        return min(self.size)


@dataclass(frozen=True)
class Drawing:
    """Everything that one SVG of a pair shows, in its own units."""

    width: float
    height: float
    query_share: float  # of the width, up to where the result begins
    photos: list[tuple[str, str]]  # name and transform
    box: str  # paths; empty where there is nothing to draw
    regions: str
    rejected: str
    inliers: str
    coloured_inliers: list[tuple[str, str, str]]  # colour, lines, end points


def draw_pair(
    evidence: Evidence,
    layout: Layout,
    query: PlacedPhoto,
    database: PlacedPhoto,
    box: Box | None,
    has_matches: bool,
) -> Drawing:
    """The drawing of one pair.

    Args:
        evidence: The pair.
        layout: Where its photos lie.
        query: The query photo on the page.
        database: The result on the page.
        box: The searched part of the query.
        has_matches: Whether matches and regions fit the photos shown.
    """
    none = np.zeros((0, 2, 2))
    inliers = placed_lines(evidence, layout, inliers=True) if has_matches else none
    rejected = placed_lines(evidence, layout, inliers=False) if has_matches else none
    regions = [
        placed_region(evidence.query_region, layout.query),
        placed_region(evidence.database_region, layout.database),
    ]
    return Drawing(
        width=layout.width,
        height=layout.height,
        query_share=layout.database.x / layout.width,
        photos=[
            (query.name, _transform(layout.query)),
            (database.name, _transform(layout.database)),
        ],
        box="" if box is None else svg_path([layout.query.place(box_corners(box))], closed=True),
        regions=svg_path(regions, closed=True) if has_matches else "",
        rejected=svg_path(rejected),
        inliers=svg_path(inliers),
        coloured_inliers=_by_colour(inliers),
    )


def svg_path(lines: Iterable[np.ndarray], closed: bool = False) -> str:
    """Path data through whole units: each of ``lines`` is (K, 2), K may be 0."""
    parts = []
    for line in lines:
        corners = [f"{x:.0f} {y:.0f}" for x, y in line.tolist()]
        if corners:
            parts.append("M" + "L".join(corners) + ("z" if closed else ""))
    return "".join(parts)


def _by_colour(lines: np.ndarray) -> list[tuple[str, str, str]]:
    groups = []
    for first, colour in enumerate(COLOURS):
        chosen = lines[first :: len(COLOURS)]
        if len(chosen):
            # A line of no length with round ends is a dot, whatever the scale of the drawing.
            dots = "".join(f"M{x:.0f} {y:.0f}h0" for x, y in chosen.reshape(-1, 2).tolist())
            groups.append((colour, svg_path(chosen), dots))
    return groups


def _transform(placement: Placement) -> str:
    scale_x = placement.width / placement.size[0]
    scale_y = placement.height / placement.size[1]
    return f"translate({placement.x:g} {placement.y:g}) scale({scale_x:.6g} {scale_y:.6g})"
