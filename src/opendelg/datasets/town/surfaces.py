"""Textured planes in space, a pinhole camera, and drawing one with the other.

World coordinates are metres: x to the right along the street, y up, z away from the street into
the buildings, so that facades lie in the plane z = 0 and cameras stand at negative z.  Colours are
RGB.  Pixel centres of pictures and textures are whole numbers, as everywhere in this project.
"""

from dataclasses import dataclass, field
from functools import cached_property

import cv2
import numpy as np

NEAR = 0.3  # m, whatever is closer to the camera is cut off
_FIXED = 16  # sub-pixel steps of OpenCV's polygon filling, 2 ** 4
UNIT_SQUARE = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float64)

Point = tuple[float, float, float]


@dataclass(frozen=True)
class Camera:
    """A pinhole camera without distortion."""

    position: np.ndarray  # (3,) float64, m
    rotation: np.ndarray  # (3, 3) float64, rows: right, down and forward of the camera in the world
    focal: float  # px
    size: tuple[int, int]  # (width, height) px

    @classmethod
    def looking_at(
        cls, position: Point, target: Point, roll_deg: float, focal: float, size: tuple[int, int]
    ) -> "Camera":
        """The camera at ``position`` with ``target`` in its centre, turned by ``roll_deg``."""
        forward = np.subtract(target, position) / np.linalg.norm(np.subtract(target, position))
        right = np.cross([0.0, 1.0, 0.0], forward)
        right /= np.linalg.norm(right)
        down = -np.cross(forward, right)
        roll = np.deg2rad(roll_deg)
        turned_right = np.cos(roll) * right + np.sin(roll) * down
        turned_down = np.cos(roll) * down - np.sin(roll) * right
        rotation = np.stack([turned_right, turned_down, forward])
        return cls(np.asarray(position, np.float64), rotation, focal, size)

    @cached_property
    def intrinsics(self) -> np.ndarray:
        """(3, 3) float64 matrix from camera coordinates to homogeneous pixels."""
        width, height = self.size
        return np.array(
            [[self.focal, 0, (width - 1) / 2], [0, self.focal, (height - 1) / 2], [0, 0, 1]]
        )

    def project(self, points: np.ndarray) -> np.ndarray:
        """Pixels (N, 2) float64 of world points (N, 3); NaN for points behind the camera."""
        homogeneous = (np.asarray(points) - self.position) @ self.rotation.T @ self.intrinsics.T
        depth = homogeneous[:, 2:]
        visible = depth > NEAR
        pixels = homogeneous[:, :2] / np.where(visible, depth, 1.0)
        return np.asarray(np.where(visible, pixels, np.nan))


class Texture:
    """A picture with its smaller versions, so that distant surfaces do not flicker.

    The fourth channel is opacity where ``is_cutout``, otherwise the light that the texel sends out
    by itself (a lit window at night).
    """

    def __init__(self, pixels: np.ndarray, is_cutout: bool = False) -> None:
        self.is_cutout = is_cutout
        self.levels = [pixels]  # (h, w, 4) uint8 each, half the size of the one before
        while min(self.levels[-1].shape[:2]) >= 8:
            height, width = self.levels[-1].shape[:2]
            half = (max(1, width // 2), max(1, height // 2))
            self.levels.append(cv2.resize(self.levels[-1], half, interpolation=cv2.INTER_AREA))

    def level(self, shrinking: float) -> np.ndarray:
        """The version for texels that are ``shrinking`` times as dense as the picture's pixels."""
        best = round(np.log2(max(shrinking, 1.0)) - 0.15)  # a little on the sharp side
        return self.levels[int(np.clip(best, 0, len(self.levels) - 1))]


@dataclass(frozen=True)
class Surface:
    """A textured parallelogram, or the convex part of it inside ``outline``."""

    texture: Texture
    origin: np.ndarray  # (3,) float64, world position of the texture's top left corner
    across: np.ndarray  # (3,) float64, from there to the top right corner
    down: np.ndarray  # (3,) float64, from there to the bottom left corner
    outline: np.ndarray = field(default_factory=lambda: UNIT_SQUARE)  # (K, 2), shares of the above
    is_facade: bool = False  # catches the shadows of the houses across the street

    @cached_property
    def normal(self) -> np.ndarray:
        """(3,) float64 unit vector out of the side on which the texture is painted."""
        (ax, ay, az), (bx, by, bz) = self.across, self.down  # np.cross is slow on single vectors
        normal = np.array([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx])
        unit: np.ndarray = normal / np.sqrt(normal @ normal)
        return unit

    @property
    def centre(self) -> np.ndarray:
        """(3,) float64 world position of the middle."""
        return np.asarray(self.origin + (self.across + self.down) / 2)

    def corners(self) -> np.ndarray:
        """(K, 3) float64 world positions of the outline."""
        return np.asarray(self.origin + self.outline @ np.stack([self.across, self.down]))

    def faces(self, camera: Camera) -> bool:
        """Whether the painted side is turned to the camera."""
        return bool(self.normal @ (camera.position - self.origin) > 0)

    def moved(self, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> "Surface":
        """The same surface elsewhere."""
        origin = self.origin + np.array([x, y, z])
        return Surface(self.texture, origin, self.across, self.down, self.outline, self.is_facade)


def plane(
    texture: Texture, top_left: Point, top_right: Point, bottom_left: Point, is_facade: bool = False
) -> Surface:
    """The whole parallelogram through three corners of a texture."""
    origin = np.asarray(top_left, np.float64)
    return Surface(
        texture,
        origin,
        np.asarray(top_right, np.float64) - origin,
        np.asarray(bottom_left, np.float64) - origin,
        is_facade=is_facade,
    )


def visible_outline(corners: np.ndarray, camera: Camera) -> np.ndarray:
    """Pixels (K, 2) float64 of a convex polygon (K', 3) in space, cut off near the camera."""
    points = (corners - camera.position) @ camera.rotation.T
    if (points[:, 2] <= NEAR).any():
        points = _in_front(points)
    if len(points) < 3:
        return np.zeros((0, 2))
    homogeneous = points @ camera.intrinsics.T
    pixels: np.ndarray = homogeneous[:, :2] / homogeneous[:, 2:]
    return pixels


def _in_front(points: np.ndarray) -> np.ndarray:
    """The part of a convex polygon (K, 3) in camera coordinates that is not too near."""
    kept: list[np.ndarray] = []
    for number, start in enumerate(points):
        end = points[(number + 1) % len(points)]
        if start[2] > NEAR:
            kept.append(start)
        if (start[2] > NEAR) != (end[2] > NEAR):
            kept.append(start + (end - start) * (NEAR - start[2]) / (end[2] - start[2]))
    return np.array(kept).reshape(-1, 3)


def polygon_mask(
    outline: np.ndarray, size: tuple[int, int]
) -> tuple[slice, slice, np.ndarray] | None:
    """Rows, columns and (h, w) uint8 coverage of a convex polygon; None if outside the picture."""
    if len(outline) < 3:
        return None
    width, height = size
    (low_x, low_y), (high_x, high_y) = outline.min(axis=0).tolist(), outline.max(axis=0).tolist()
    left, top = int(max(low_x - 1, 0)), int(max(low_y - 1, 0))
    right, bottom = int(min(high_x + 2, width)), int(min(high_y + 2, height))
    if left >= right or top >= bottom:
        return None
    mask = np.zeros((bottom - top, right - left), np.uint8)
    fixed = ((outline - (left, top)).clip(-20000, 20000) * _FIXED).round().astype(np.int32)
    cv2.fillConvexPoly(mask, fixed, 255, cv2.LINE_AA, 4)
    return slice(top, bottom), slice(left, right), mask


def polygon_area(outline: np.ndarray) -> float:
    """Area of a polygon (K, 2) in its own unit, squared."""
    x, y = outline[:, 0], outline[:, 1]
    doubled = x[:-1] @ y[1:] - y[:-1] @ x[1:] + x[-1] * y[0] - y[-1] * x[0]
    return float(abs(doubled) / 2)


def draw_surface(
    image: np.ndarray,
    surface: Surface,
    camera: Camera,
    light: np.ndarray,
    haze: tuple[float, np.ndarray],
    glow: float = 0.0,
    shadow: np.ndarray | None = None,
) -> None:
    """Paint a surface over what is already in ``image``.

    Args:
        image: (H, W, 3) float32, 1.0 is white; changed in place.
        surface: What to draw; the caller has checked that it faces the camera.
        camera: The view.
        light: (3,) light that falls on the surface.
        haze: Share of the haze between camera and surface in [0, 1], and its colour (3,).
        glow: Strength of the texture's own light.
        shadow: (h, w) float32 share of the light that arrives, on the texture; None for all.
    """
    outline = visible_outline(surface.corners(), camera)
    found = polygon_mask(outline, camera.size)
    if found is None:
        return
    rows, columns, mask = found
    height, width = surface.texture.levels[0].shape[:2]
    texels = polygon_area(surface.outline) * width * height
    pixels = surface.texture.level(np.sqrt(texels / max(polygon_area(outline), 1.0)))
    if shadow is not None:
        pixels = _shaded(pixels, shadow)
    matrix = image_from_texture(surface, camera, (pixels.shape[1], pixels.shape[0]))
    matrix = np.array([[1, 0, -columns.start], [0, 1, -rows.start], [0, 0, 1]]) @ matrix
    painted = cv2.warpPerspective(
        pixels,
        matrix,
        (mask.shape[1], mask.shape[0]),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    share, haze_colour = haze
    warm = np.array([1.0, 0.8, 0.45]) * (0.0 if surface.texture.is_cutout else glow)
    colour_from_texel = np.zeros((3, 5), np.float32)  # columns: red, green, blue, fourth, one
    colour_from_texel[:, :3] = np.diag(light * (1 - share) / 255)
    colour_from_texel[:, 3] = warm * (1 - share) / 255
    colour_from_texel[:, 4] = haze_colour * share
    colour = cv2.transform(painted.astype(np.float32), colour_from_texel)
    opacity = mask * np.float32(1 / 255)
    if surface.texture.is_cutout:
        opacity *= painted[..., 3] * np.float32(1 / 255)
    region = image[rows, columns]
    region[:] = cv2.blendLinear(colour, region, opacity, 1 - opacity)


def _shaded(pixels: np.ndarray, shadow: np.ndarray) -> np.ndarray:
    size = (pixels.shape[1], pixels.shape[0])
    fitting = cv2.resize(shadow, size, interpolation=cv2.INTER_LINEAR)
    shaded = cv2.multiply(
        pixels, cv2.merge([fitting] * 3 + [np.ones_like(fitting)]), dtype=cv2.CV_8U
    )
    return np.asarray(shaded)


def image_from_texture(surface: Surface, camera: Camera, size: tuple[int, int]) -> np.ndarray:
    """(3, 3) homography from texels of a version of ``size`` to pixels of the camera."""
    across, down = surface.across / size[0], surface.down / size[1]
    first_texel = surface.origin + (across + down) / 2 - camera.position
    world_from_texture = np.stack([across, down, first_texel], axis=1)
    matrix: np.ndarray = camera.intrinsics @ camera.rotation @ world_from_texture
    return matrix


def box(
    low: Point, high: Point, front: Texture, side: Texture, top: Texture | None = None
) -> list[Surface]:
    """Front, both sides, top and underside of an upright box; its back is never seen."""
    (x0, y0, z0), (x1, y1, z1) = low, high
    top = top or side
    return [
        plane(front, (x0, y1, z0), (x1, y1, z0), (x0, y0, z0)),
        plane(side, (x0, y1, z1), (x0, y1, z0), (x0, y0, z1)),
        plane(side, (x1, y1, z0), (x1, y1, z1), (x1, y0, z0)),
        plane(top, (x0, y1, z1), (x1, y1, z1), (x0, y1, z0)),
        plane(top, (x0, y0, z0), (x1, y0, z0), (x0, y0, z1)),
    ]


def standing(
    texture: Texture, foot: Point, width: float, height: float, camera: Camera | None = None
) -> Surface:
    """An upright picture with the middle of its lower edge at ``foot``.

    It is parallel to the facades, or turned to ``camera`` about its upright axis if that is given.
    """
    right = np.array([1.0, 0.0, 0.0])
    if camera is not None:
        towards = np.asarray(foot) - camera.position
        right = np.array([towards[2], 0.0, -towards[0]]) / np.hypot(towards[0], towards[2])
    origin = np.asarray(foot) - right * width / 2 + (0.0, height, 0.0)
    return Surface(texture, origin, right * width, np.array([0.0, -height, 0.0]))
