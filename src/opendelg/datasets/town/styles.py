"""How fronts differ: their division, materials and colours."""

from dataclasses import dataclass, replace

import numpy as np

from opendelg.datasets.town.canvas import Colour, mix

WALLS: tuple[Colour, ...] = (
    (196, 178, 142), (172, 104, 78), (206, 190, 166), (150, 158, 150), (198, 156, 96),
    (186, 128, 112), (140, 154, 172), (166, 176, 132), (212, 204, 190), (150, 84, 66),
    (176, 150, 156), (216, 186, 112), (122, 110, 100), (126, 146, 138), (202, 168, 140),
    (160, 140, 116),
)  # fmt: skip
TRIMS: tuple[Colour, ...] = (
    (232, 226, 210), (214, 200, 168), (120, 104, 88), (236, 232, 226), (96, 84, 78),
    (190, 176, 156),
)  # fmt: skip
ACCENTS: tuple[Colour, ...] = (
    (52, 88, 66), (112, 36, 34), (38, 58, 96), (96, 64, 38), (36, 96, 104),
    (54, 50, 54), (150, 110, 48),
)  # fmt: skip
SHAPES = ("flat", "arch", "pediment", "lintel")


@dataclass(frozen=True)
class FacadeStyle:
    """How a front is divided and what it is made of; lengths in metres."""

    bays: int = 4
    bay: float = 2.8
    storeys: int = 2  # above the ground floor
    ground: float = 3.8
    storey: float = 3.1
    wall: str = "plaster"
    wall_colour: Colour = WALLS[0]
    base: str = "ashlar"
    base_colour: Colour = WALLS[12]
    trim: Colour = TRIMS[0]
    accent: Colour = ACCENTS[0]
    shape: str = "flat"
    window: tuple[float, float] = (1.2, 1.9)
    panes: tuple[int, int] = (2, 3)
    ground_floor: str = "shop"  # or "doors", "arcade", "windows", "plain"
    shutters: bool = False
    quoins: bool = False
    timber: bool = False
    ornament: str = ""  # "", "panels", "medallions", "band"

    @property
    def width(self) -> float:
        """Width of the front in metres."""
        return self.bays * self.bay

    @property
    def height(self) -> float:
        """Height of the front up to the eaves in metres."""
        return self.ground + self.storeys * self.storey + 0.5

    def window_box(self, bay: int, storey: int) -> tuple[float, float, float, float]:
        """Left, top, width and height of a window above the ground floor, 0 is the lowest."""
        top = 0.5 + (self.storeys - 1 - storey) * self.storey
        width, height = self.window
        return (bay + 0.5) * self.bay - width / 2, top + 0.45, width, height


def random_style(rng: np.random.Generator) -> FacadeStyle:
    """A style whose parts go together."""
    storey = float(rng.uniform(2.9, 3.5))
    bay = float(rng.uniform(2.2, 3.1))
    wall = str(rng.choice(["plaster", "plaster", "brick", "brick", "ashlar", "boards", "rubble"]))
    return FacadeStyle(
        bays=int(rng.integers(3, 6)),
        bay=bay,
        storeys=int(rng.integers(2, 4)),
        ground=float(rng.uniform(3.5, 4.3)),
        storey=storey,
        wall=wall,
        wall_colour=WALLS[rng.integers(len(WALLS))],
        base=str(rng.choice(["ashlar", "rubble", "glazed", wall])),
        base_colour=mix(WALLS[rng.integers(len(WALLS))], (120, 112, 104), 0.4),
        trim=TRIMS[rng.integers(len(TRIMS))],
        accent=ACCENTS[rng.integers(len(ACCENTS))],
        shape=SHAPES[rng.integers(len(SHAPES))],
        window=(bay * float(rng.uniform(0.38, 0.52)), storey * float(rng.uniform(0.52, 0.64))),
        panes=(int(rng.integers(1, 4)), int(rng.integers(1, 5))),
        ground_floor=str(rng.choice(["shop", "doors", "arcade", "windows"])),
        shutters=bool(rng.random() < 0.35),
        quoins=bool(rng.random() < 0.4),
        ornament=str(rng.choice(["", "panels", "medallions", "band"])),
    )


def generic_style(rng: np.random.Generator) -> FacadeStyle:
    """One of a few kinds of plain houses that stand everywhere in town."""
    kind = np.random.default_rng(int(rng.integers(6)))
    style = random_style(kind)
    width, height = style.window
    return replace(
        style,
        bays=int(rng.integers(2, 5)),
        storeys=int(rng.integers(1, 4)),
        wall_colour=mix(style.wall_colour, WALLS[rng.integers(len(WALLS))], 0.4),
        trim=TRIMS[rng.integers(len(TRIMS))],
        window=(width * rng.uniform(0.85, 1.1), height * rng.uniform(0.9, 1.08)),
        panes=(int(rng.integers(1, 4)), int(rng.integers(1, 5))),
        ornament="",
        quoins=False,
    )
