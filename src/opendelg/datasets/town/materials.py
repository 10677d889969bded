"""What walls, roofs and streets are made of: brick, stone, plaster, boards, tiles, asphalt."""

from functools import lru_cache

import cv2
import numpy as np

from opendelg.datasets.town.canvas import Colour

_FIELD_SIZE = 1024  # px, side of the noise field that all textures are cut from
MATERIALS = ("brick", "ashlar", "plaster", "boards", "rubble", "glazed")


@lru_cache(maxsize=8)
def _noise_field(cell: int) -> np.ndarray:
    """(S, S) float32 smooth noise of deviation about 1 with features of ``cell`` px and finer."""
    rng = np.random.default_rng(cell)
    total = np.zeros((_FIELD_SIZE, _FIELD_SIZE), np.float32)
    weight, size = 1.0, _FIELD_SIZE // cell
    for _ in range(4):
        coarse = rng.standard_normal((size, size), dtype=np.float32)
        shape = (_FIELD_SIZE, _FIELD_SIZE)
        total += weight * cv2.resize(coarse, shape, interpolation=cv2.INTER_CUBIC)
        weight, size = weight * 0.6, min(size * 2, _FIELD_SIZE)
    return np.asarray(total / total.std())


def noise(rng: np.random.Generator, shape: tuple[int, int], cell: int) -> np.ndarray:
    """(h, w) float32 cut from the noise field at a random place; cell 8, 64 or 256 px."""
    field = _noise_field(cell)
    height, width = min(shape[0], _FIELD_SIZE), min(shape[1], _FIELD_SIZE)
    y = int(rng.integers(_FIELD_SIZE - height + 1))
    x = int(rng.integers(_FIELD_SIZE - width + 1))
    cut = field[y : y + height, x : x + width]
    if cut.shape != shape:
        cut = cv2.resize(cut, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
    return cut


def material(
    name: str, rng: np.random.Generator, shape: tuple[int, int], density: float, colour: Colour
) -> np.ndarray:
    """(h, w, 3) uint8 of a material of MATERIALS, or "tiles" or "paving", around a colour.

    Args:
        name: Which material.
        rng: Source of what differs from wall to wall.
        shape: (h, w) texels.
        density: Texels per metre.
        colour: Its mean colour, before stains.
    """
    match name:
        case "brick":
            brightness = _courses(rng, shape, (0.3 * density, 0.1 * density), 0.08, 1.18)
        case "ashlar":
            brightness = _courses(rng, shape, (0.9 * density, 0.45 * density), 0.05, 0.75)
        case "rubble":
            brightness = _courses(rng, shape, (0.5 * density, 0.28 * density), 0.12, 0.7)
        case "boards":
            brightness = _courses(rng, shape, (4.0 * density, 0.2 * density), 0.06, 0.65)
        case "glazed":
            brightness = _courses(rng, shape, (0.25 * density, 0.25 * density), 0.07, 1.15)
        case "tiles":
            brightness = _courses(rng, shape, (0.3 * density, 0.3 * density), 0.12, 0.6)
        case "paving":
            brightness = _courses(rng, shape, (1.2 * density, 0.8 * density), 0.09, 0.62)
        case _:
            brightness = np.ones(shape, np.float32)
    brightness = brightness + 0.03 * noise(rng, shape, 8)
    stains = noise(rng, shape, 64)
    brightness *= 1 + 0.05 * noise(rng, shape, 256) + 0.035 * stains
    pixels = brightness[..., None] * np.asarray(colour, np.float32)
    pixels[..., 2] -= 4 * stains  # stains are warmer or colder, too
    pixels[..., 0] += 4 * stains
    return pixels.clip(0, 255).astype(np.uint8)


def _courses(
    rng: np.random.Generator,
    shape: tuple[int, int],
    block: tuple[float, float],
    variation: float,
    joint: float,
) -> np.ndarray:
    """(h, w) float32 brightness of blocks of (width, height) px in staggered rows."""
    height, width = shape
    rows, into_row = np.divmod(np.arange(height) / max(block[1], 2.0), 1.0)
    rows = rows.astype(int)
    shifts = rng.random(rows[-1] + 1) * 0.3 + 0.5 * (np.arange(rows[-1] + 1) % 2)
    position = np.arange(width) / max(block[0], 2.0) + shifts[rows][:, None]
    columns = position.astype(int)
    shades = 1 + variation * rng.standard_normal((rows[-1] + 1, columns.max() + 1))
    brightness = shades[rows[:, None], columns].astype(np.float32)
    joint_rows = into_row * block[1] < max(1.0, 0.07 * block[1])
    joint_columns = (position - columns) * block[0] < max(1.0, 0.03 * block[0])
    brightness[joint_columns | joint_rows[:, None]] = joint
    edge = (into_row * block[1] >= block[1] - 1) & ~joint_rows
    brightness[edge] *= 0.9
    return np.asarray(brightness)
