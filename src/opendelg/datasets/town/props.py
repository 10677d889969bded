"""What stands in the street: trees, lamps, cars, people, statues and poster columns."""

from functools import lru_cache
from itertools import pairwise

import numpy as np

from opendelg.datasets.town.artwork import INKS, poster
from opendelg.datasets.town.buildings import opaque, plain
from opendelg.datasets.town.canvas import Canvas, Colour, darker, lighter, mix
from opendelg.datasets.town.materials import noise
from opendelg.datasets.town.surfaces import Camera, Surface, Texture, box, plane, standing

NUM_TREES, NUM_CARS, NUM_PEOPLE = 1000, 60, 60  # different drawings of each


class Stencil:
    """A canvas with a transparent ground: everything is drawn on colour and opacity alike."""

    def __init__(self, width: float, height: float, density: float, ground: Colour) -> None:
        self.colour = Canvas(width, height, density, ground)
        self.opacity = Canvas(width, height, density, (0, 0, 0))

    def disc(self, x: float, y: float, radius: float, colour: Colour) -> None:
        """Fill a disc."""
        self.colour.disc(x, y, radius, colour)
        self.opacity.disc(x, y, radius, (255, 255, 255))

    def polygon(self, points: object, colour: Colour) -> None:
        """Fill a polygon (K, 2)."""
        self.colour.polygon(points, colour)
        self.opacity.polygon(points, (255, 255, 255))

    def line(self, points: object, colour: Colour, thick: float) -> None:
        """Draw a line through points (K, 2)."""
        self.colour.line(points, colour, thick)
        self.opacity.line(points, (255, 255, 255), thick)

    def texture(self) -> Texture:
        """The drawing as a texture with holes."""
        pixels = np.dstack([self.colour.pixels, self.opacity.pixels[..., 0]])
        return Texture(pixels, is_cutout=True)


@lru_cache(maxsize=4)
def _foliage(kind: int) -> np.ndarray:
    """(h, w, 3) uint8 of leaves, of which crowns are cut."""
    rng = np.random.default_rng(100 + kind)
    greens: tuple[Colour, ...] = ((70, 108, 50), (92, 120, 54), (52, 92, 58), (156, 112, 46))
    sheet = Canvas(12.0, 12.0, 36, darker(greens[kind], 0.55))
    for depth in np.linspace(0.5, 0.0, 3000):
        tone = darker(greens[kind], float(depth)) if depth > 0.12 else lighter(greens[kind], 0.25)
        x, y = rng.random(2) * 12
        sheet.disc(x, y, rng.uniform(0.04, 0.14), tone)
    return sheet.pixels


@lru_cache(maxsize=64)
def tree(kind: int) -> tuple[Texture, float, float]:
    """A tree of one of NUM_TREES kinds, its width and its height in metres."""
    rng = np.random.default_rng((101, kind))
    width, height = float(rng.uniform(3.0, 4.6)), float(rng.uniform(5.0, 7.5))
    bark: Colour = (84, 66, 52)
    drawing, middle, crown = Stencil(width, height, 36, bark), width / 2, 0.36 * height
    trunk = [
        (middle - 0.18, height),
        (middle - 0.08, 1.5),
        (middle + 0.08, 1.5),
        (middle + 0.2, height),
    ]
    drawing.polygon(trunk, bark)
    for branch in range(7):
        tip = (rng.uniform(0.15, 0.85) * width, rng.uniform(0.08, 0.5) * height)
        drawing.line([(middle, 0.75 * height - 0.15 * branch), tip], bark, 0.09)
    if rng.random() < 0.12:  # bare in winter
        return drawing.texture(), width, height
    pixels, opacity = drawing.colour.pixels, drawing.opacity.pixels
    rows, columns = pixels.shape[:2]
    leaves = np.rot90(_foliage(int(rng.integers(4))), int(rng.integers(4)))
    top, left = rng.integers(leaves.shape[0] - rows), rng.integers(leaves.shape[1] - columns)
    x = (np.arange(columns) / 36 - middle) / (0.46 * width)
    y = (np.arange(rows)[:, None] / 36 - crown) / (0.34 * height)
    turn = np.arctan2(y, x[None])
    lobes = (
        0.9 + 0.1 * np.sin(5 * turn + rng.random() * 6) + 0.06 * np.sin(9 * turn + rng.random() * 6)
    )
    inside = np.hypot(x, y) + 0.09 * noise(rng, (rows, columns), 8) < lobes
    sunlit = (0.95 - 0.28 * y - 0.12 * x)[..., None]
    crowned = leaves[top : top + rows, left : left + columns] * sunlit
    pixels[inside] = crowned.clip(0, 255).astype(np.uint8)[inside]
    opacity[inside] = 255
    return drawing.texture(), width, height


@lru_cache(maxsize=NUM_CARS)
def car(kind: int) -> tuple[Texture, float, float]:
    """A car seen from the side, its length and its height in metres."""
    rng = np.random.default_rng(200 + kind)
    paint = mix(INKS[rng.integers(len(INKS))], INKS[rng.integers(len(INKS))], 0.3)
    length, height = (4.2, 1.5) if kind % 3 else (4.9, 2.1)
    drawing = Stencil(length, height, 48, darker(paint))
    hood, sill = (0.48 if kind % 3 else 0.42) * height, height - 0.25
    start, end = (0.24, 0.82) if kind % 3 else (0.16, 0.97)
    nose = rng.uniform(0.04, 0.1) * length
    body = [(0.05, hood + 0.12), (nose, hood), (length - nose, hood), (length - 0.05, hood + 0.15)]
    drawing.polygon([*body, (length - 0.03, sill), (0.03, sill)], paint)
    cabin = [(start * length, hood + 0.02), ((start + 0.11) * length, 0.04)]
    cabin += [((end - 0.1) * length, 0.04), (end * length, hood + 0.02)]
    drawing.polygon(cabin, lighter(paint, 0.12))
    inner = np.array(cabin)
    glass = inner.mean(0) + (inner - inner.mean(0)) * (0.88, 0.76)
    drawing.polygon(glass, (58, 70, 82))
    drawing.line([(glass[0] + glass[3]) / 2, (glass[1] + glass[2]) / 2], paint, 0.09)
    drawing.line([(0.1, hood + 0.25), (length - 0.1, hood + 0.25)], lighter(paint, 0.35), 0.04)
    drawing.line([(0.05, sill), (length - 0.05, sill)], (30, 30, 32), 0.09)
    door = 0.5 * length
    drawing.line([(door, hood), (door, sill - 0.08)], darker(paint), 0.025)
    drawing.line([(door + 0.1, hood + 0.16), (door + 0.35, hood + 0.16)], (210, 210, 212), 0.05)
    drawing.disc(0.12, hood + 0.24, 0.1, (250, 236, 190))
    drawing.disc(length - 0.12, hood + 0.26, 0.09, (190, 30, 30))
    for x in (0.19 * length, 0.81 * length):
        drawing.disc(x, height - 0.33, 0.32, (26, 26, 28))
        drawing.disc(x, height - 0.33, 0.18, (168, 170, 176))
        drawing.disc(x, height - 0.33, 0.07, (60, 62, 66))
    return drawing.texture(), length, height


@lru_cache(maxsize=NUM_PEOPLE)
def person(kind: int) -> tuple[Texture, float, float]:
    """Somebody walking by, the width of the drawing and their height in metres."""
    rng = np.random.default_rng(300 + kind)
    height, width = float(rng.uniform(1.55, 1.9)), 0.9
    coat, legs = INKS[rng.integers(len(INKS))], darker(INKS[rng.integers(len(INKS))], 0.4)
    skin = ((228, 180, 146), (164, 110, 78), (110, 72, 52))[rng.integers(3)]
    drawing = Stencil(width, height, 60, darker(coat))
    x, hip, neck, stride = width / 2, 0.52 * height, 0.17 * height, float(rng.uniform(0.08, 0.26))
    drawing.line(
        [(x, hip), (x - stride, height - 0.05), (x - stride + 0.1, height - 0.03)], legs, 0.13
    )
    drawing.line(
        [(x, hip), (x + stride, height - 0.05), (x + stride + 0.1, height - 0.03)], legs, 0.13
    )
    flare = rng.uniform(0.16, 0.3)
    shoulders = [(x - 0.2, neck + 0.06), (x + 0.2, neck + 0.06)]
    drawing.polygon([*shoulders, (x + flare, hip + 0.12), (x - flare, hip + 0.12)], coat)
    for side in (-1, 1):
        hand = (x + side * (0.24 + 0.5 * stride), hip + 0.04)
        drawing.line([(x + side * 0.18, neck + 0.1), hand], darker(coat, 0.2), 0.09)
        drawing.disc(*hand, 0.05, skin)
    drawing.disc(x, 0.09 * height, 0.115, skin)
    drawing.disc(
        x, 0.07 * height, 0.11, ((40, 30, 26), (120, 84, 50), (200, 190, 180))[rng.integers(3)]
    )
    drawing.disc(x + 0.03, 0.1 * height, 0.08, skin)
    if rng.random() < 0.4:
        bag = [
            (x + 0.2, hip - 0.02),
            (x + 0.42, hip - 0.02),
            (x + 0.42, hip + 0.28),
            (x + 0.2, hip + 0.28),
        ]
        drawing.polygon(bag, INKS[rng.integers(len(INKS))])
    return drawing.texture(), width, height


@lru_cache(maxsize=1)
def lamp() -> tuple[Texture, float, float]:
    """A street lamp, the width of the drawing and its height in metres."""
    drawing = Stencil(0.8, 4.4, 48, (40, 44, 46))
    iron: Colour = (44, 52, 50)
    drawing.line([(0.4, 0.7), (0.4, 4.4)], iron, 0.1)
    drawing.polygon([(0.22, 4.4), (0.3, 3.7), (0.5, 3.7), (0.58, 4.4)], iron)
    drawing.polygon([(0.24, 0.25), (0.56, 0.25), (0.48, 0.75), (0.32, 0.75)], (250, 240, 206))
    drawing.polygon([(0.16, 0.27), (0.4, 0.04), (0.64, 0.27)], iron)
    drawing.line([(0.1, 1.2), (0.7, 1.2)], iron, 0.06)
    return drawing.texture(), 0.8, 4.4


def drawn(
    drawing: tuple[Texture, float, float],
    x: float,
    z: float,
    camera: Camera | None = None,
    scale: float = 1.0,
) -> list[Surface]:
    """A drawing put up in the street, turned to the camera if that is given."""
    texture, width, height = drawing
    return [standing(texture, (x, 0.0, z), width * scale, height * scale, camera)]


def statue(rng: np.random.Generator, x: float, z: float) -> list[list[Surface]]:
    """Somebody of stone on a lettered pedestal."""
    stone = mix(
        ((160, 156, 146), (112, 140, 126), (150, 122, 92))[rng.integers(3)], (128, 128, 128), 0.2
    )
    base = Canvas(2.0, 2.2, 48, lighter(stone, 0.15))
    base.pixels[:] = plain(rng, "ashlar", 2.0, 2.2, 48, lighter(stone, 0.15)).levels[0][..., :3]
    base.rectangle(0.2, 0.35, 1.6, 1.0, darker(stone, 0.5))
    for row, word in enumerate(("ANNO " + str(rng.integers(1600, 1950)), "CAPTAIN", "VERDANT")):
        base.write(word, 0.3, 0.42 + 0.3 * row, 1.4, 0.22, (226, 204, 140))
    base.rectangle(0, 0, 2.0, 0.2, lighter(stone, 0.3))
    base.rectangle(0, 1.9, 2.0, 0.3, darker(stone, 0.2))
    front, rock = Texture(base.with_glow()), plain(rng, "plaster", 1, 2, 40, stone)
    parts = [((-1.0, 0.0, -1.0), (1.0, 2.2, 1.0))]
    lean = float(rng.uniform(-0.15, 0.15))
    parts += [((-0.34, 2.2, -0.2), (-0.06, 3.2, 0.15)), ((0.06, 2.2, -0.2), (0.34, 3.2, 0.15))]
    parts += [((-0.45 + lean, 3.2, -0.26), (0.45 + lean, 4.3, 0.2))]
    parts += [((-0.2 + lean, 4.35, -0.2), (0.2 + lean, 4.8, 0.18))]
    parts += [((-0.3 + lean, 4.75, -0.3), (0.3 + lean, 4.9, 0.28))]
    arm = 0.45 if rng.random() < 0.5 else -0.7
    parts += [((arm + lean, 3.95, -1.1), (arm + lean + 0.25, 4.2, 0.1))]
    boxes = []
    for low, high in parts:
        texture = front if low[1] == 0.0 else rock
        at = ((low[0] + x, low[1], low[2] + z), (high[0] + x, high[1], high[2] + z))
        boxes.append(box(*at, texture, texture))
    return boxes


def poster_column(rng: np.random.Generator, x: float, z: float) -> list[list[Surface]]:
    """An eight-sided column pasted over with posters, under a small roof."""
    radius, height = 1.0, 3.1
    turns = np.arange(9) * np.pi / 4 + np.pi / 8
    ring = np.stack([x + radius * np.sin(turns), z - radius * np.cos(turns)], 1)
    side = float(np.hypot(*(ring[1] - ring[0])))
    faces = []
    for start, end in pairwise(ring):
        sheet = Canvas(side, height, 60, (196, 188, 170))
        sheet.paste(poster(rng, side - 0.06, 1.3, 60), 0.03, 0.12, side - 0.06, 1.3)
        sheet.paste(poster(rng, side - 0.06, 1.2, 60), 0.03, 1.46, side - 0.06, 1.2)
        corners = (
            (start[0], height, start[1]),
            (end[0], height, end[1]),
            (start[0], 0.0, start[1]),
        )
        faces.append(plane(opaque(sheet.pixels), *corners))
    lid = plain(rng, "boards", 2, 0.5, 30, (58, 84, 72))
    caps = []
    for start, end in pairwise(ring):
        low = (np.array([start, end]) - (x, z)) * 1.15 + (x, z)
        peak = np.array([x, height + 0.9, z])
        left, right = (
            np.array([low[0, 0], height, low[0, 1]]),
            np.array([low[1, 0], height, low[1, 1]]),
        )
        outline = np.array([[0.5, 0.0], [1.0, 1.0], [0.0, 1.0]])
        origin = peak - (right - left) / 2
        caps.append(Surface(lid, origin, right - left, (left + right) / 2 - peak, outline))
    return [faces, caps]
