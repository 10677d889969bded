"""Places of the town: a landmark between ordinary houses, the street before it, and its views."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from opendelg.datasets.town import buildings, landmarks, props
from opendelg.datasets.town.artwork import WORDS
from opendelg.datasets.town.buildings import Building, opaque
from opendelg.datasets.town.canvas import Canvas
from opendelg.datasets.town.landmarks import Maker
from opendelg.datasets.town.light import Light, random_light
from opendelg.datasets.town.materials import material
from opendelg.datasets.town.surfaces import Camera, Surface, plane

# Name, how it is built, what its sign says.  The order mixes the kinds, so that few places differ.
LANDMARKS: tuple[tuple[str, Maker, str], ...] = (
    ("clock_tower", landmarks.town_tower, ""),
    ("café", landmarks.shop, "MIRABEL COFFEE"),
    ("old theatre", landmarks.temple, "OLD THEATRE"),
    ("bakery", landmarks.shop, "BAKERY"),
    ("st_anna_church", landmarks.church, ""),
    ("cinema", landmarks.cinema, "APOLLO"),
    ("town_hall", landmarks.hall, "TOWN HALL"),
    ("painted_wall", landmarks.mural, ""),
    ("city_gate", landmarks.gate, ""),
    ("bookshop", landmarks.shop, "OWL & INK BOOKS"),
    ("golden_lion_inn", landmarks.timber_house, "GOLDEN LION INN"),
    ("captains_statue", landmarks.shop, "CHANDLERY"),
    ("museum", landmarks.temple, "MUSEUM"),
    ("pharmacy", landmarks.shop, "PHARMACY"),
    ("railway_station", landmarks.hall, "RAILWAY STATION"),
    ("poster_column", landmarks.hall, "MUSIC SCHOOL"),
    ("hotel", landmarks.shop, "HOTEL BELLEVUE"),
    ("st_martin_church", landmarks.church, ""),
    ("watchmaker", landmarks.timber_house, "WATCHMAKER"),
    ("fish_market", landmarks.hall, "FISH MARKET"),
    ("playhouse", landmarks.cinema, "ODEON"),
    ("bank", landmarks.temple, "SAVINGS BANK"),
    ("toy_shop", landmarks.shop, "TOYS & KITES"),
    ("mill_wall", landmarks.mural, ""),
    ("fire_watch_tower", landmarks.town_tower, ""),
    ("flower_shop", landmarks.shop, "FLORIST LINDEN"),
    ("brewery", landmarks.hall, "BREWERY"),
    ("river_gate", landmarks.gate, ""),
    ("tailor", landmarks.timber_house, "TAILOR"),
    ("library", landmarks.temple, "LIBRARY"),
)

_TOWN, _VIEW, _STREET = 1, 2, 3  # what a random generator is for, so that none repeats another


@dataclass(frozen=True)
class Place:
    """Something to photograph: everything here stays the same from view to view."""

    name: str
    seed: int
    index: int
    houses: tuple[tuple[float, float, Building], ...]  # left and right edge in metres, side by side
    street: tuple[Surface, ...]
    props: tuple[tuple[Surface, ...], ...]  # of stone: statues, poster columns
    trees: tuple[tuple[int, float, float], ...]  # kind, x, z
    lamps: tuple[tuple[float, float], ...]  # x, z
    width: float  # m, of the landmark, whose middle is at x = 0 in the plane z = 0
    height: float  # m


@dataclass(frozen=True)
class View:
    """One photo of a place: what changes from view to view."""

    camera: Camera
    light: Light
    cars: tuple[tuple[int, float, float], ...]  # kind, x, z
    people: tuple[tuple[int, float, float], ...]  # kind, x, z


def place_name(index: int) -> str:
    """Name of the place of this number, the same in every town."""
    again, number = divmod(index, len(LANDMARKS))
    name = LANDMARKS[number][0]
    return f"{name}_{again + 1}" if again else name


def street_name(index: int) -> str:
    """Name of the ordinary street of this number."""
    return f"side_street_{index + 1}"


def make_place(seed: int, index: int) -> Place:
    """The place of this number in a town; beyond LANDMARKS their kinds come again."""
    rng = np.random.default_rng((seed, _TOWN, index))
    again, number = divmod(index, len(LANDMARKS))
    name, (_, maker, text) = place_name(index), LANDMARKS[number]
    if again and text:
        text = f"{rng.choice(WORDS)} {text.split()[-1]}"
    landmark = maker(rng, text)
    extras: list[list[Surface]] = []
    side = float(rng.choice([-1, 1]))
    if name.startswith("captains_statue"):
        extras = props.statue(rng, side * 1.5, -5.0)
    elif name.startswith("poster_column"):
        extras = props.poster_column(rng, side * 2.5, -4.5)
    elif rng.random() < 0.12:
        extras = props.poster_column(rng, side * 6.5, -2.2)
    return _furnish(name, seed, index, rng, landmark, extras)


def make_street(seed: int, index: int) -> Place:
    """Ordinary houses without anything that is worth a journey."""
    rng = np.random.default_rng((seed, _STREET, index))
    middle = [buildings.ordinary(rng, density=36.0) for _ in range(2)]
    return _furnish(street_name(index), seed, 100_000 + index, rng, middle, [])


def _furnish(
    name: str,
    seed: int,
    index: int,
    rng: np.random.Generator,
    middle: list[Building],
    extras: list[list[Surface]],
) -> Place:
    width = sum(building.width for building in middle)
    row: list[tuple[float, float, Building]] = []
    x = -width / 2
    for building in middle:
        row.append((x, x + building.width, building.moved(x)))
        x += building.width
    for direction in (-1, 1):
        edge = direction * width / 2
        for position in range(2):
            house = buildings.ordinary(rng, density=24.0 if position == 0 else 16.0)
            gap = 0.0 if rng.random() < 0.6 else rng.uniform(1.0, 3.5)
            left = edge + gap if direction > 0 else edge - gap - house.width
            row.append((left, left + house.width, house.moved(left, rng.uniform(0, 0.4))))
            edge = left + house.width if direction > 0 else left
    trees = [
        (
            int(rng.integers(props.NUM_TREES)),
            float(rng.choice([-1, 1]) * rng.uniform(0.3, 0.9) * width),
            -2.7,
        )
        for _ in range(int(rng.integers(0, 3)))
    ]
    lamps = [(float(direction * rng.uniform(0.3, 0.8) * width), -2.9) for direction in (-1, 1)]
    return Place(
        name=name,
        seed=seed,
        index=index,
        houses=tuple(row),
        street=_street(int(rng.integers(4))),
        props=tuple(tuple(part) for part in extras),
        trees=tuple(trees),
        lamps=tuple(lamps),
        width=width,
        height=max(building.height for building in middle),
    )


@lru_cache(maxsize=4)
def _street(kind: int) -> tuple[Surface, ...]:
    """Pavement, road and opposite pavement, of one of four kinds; 90 m long."""
    rng = np.random.default_rng(500 + kind)
    tile, density = 30.0, 24.0
    stone, road_stone = (
        ((118, 113, 106), (82, 81, 83)) if kind % 2 else ((128, 118, 106), (98, 90, 84))
    )
    strips = []
    for low, high in ((-3.2, 0.0), (-10.5, -3.2), (-40.0, -10.5)):
        is_road = high == -3.2
        canvas = Canvas(tile, high - low, density, stone)
        name = ("plaster" if kind < 2 else "rubble") if is_road else "paving"
        colour = road_stone if is_road else stone
        canvas.pixels[:] = material(name, rng, canvas.glow.shape, density, colour)
        if is_road:
            canvas.rectangle(0, 0, tile, 0.28, (182, 178, 170))
            canvas.rectangle(0, 0.22, tile, 0.08, (70, 68, 68))
            for x in np.arange(0.5, tile, 5.0) if kind < 2 else ():
                canvas.rectangle(x, (high - low) / 2, 2.5, 0.14, (214, 212, 200))
            canvas.disc(9.0, 2.2, 0.36, (66, 62, 62))
            canvas.disc(9.0, 2.2, 0.3, (92, 86, 84), 0.06)
        texture = opaque(canvas.pixels)
        for x in (-45.0, -15.0, 15.0):
            strips.append(plane(texture, (x, 0.0, high), (x + tile, 0.0, high), (x, 0.0, low)))
    court = opaque(material("paving", rng, (64, 64), 6.0, stone))
    strips.append(plane(court, (-150.0, 0.0, 70.0), (150.0, 0.0, 70.0), (-150.0, 0.0, 0.0)))
    return tuple(strips)


@lru_cache(maxsize=1)
def backdrop() -> tuple[Surface, ...]:
    """Roofs of the town and hills behind everything."""
    rng = np.random.default_rng(600)
    hills = props.Stencil(300.0, 34.0, 3.0, (112, 128, 124))
    x = np.linspace(0, 300, 60)
    ridge = 16 + 7 * np.sin(x / 31) + 4 * np.sin(x / 12 + 1) + rng.normal(0, 0.5, 60)
    hills.polygon([(0, 34), *zip(x, 34 - ridge, strict=True), (300, 34)], (112, 128, 124))
    for at in np.arange(0, 300, 6.0):
        foot, wide, tall = 34.0, rng.uniform(5, 9), rng.uniform(5, 11)
        colour = buildings.ROOFS[rng.integers(5)]
        wall = [(at, foot), (at, foot - tall), (at + wide, foot - tall), (at + wide, foot)]
        hills.polygon(wall, (168, 156, 140))
        peak = (at + wide / 2, foot - tall - 3)
        hills.polygon([(at - 0.5, foot - tall), peak, (at + wide + 0.5, foot - tall)], colour)
    texture = hills.texture()
    return (plane(texture, (-150.0, 34.0, 70.0), (150.0, 34.0, 70.0), (-150.0, 0.0, 70.0)),)


def plan_view(place: Place, view: int, size: tuple[int, int], seed: int = 0) -> View:
    """Where the photographer stands for view 0, 1, 2, ..., the hour, and who passes by.

    Views are taken from 32 degrees left to 32 degrees right of the middle; neighbours in the
    sequence are far apart.
    """
    rng = np.random.default_rng((place.seed, seed, _VIEW, place.index, view))
    start = np.random.default_rng((place.seed, _VIEW, place.index)).random()
    share = (start + 0.618 * view) % 1.0  # golden ratio: any few in a row are spread evenly
    azimuth = np.deg2rad(56 * (share - 0.5) + rng.uniform(-4, 4))
    distance = max(13.0, 1.0 * place.width, 1.25 * place.height) * rng.uniform(0.85, 1.2)
    zoom = float(np.exp(rng.uniform(np.log(0.7), np.log(1.6))))
    eye = rng.uniform(1.5, 2.2) if rng.random() < 0.75 else rng.uniform(3.0, 6.0)
    target = (
        float(rng.normal(0, 0.07) * place.width),
        float(rng.uniform(0.42, 0.56) * place.height),
        0.0,
    )
    position = (float(distance * np.sin(azimuth)), float(eye), float(-distance * np.cos(azimuth)))
    roll = rng.normal(0, 2.0) if rng.random() < 0.85 else rng.uniform(-12, 12)
    camera = Camera.looking_at(position, target, float(roll), 0.86 * max(size) * zoom, size)
    light = random_light(rng)
    nearest = position[2] + 6.5
    cars = _passing(rng, props.NUM_CARS, (0.55, 0.3, 0.15), -9.5, -4.8, nearest)
    people = _passing(rng, props.NUM_PEOPLE, (0.2, 0.2, 0.2, 0.2, 0.1, 0.1), -9.0, -0.8, nearest)
    return View(camera, light, cars, people)


def _passing(
    rng: np.random.Generator,
    kinds: int,
    shares: tuple[float, ...],
    low: float,
    high: float,
    nearest: float,
) -> tuple[tuple[int, float, float], ...]:
    count = int(rng.choice(len(shares), p=shares))
    found = [
        (int(rng.integers(kinds)), float(rng.uniform(-9, 9)), float(rng.uniform(low, high)))
        for _ in range(count)
    ]
    return tuple(one for one in found if one[2] > nearest)
