"""Houses, towers and monuments: painted fronts put on boxes, with roofs and what sticks out."""

from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from opendelg.datasets.town.artwork import INKS, signboard
from opendelg.datasets.town.canvas import Canvas, Colour, darker, lighter, mix
from opendelg.datasets.town.facades import paint_facade
from opendelg.datasets.town.materials import material
from opendelg.datasets.town.openings import paint_window
from opendelg.datasets.town.styles import FacadeStyle, generic_style
from opendelg.datasets.town.surfaces import Surface, Texture, box, plane

DENSITY = 44.0  # texels per m of a landmark's front; a view at 480 px shows 20 to 50 px per m
ROOFS: tuple[Colour, ...] = (
    (142, 70, 52),
    (120, 58, 48),
    (92, 92, 100),
    (78, 86, 96),
    (110, 84, 64),
)


@dataclass
class Building:
    """Surfaces with the street front in the plane z = 0 and the left edge at x = 0."""

    width: float  # m
    height: float  # m, of the front
    body: list[Surface] = field(default_factory=list)  # drawn first, in this order
    details: list[list[Surface]] = field(default_factory=list)  # boxes in front of the body

    def moved(self, x: float, z: float = 0.0) -> "Building":
        """The same building elsewhere."""
        body = [surface.moved(x=x, z=z) for surface in self.body]
        details = [[surface.moved(x=x, z=z) for surface in part] for part in self.details]
        return Building(self.width, self.height, body, details)


def opaque(pixels: np.ndarray) -> Texture:
    """A texture of (h, w, 3) pixels that sends out no light."""
    return Texture(np.dstack([pixels, np.zeros(pixels.shape[:2], np.uint8)]))


def plain(
    rng: np.random.Generator, name: str, width: float, height: float, density: float, colour: Colour
) -> Texture:
    """A texture of one material, lengths in metres."""
    shape = (max(4, round(height * density)), max(4, round(width * density)))
    return opaque(material(name, rng, shape, density, colour))


def house(
    rng: np.random.Generator,
    style: FacadeStyle,
    front: Canvas,
    depth: float = 9.0,
    roof: str = "slope",
    density: float = 24.0,
) -> Building:
    """A box behind a painted front, with a roof: "slope", "flat" or "gable"."""
    width, height = style.width, style.height
    building = Building(width, height)
    side = _side(rng, style, depth, density)
    texture = Texture(front.with_glow())
    faces = box((0, 0, 0), (width, height, depth), texture, side)
    tiles = plain(rng, "tiles", width, 5.0, density, ROOFS[rng.integers(len(ROOFS))])
    rise = depth / 2 * rng.uniform(0.75, 1.1)
    chimney = plain(rng, "brick", 0.8, 1.6, density, (136, 84, 66))
    if roof != "flat":
        for _ in range(int(rng.integers(1, 3))):
            x = rng.uniform(0.1, 0.85) * width
            y = height + 0.6 * rise
            building.body += box(
                (x, y, 3.4), (x + 0.8, y + 0.5 * rise + 0.8, 4.2), chimney, chimney
            )
    if roof == "slope":
        eaves = 0.35
        building.body.append(
            plane(tiles, (0, height + rise, depth / 2), (width, height + rise, depth / 2),
                  (0, height - 0.1, -eaves))
        )  # fmt: skip
        for x, back in ((0.0, depth), (width, 0.0)):
            building.body.append(
                gable_surface(side, (x, height, back), (x, height, depth - back), rise)
            )
        for _ in range(int(rng.integers(0, 4))):
            building.body += _dormer(rng, style, height, rise, depth)
    elif roof == "gable":
        building.body += _gable_roof(tiles, width, height, depth, 0.42 * width)
        building.body.append(_gable(rng, style, 0.42 * width, DENSITY))
    building.body += [faces[1], faces[2], replace(faces[0], is_facade=True)]
    return building


def _side(rng: np.random.Generator, style: FacadeStyle, depth: float, density: float) -> Texture:
    canvas = Canvas(depth, style.height, density, style.wall_colour)
    canvas.pixels[:] = material(
        style.wall, rng, canvas.glow.shape, density, mix(style.wall_colour, (128, 120, 112), 0.25)
    )
    for storey in range(style.storeys):
        _, y, w, h = style.window_box(0, storey)
        for x in np.arange(1.5, depth - 1.0 - w, 2.6):
            if rng.random() < 0.6:
                paint_window(canvas, style, rng, x, y, w, h)
    return Texture(canvas.with_glow())


def gable_surface(
    texture: Texture,
    start: tuple[float, float, float],
    end: tuple[float, float, float],
    rise: float,
) -> Surface:
    """An upright gable over the line from ``start`` (left as seen from outside) to ``end``."""
    origin = np.add(start, (0.0, rise, 0.0))
    outline = np.array([[0.5, 0.0], [1.0, 1.0], [0.0, 1.0]])
    across = np.subtract(end, start)
    return Surface(texture, origin, across, np.array([0.0, -rise, 0.0]), outline)


def _gable(rng: np.random.Generator, style: FacadeStyle, rise: float, density: float) -> Surface:
    canvas = Canvas(style.width, rise, density, style.wall_colour)
    canvas.pixels[:] = material(style.wall, rng, canvas.glow.shape, density, style.wall_colour)
    w, h = style.window
    paint_window(canvas, style, rng, style.width / 2 - w / 2, rise - h - 0.6, w, h)
    for edge in (0.0, style.width):
        line = [(edge, rise), (style.width / 2, 0.05)]
        canvas.line(line, darker(style.trim), 0.55)
        canvas.line(line, style.trim, 0.35)
    start, end = (0.0, style.height, 0.0), (style.width, style.height, 0.0)
    return replace(gable_surface(Texture(canvas.with_glow()), start, end, rise), is_facade=True)


def _gable_roof(
    tiles: Texture, width: float, height: float, depth: float, rise: float
) -> list[Surface]:
    middle, top = width / 2, height + rise
    return [
        plane(tiles, (middle, top, depth), (middle, top, 0), (0, height, depth)),
        plane(tiles, (middle, top, 0), (middle, top, depth), (width, height, 0)),
    ]


def _dormer(
    rng: np.random.Generator, style: FacadeStyle, height: float, rise: float, depth: float
) -> list[Surface]:
    canvas = Canvas(1.5, 1.6, DENSITY, style.trim)
    paint_window(canvas, replace(style, shutters=False), rng, 0.35, 0.45, 0.8, 0.95)
    x, z = rng.uniform(0.1, 0.8) * (style.width - 1.5), 0.22 * depth
    y = height + rise * 0.3
    lead = plain(rng, "boards", 2, 2, 20, (86, 88, 94))
    return box((x, y, z), (x + 1.5, y + 1.6, z + 2.2), Texture(canvas.with_glow()), lead)


def pyramid(
    tiles: Texture, x0: float, x1: float, y: float, depth: float, rise: float
) -> list[Surface]:
    """The three faces of a spire over a square tower that can be seen from the street."""
    peak = np.array([(x0 + x1) / 2, y + rise, depth / 2])
    foot = [
        np.array(p, np.float64) for p in ((x0, y, depth), (x0, y, 0), (x1, y, 0), (x1, y, depth))
    ]
    outline = np.array([[0.5, 0.0], [1.0, 1.0], [0.0, 1.0]])
    faces = []
    for start, end in pairwise(foot):
        down = (start + end) / 2 - peak
        origin = peak - (end - start) / 2
        faces.append(Surface(tiles, origin, end - start, down, outline))
    return faces


def add_balconies(building: Building, style: FacadeStyle, rng: np.random.Generator) -> None:
    """Put balconies with railings under some windows."""
    rail = Canvas(2.0, 1.1, 40, darker(style.wall_colour, 0.5))
    for x in np.arange(0.05, 2.0, float(rng.uniform(0.12, 0.25))):
        rail.rectangle(x, 0.08, 0.05, 0.9, style.accent)
    for y in (0.02, 0.85):
        rail.rectangle(0, y, 2.0, 0.1, lighter(style.accent, 0.2))
    slab = plain(rng, "plaster", 2, 0.3, 20, style.trim)
    texture = Texture(rail.with_glow())
    for storey in range(style.storeys):
        for bay in range(style.bays):
            if rng.random() < 0.4:
                x, y, w, h = style.window_box(bay, storey)
                foot = style.height - y - h - 0.15
                low, high = (x - 0.25, foot - 0.18, -0.75), (x + w + 0.25, foot, 0.0)
                building.details.append(box(low, high, slab, slab))
                building.details.append(
                    box((low[0], foot, -0.75), (high[0], foot + 0.85, 0.0), texture, texture)
                )


def add_sign(
    building: Building,
    style: FacadeStyle,
    rng: np.random.Generator,
    text: str,
    y: float,
    height: float,
) -> None:
    """Put a lettered board across the front, its lower edge ``y`` metres above the street."""
    width = style.width * 0.94
    board = signboard(rng, text, width, height, DENSITY * 1.2, INKS[rng.integers(len(INKS))])
    edge = plain(rng, "boards", 1, 1, 20, darker(style.accent))
    x = (style.width - width) / 2
    part = box((x, y, -0.22), (x + width, y + height, 0.0), Texture(board.with_glow()), edge)
    building.details.append(part)


def add_blade_sign(
    building: Building, rng: np.random.Generator, text: str, x: float, top: float
) -> None:
    """Hang an upright sign out over the street; it is read from both sides."""
    letters, colour = text[:8], INKS[rng.integers(len(INKS))]
    height = 0.75 * len(letters) + 0.5
    board = Canvas(1.1, height, DENSITY, colour)
    ink = (248, 240, 216) if sum(colour) < 400 else darker(colour, 0.8)
    corners = [(0.06, 0.06), (1.04, 0.06), (1.04, height - 0.06), (0.06, height - 0.06)]
    board.line(corners, ink, 0.06, closed=True)
    for row, letter in enumerate(letters):
        board.write(letter, 0.2, 0.3 + 0.75 * row, 0.7, 0.6, ink)
    board.glow[np.abs(board.pixels.astype(int) - ink).sum(-1) < 60] = 240
    texture = Texture(board.with_glow())
    low, high = (x, top - height, -1.4), (x + 0.25, top, -0.3)
    building.details.append(box(low, high, plain(rng, "plaster", 1, 1, 20, ink), texture))


def add_awnings(building: Building, style: FacadeStyle, rng: np.random.Generator) -> None:
    """Stretch striped cloth over the shop windows."""
    light, dark = (238, 230, 210), INKS[rng.integers(5)]
    width = style.bays * style.bay - 0.5
    cloth = Canvas(width, 1.5, DENSITY, light)
    for x in np.arange(0, width, 0.5):
        cloth.rectangle(x, 0, 0.25, 1.5, dark)
        cloth.disc(x + 0.125, 1.42, 0.13, dark)
    cloth.rectangle(0, 1.18, width, 0.04, darker(dark))
    top, low = style.ground - 0.75, style.ground - 1.45
    building.details.append(
        [plane(Texture(cloth.with_glow()), (0.25, top, -0.05), (0.25 + width, top, -0.05),
               (0.25, low, -1.15))]
    )  # fmt: skip


def ordinary(rng: np.random.Generator, density: float = 24.0) -> Building:
    """A plain house of the kinds that stand everywhere in town."""
    style = generic_style(rng)
    front = paint_facade(style, rng, density)
    roof = "slope" if rng.random() < 0.8 else "flat"
    return house(rng, style, front, roof=roof, density=0.6 * density)
