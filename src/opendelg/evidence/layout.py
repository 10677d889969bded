"""Where photos, points and lines of a pair lie on the drawing."""

from dataclasses import dataclass

import numpy as np

from opendelg.evidence.records import Box, Evidence

# Neighbouring lines take neighbouring entries: far apart in hue and lightness, each readable on
# dark photos by itself and on light photos by the dark edge that is drawn around it.
COLOURS = (
    "#ffb52e", "#4cc3ff", "#ff7ac6", "#8be06a", "#b79bff", "#fff07a", "#ff7f50", "#3fe0cf",
)  # fmt: skip
MAX_LINES = 80  # more hide the photos and cannot be told apart
MAX_ASPECT = 4.0  # of both photos together; wider pairs get lower photos
_LONGEST = 20.0  # sides of a strip; longer ones are squeezed, as they could not be seen


@dataclass(frozen=True)
class Placement:
    """A photo on the drawing, in px of the drawing measured from its upper left corner."""

    x: float
    y: float
    width: float
    height: float
    size: tuple[int, int]  # (width, height) px of the original photo

    def place(self, points: np.ndarray) -> np.ndarray:
        """Original ``(x, y)`` px, whole numbers at pixel centres, on the drawing: (N, 2) float64.

        On the drawing whole numbers are the edges of pixels, as in SVG.
        """
        scale = np.array([self.width / self.size[0], self.height / self.size[1]])
        centres: np.ndarray = np.asarray(points, np.float64).reshape(-1, 2) + 0.5
        placed: np.ndarray = centres * scale + (self.x, self.y)
        return placed


@dataclass(frozen=True)
class Layout:
    """Both photos of a pair on one drawing."""

    query: Placement
    database: Placement
    width: float
    height: float
    is_stacked: bool = False


def _aspect(size: tuple[int, int]) -> float:
    return min(_LONGEST, max(1 / _LONGEST, size[0] / size[1]))


def side_by_side(
    query_size: tuple[int, int], database_size: tuple[int, int], height: int, gap: int
) -> Layout:
    """Query left, result right, both of the same height in whole px."""
    aspects = [_aspect(size) for size in (query_size, database_size)]
    height = max(1, round(height * min(1.0, MAX_ASPECT / sum(aspects))))
    widths = [max(1, round(height * aspect)) for aspect in aspects]
    query = Placement(0, 0, widths[0], height, query_size)
    database = Placement(widths[0] + gap, 0, widths[1], height, database_size)
    return Layout(query, database, widths[0] + gap + widths[1], height)


def stacked(
    query_size: tuple[int, int], database_size: tuple[int, int], width: int, gap: int
) -> Layout:
    """Query above, result below, both of the same width in whole px."""
    heights = [max(1, round(width / _aspect(size))) for size in (query_size, database_size)]
    query = Placement(0, 0, width, heights[0], query_size)
    database = Placement(0, heights[0] + gap, width, heights[1], database_size)
    return Layout(query, database, width, heights[0] + gap + heights[1], is_stacked=True)


def placed_lines(evidence: Evidence, layout: Layout, inliers: bool) -> np.ndarray:
    """The matches to draw, as lines in an order in which neighbours follow each other.

    Args:
        evidence: A pair with its matches.
        layout: Where the photos lie.
        inliers: Whether to return inliers or rejected matches.

    Returns:
        (L, 2, 2) float64: line, query and database end, x and y.  L is at most ``MAX_LINES``;
        more are thinned evenly.
    """
    chosen = np.flatnonzero(np.asarray(evidence.inliers, bool) == inliers)
    points = np.hstack([evidence.query_points[chosen], evidence.database_points[chosen]])
    points = points[np.isfinite(points).all(axis=1)]
    ends = [layout.query.place(points[:, :2]), layout.database.place(points[:, 2:])]
    lines = np.stack(ends, axis=1)
    across = 0 if layout.is_stacked else 1  # the axis along which the lines lie side by side
    lines = lines[np.argsort(lines[:, :, across].sum(axis=1), kind="stable")]
    if len(lines) > MAX_LINES:
        lines = lines[np.linspace(0, len(lines) - 1, MAX_LINES).round().astype(int)]
    return lines


def placed_region(region: np.ndarray, placement: Placement) -> np.ndarray:
    """A polygon on the drawing, (K, 2); (0, 2) where fewer than three corners make none."""
    finite = region[np.isfinite(region).all(axis=1)] if len(region) else region
    return placement.place(finite if len(finite) >= 3 else finite[:0])


def box_corners(box: Box) -> np.ndarray:
    """The corners of a box as points, (4, 2): it runs along edges of pixels, half a px off."""
    x1, y1, x2, y2 = box
    return np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)], np.float64) - 0.5
