"""Affine transforms, polygons and the grid of keypoints.

Points are ``(x, y)`` pixels, x to the right and y down, the centre of the first pixel being
``(0, 0)`` (see ``features.py``).  Transforms are named target first: ``database_from_query``
applies to query points.
"""

import cv2
import numpy as np


def apply_affine(transform: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (N, 2) float64 after the transform.

    Args:
        transform: (2, 3), target first.
        points: (N, 2) px; N may be 0.
    """
    transform = np.asarray(transform, np.float64)
    points = np.asarray(points, np.float64).reshape(-1, 2)
    return np.asarray(points @ transform[:, :2].T + transform[:, 2])


def invert_affine(transform: np.ndarray) -> np.ndarray:
    """The (2, 3) float64 transform of the other direction.

    Raises:
        ValueError: If the transform collapses the plane and has no inverse.
    """
    (a, b, tx), (c, d, ty) = np.asarray(transform, np.float64).tolist()
    determinant = a * d - b * c
    inverse = np.array([[d, -b, b * ty - d * tx], [-c, a, c * tx - a * ty]])
    with np.errstate(all="ignore"):
        inverse /= determinant
    if not np.isfinite(inverse).all():
        raise ValueError(f"transform must be invertible, got determinant {determinant}")
    return inverse


def fit_affine(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Least-squares transform (2, 3) float64 from source to target points.

    Args:
        source: (N, 2) float64 px.
        target: (N, 2) float64 px, where each of them should go.

    Returns:
        The transform named ``target_from_source``; NaN if fewer than 3 points are given or all
        are on a line.
    """
    if len(source) < 3:
        return np.full((2, 3), np.nan)
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    centred = source - source_mean
    (xx, xy), (_, yy) = (centred.T @ centred).tolist()
    determinant = xx * yy - xy * xy
    if determinant <= 1e-9 * (xx + yy) ** 2:  # share of the extent: below it the fit is noise
        return np.full((2, 3), np.nan)
    inverse = np.array([[yy, -xy], [-xy, xx]]) / determinant
    linear = (target - target_mean).T @ centred @ inverse
    return np.column_stack([linear, target_mean - linear @ source_mean])


def stretches(transform: np.ndarray) -> tuple[float, float]:
    """Largest and smallest stretch of an affine transform, the smallest negative if it mirrors.

    They are the singular values of its 2 x 2 part, in closed form; the second carries the sign
    of the determinant.

    Args:
        transform: (2, 3), or its (2, 2) part.
    """
    (a, b), (c, d) = np.asarray(transform, np.float64)[:, :2].tolist()
    rotation = np.hypot(a + d, c - b)
    reflection = np.hypot(a - d, c + b)
    return float(rotation + reflection) / 2, float(rotation - reflection) / 2


def convex_hull(points: np.ndarray) -> np.ndarray:
    """Corners (K, 2) float32 of the convex hull, clockwise as seen on the screen.

    Clockwise on the screen, where y points down, is the order of growing angle from x to y: the
    shoelace area is positive.  The first corner is the smallest in (y, x).

    Args:
        points: (N, 2) px; N may be 0, points may repeat.

    Returns:
        No corner repeats.  K is 0 without points, 1 when all are equal, 2 when all are on a line.
    """
    points = np.asarray(points, np.float32).reshape(-1, 2)
    if len(points) == 0:
        return points.copy()
    hull = cv2.convexHull(points, clockwise=False).reshape(-1, 2).astype(np.float32)
    area = polygon_area(hull)
    extents = np.ptp(hull, axis=0).astype(np.float64)
    # float32 coordinates carry a relative error of 6e-8: what is thinner than that is a line.
    if abs(area) <= 1e-6 * extents.max() * np.abs(hull).max():
        axis = int(extents.argmax())
        ends = hull[[hull[:, axis].argmin(), hull[:, axis].argmax()]]
        hull = ends if extents.max() > 0 else ends[:1]
    elif area < 0:
        hull = hull[::-1]
    first = int(np.lexsort((hull[:, 0], hull[:, 1]))[0])
    return np.concatenate([hull[first:], hull[:first]])


def polygon_area(polygon: np.ndarray) -> float:
    """Signed shoelace area in px², positive when clockwise on the screen; 0 below 3 corners."""
    if len(polygon) < 3:
        return 0.0
    # Relative to the first corner: small polygons far from the origin keep their digits.
    x, y = (np.asarray(polygon, np.float64)[1:] - np.asarray(polygon, np.float64)[0]).T
    return float(x[:-1] @ y[1:] - y[:-1] @ x[1:]) / 2


def clip_polygon(polygon: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The part of a convex polygon inside an image, (K', 2) float32 in the same order.

    The image reaches from the centre of its first pixel to the centre of its last one: every
    corner that is returned is at a pixel that can be drawn.

    Args:
        polygon: (K, 2) corners; K may be 0, 1 (a point) or 2 (a segment).
        size: (width, height) px of the image.
    """
    points = np.asarray(polygon, np.float64).reshape(-1, 2)
    if np.all((points >= 0) & (points <= np.subtract(size, 1))):
        return points.astype(np.float32)
    corners = points.tolist()
    for axis in (0, 1):
        corners = _clip_side(corners, axis, 0.0, 1)
        corners = _clip_side(corners, axis, float(size[axis] - 1), -1)
    clipped = np.array(corners, np.float32).reshape(-1, 2)
    if len(clipped) < 2:
        return clipped
    is_new = np.any(clipped[1:] != clipped[:-1], axis=1)
    closes = np.array_equal(clipped[0], clipped[-1])
    clipped = clipped[np.concatenate([[True], is_new])]
    return np.asarray(clipped[:-1] if closes and len(clipped) > 1 else clipped)


def _clip_side(corners: list[list[float]], axis: int, limit: float, sign: int) -> list[list[float]]:
    """Corners of the part above (sign 1) or below (sign -1) ``limit`` on one axis."""
    kept = []
    for before, corner in zip([*corners[-1:], *corners[:-1]], corners, strict=True):
        is_inside = sign * corner[axis] >= sign * limit
        if is_inside != (sign * before[axis] >= sign * limit):
            share = (limit - before[axis]) / (corner[axis] - before[axis])
            crossing = [
                start + share * (end - start) for start, end in zip(before, corner, strict=True)
            ]
            crossing[axis] = limit
            kept.append(crossing)
        if is_inside:
            kept.append(corner)
    return kept


def receptive_box_centres(height: int, width: int, stride: int, scale: float) -> np.ndarray:
    """Centres (height * width, 2) float32 of the receptive boxes of a feature map.

    The centre of cell ``(x, y)`` is ``stride * (x, y) / scale``: the padding of the network
    cancels half of its receptive field.

    Args:
        height: Rows of the feature map.
        width: Columns of the feature map.
        stride: Pixels of the scaled image from one cell to the next.
        scale: Pyramid scale of the scaled image.

    Returns:
        (x, y) px of the image before scaling, row by row: x changes fastest.
    """
    y, x = np.mgrid[:height, :width]
    cells = np.stack([x, y], axis=-1).reshape(-1, 2).astype(np.float64)
    return (stride * cells / scale).astype(np.float32)
