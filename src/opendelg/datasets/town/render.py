"""Taking the photo: surfaces drawn from far to near, then what lens and sensor do."""

from collections.abc import Iterable, Iterator
from functools import lru_cache

import cv2
import numpy as np

from opendelg.datasets.town import props
from opendelg.datasets.town.buildings import Building
from opendelg.datasets.town.light import Light, opposite_roofs, paint_sky, shadow_on
from opendelg.datasets.town.scene import Place, View, backdrop, make_place, plan_view
from opendelg.datasets.town.surfaces import (
    Camera,
    Surface,
    draw_surface,
    polygon_mask,
    visible_outline,
)

SIZE = (480, 360)  # (width, height) px
_LENS = 7  # tells the lens's random numbers from those of the view


def render_places(
    seed: int = 0, num_places: int = 24, views_per_place: int = 5, size: tuple[int, int] = SIZE
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Photos of a town for training, place by place.

    Args:
        seed: Another seed is another town with other fronts.
        num_places: May be any number; fronts never repeat.
        views_per_place: Photos of each place.
        size: (width, height) px.

    Yields:
        Place, view and pixels (H, W, 3) uint8 RGB.
    """
    for index in range(num_places):
        place = make_place(seed, index)
        for view in range(views_per_place):
            yield index, view, render_view(place, view, size)


def render_view(place: Place, view: int, size: tuple[int, int] = SIZE, seed: int = 0) -> np.ndarray:
    """One photo, bit for bit the same for the same arguments on one machine.

    Args:
        place: What to photograph.
        view: Number of the view.
        size: (width, height) px.
        seed: Another seed chooses other standpoints, hours and passers-by.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    plan = plan_view(place, view, size, seed)
    rng = np.random.default_rng((place.seed, seed, _LENS, place.index, view))
    image = np.empty((size[1], size[0], 3), np.float32)
    paint_sky(image, plan.camera, plan.light, rng)
    roofs = opposite_roofs(plan.light, rng)
    _draw(image, backdrop(), plan)
    _draw_street(image, place, plan, roofs)
    position = plan.camera.position
    for left, right, building in sorted(
        place.houses, key=lambda row: -max(row[0] - position[0], position[0] - row[1], 0.0)
    ):
        if visible_outline(_bounds(left, right, building), plan.camera).size:
            _draw(image, building.body, plan, roofs)
            for part in sorted(building.details, key=lambda part: -_distance(part, plan.camera)):
                _draw(image, part, plan)
    _draw_props(image, place, plan)
    if plan.light.glow > 0.5:
        _light_lamps(image, place, plan.camera)
    return _expose(image, plan.light, rng)


def _bounds(left: float, right: float, building: Building) -> np.ndarray:
    top = building.height
    return np.array([[left, 0, 0], [left, top, 0], [right, top, 0], [right, 0, 0]], np.float64)


def _distance(part: Iterable[Surface], camera: Camera) -> float:
    centres = np.array([surface.centre for surface in part])
    return float(np.linalg.norm(centres.mean(axis=0) - camera.position))


def _draw(
    image: np.ndarray, surfaces: Iterable[Surface], plan: View, roofs: np.ndarray | None = None
) -> None:
    light = plan.light
    for surface in surfaces:
        if surface.faces(plan.camera):
            distance = float(np.linalg.norm(surface.centre - plan.camera.position))
            falling = light.on(surface.normal)
            shadow = shadow_on(surface, light, roofs)
            haze = light.haze_at(distance)
            draw_surface(image, surface, plan.camera, falling, haze, light.glow, shadow)


def _draw_street(image: np.ndarray, place: Place, plan: View, roofs: np.ndarray | None) -> None:
    _draw(image, place.street, plan)
    light = plan.light
    up = np.array([0.0, 1.0, 0.0])
    if light.sun.max() > 0:
        shade = float((light.in_shade(up) / light.on(up)).mean())
        if light.sun_direction[2] > 0:  # the houses' own shadow falls into the street
            reach = -light.sun_direction / light.sun_direction[1]
            for left, right, building in place.houses:
                top = np.array([[right, 0, 0], [left, 0, 0]]) + building.height * (reach + up)
                ground = np.vstack([[[left, 0.0, 0.0], [right, 0.0, 0.0]], top])
                _darken(image, ground, plan.camera, shade)
        elif roofs is not None:
            across = np.array([[-60.0, 0, -1.0], [60, 0, -1.0], [60, 0, -40], [-60, 0, -40]])
            _darken(image, across, plan.camera, shade)
    for _, x, z in (*place.trees, *plan.people):
        _contact(image, plan.camera, x, z, 0.45)
    for kind, x, z in plan.cars:
        _contact(image, plan.camera, x, z, props.car(kind)[1] / 2)
    for part in place.props[:1]:
        corners = np.concatenate([surface.corners() for surface in part])
        x, _, z = corners.mean(axis=0)
        _contact(image, plan.camera, x, z, 1.4)


def _contact(image: np.ndarray, camera: Camera, x: float, z: float, reach: float) -> None:
    turn = np.linspace(0, 2 * np.pi, 14)[:-1]
    for size in (1.0, 0.75):
        ring = np.stack([x + size * reach * np.cos(turn), 0 * turn,
                         z + size * min(reach, 0.9) * np.sin(turn)], 1)  # fmt: skip
        _darken(image, ring, camera, 0.72)


def _darken(image: np.ndarray, corners: np.ndarray, camera: Camera, factor: float) -> None:
    outline = visible_outline(corners, camera)
    found = (
        polygon_mask(cv2.convexHull(outline.astype(np.float32))[:, 0], camera.size)
        if len(outline)
        else None
    )
    if found is not None:
        rows, columns, mask = found
        image[rows, columns] *= 1 - (1 - factor) / 255 * mask[..., None].astype(np.float32)


def _draw_props(image: np.ndarray, place: Place, plan: View) -> None:
    camera = plan.camera
    items: list[list[Surface]] = [list(part) for part in place.props]
    items += [props.drawn(props.tree(kind), x, z, camera) for kind, x, z in place.trees]
    items += [props.drawn(props.lamp(), x, z, camera) for x, z in place.lamps]
    items += [props.drawn(props.car(kind), x, z) for kind, x, z in plan.cars]
    items += [props.drawn(props.person(kind), x, z, camera) for kind, x, z in plan.people]
    for item in sorted(items, key=lambda item: -_distance(item, camera)):
        _draw(image, item, plan)


def _light_lamps(image: np.ndarray, place: Place, camera: Camera) -> None:
    height, width = image.shape[:2]
    bulbs = np.array([(x, 3.9, z) for x, z in place.lamps])
    x, y = np.arange(width), np.arange(height)
    for bulb, pixel in zip(bulbs, camera.project(bulbs), strict=True):
        if np.isfinite(pixel).all():
            reach = 1.1 * camera.focal / float(np.linalg.norm(bulb - camera.position))
            row = np.exp(-(((y - pixel[1]) / reach) ** 2)).astype(np.float32)
            column = np.exp(-(((x - pixel[0]) / reach) ** 2)).astype(np.float32)
            halo = (row[:, None] * column[None])[..., None]
            image += halo * np.array([0.6, 0.48, 0.28], np.float32)


def _expose(image: np.ndarray, light: Light, rng: np.random.Generator) -> np.ndarray:
    """(H, W, 3) uint8: exposure, colour balance, vignetting, blur and noise of a plain camera."""
    height, width = image.shape[:2]
    wanted = 0.3 if light.hour == "night" else 0.54
    metered = float(image[height // 5 :, width // 6 : -width // 6].mean())
    gain = (wanted / max(metered, 0.05)) ** 0.6 * np.exp(rng.normal(0, 0.1))
    gain = gain * np.exp(rng.normal(0, 0.025, 3))
    x, y = np.linspace(-1, 1, width), np.linspace(-1, 1, height)
    corner = rng.uniform(0.0, 0.16)
    vignette = (1 - corner * (x[None] ** 2 + y[:, None] ** 2)).astype(np.float32)
    image *= vignette[..., None] * gain.astype(np.float32)
    blur = rng.uniform(0.0, 0.5) if rng.random() < 0.75 else rng.uniform(0.5, 0.85)
    if blur > 0.25:
        cv2.GaussianBlur(image, (0, 0), blur * width / 480, dst=image)
    grain = rng.uniform(0.004, 0.016) + 0.016 * (light.hour == "night")
    image += _grain(rng, image.shape) * np.float32(grain)
    return cv2.convertScaleAbs(image.clip(0, 1), alpha=255)


def _grain(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Noise of deviation 1, cut from a stock of it: fresh noise would take a fifth of the time."""
    stock, needed = _noise_stock(), int(np.prod(shape))
    start = int(rng.integers(len(stock)))
    return np.resize(np.concatenate([stock[start:], stock[:start]]), needed).reshape(shape)


@lru_cache(maxsize=1)
def _noise_stock() -> np.ndarray:
    return np.random.default_rng(700).standard_normal(700_001, dtype=np.float32)
