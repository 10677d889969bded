"""Kinds of landmarks: each maker paints and builds one from random numbers and a sign's text."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from opendelg.datasets.town.artwork import INKS, artwork, clock, inks, poster, signboard
from opendelg.datasets.town.buildings import (
    DENSITY,
    Building,
    add_awnings,
    add_balconies,
    add_blade_sign,
    add_sign,
    gable_surface,
    house,
    plain,
    pyramid,
)
from opendelg.datasets.town.canvas import Canvas, darker, lighter, mix
from opendelg.datasets.town.facades import paint_facade
from opendelg.datasets.town.materials import material
from opendelg.datasets.town.openings import paint_arch, paint_door, paint_ledge, paint_window
from opendelg.datasets.town.styles import FacadeStyle, random_style
from opendelg.datasets.town.surfaces import Texture, box

Maker = Callable[[np.random.Generator, str], list[Building]]  # from the left to the right


def tower(
    rng: np.random.Generator, style: FacadeStyle, width: float, height: float, has_clock: bool
) -> Building:
    """A square tower with a spire; clocks or bells on top."""
    canvas = Canvas(width, height, DENSITY, style.wall_colour)
    canvas.pixels[:] = material(style.wall, rng, canvas.glow.shape, DENSITY, style.wall_colour)
    slim = replace(style, shutters=False, bays=1, bay=width)
    storeys = int(height / 3.6)
    for storey in range(storeys):
        y = height - (storey + 1) * height / storeys
        paint_ledge(canvas, 0, y, width, 0.25, style.trim)
        if storey == 0:
            paint_door(canvas, style, rng, width / 2, height, 1.5, 2.9)
        elif storey < storeys - 1 or not has_clock:
            count = 1 if rng.random() < 0.5 else 2
            for x in np.arange(1, count + 1) * width / (count + 1):
                paint_window(canvas, slim, rng, x - 0.4, y + 1.2, 0.8, 1.5)
    for edge in (0.0, width - 0.5):
        for row, y in enumerate(np.arange(0, height, 0.5)):
            stone = style.trim if row % 2 else darker(style.trim, 0.25)
            canvas.rectangle(edge, y, 0.5, 0.46, stone)
    if has_clock:
        size = min(0.8 * width, 3.0)
        dial = clock(rng, size, DENSITY, lighter(INKS[rng.integers(len(INKS))], 0.8))
        canvas.paste(dial, (width - size) / 2, 0.45, size, size)
        rows, columns = canvas.texels(0.45, (width - size) / 2)
        edge = canvas.texels(size)[0]
        canvas.glow[rows : rows + edge, columns : columns + edge] = dial[:edge, :edge, 3] // 2
    texture = Texture(canvas.with_glow())
    building = Building(width, height)
    copper = ((104, 146, 128), (92, 92, 100), (142, 70, 52))[rng.integers(3)]
    tiles = plain(rng, "tiles", width, 2 * width, 30, copper)
    building.body = box((0, 0, 0), (width, height, width), texture, texture)
    building.body[0] = replace(building.body[0], is_facade=True)
    cap = plain(rng, "ashlar", width, 0.5, 20, style.trim)
    corners = (-0.25, height, -0.25), (width + 0.25, height + 0.4, width + 0.25)
    building.body += box(*corners, cap, cap)[:-1]  # its underside would hide the wall below
    building.body += pyramid(tiles, 0, width, height + 0.4, width, width * rng.uniform(0.9, 1.8))
    return building


def shop(rng: np.random.Generator, text: str) -> list[Building]:
    """A house with a shop, its sign, and awnings or balconies."""
    style = replace(random_style(rng), ground_floor="shop", timber=bool(rng.random() < 0.3))
    front = paint_facade(style, rng, DENSITY)
    building = house(rng, style, front, roof=str(rng.choice(["slope", "slope", "gable", "flat"])))
    if rng.random() < 0.5:
        add_balconies(building, style, rng)
    if rng.random() < 0.5:
        add_awnings(building, style, rng)
    add_sign(building, style, rng, text, style.ground - 0.72, 0.78)
    if rng.random() < 0.5:
        x = 0.3 if rng.random() < 0.5 else style.width - 0.6
        add_blade_sign(building, rng, text.split()[0], x, style.height - 0.8)
    return [building]


def hall(rng: np.random.Generator, text: str) -> list[Building]:
    """A wide public building with a gable, a clock and its name in large letters."""
    style = replace(
        random_style(rng),
        bays=5,
        bay=float(rng.uniform(2.4, 2.9)),
        storeys=2,
        ornament="medallions",
        quoins=True,
        ground_floor=str(rng.choice(["arcade", "windows", "doors"])),
    )
    front = paint_facade(style, rng, DENSITY)
    building = house(rng, style, front, roof="gable")
    dial = clock(rng, 1.9, DENSITY, (240, 236, 220))
    board = Canvas(2.3, 2.3, DENSITY, style.trim)
    board.line(
        [(0.05, 0.05), (2.25, 0.05), (2.25, 2.25), (0.05, 2.25)], darker(style.trim), 0.1, True
    )
    board.paste(dial, 0.2, 0.2, 1.9, 1.9)
    edge = plain(rng, "ashlar", 1, 1, 20, style.trim)
    x, y = style.width / 2 - 1.15, style.height - 0.9
    part = box((x, y, -0.35), (x + 2.3, y + 2.3, 0), Texture(board.with_glow()), edge)
    building.details.append(part)
    add_sign(building, style, rng, text, style.ground - 0.75, 0.85)
    add_balconies(building, replace(style, storeys=1), rng)
    return [building]


def town_tower(rng: np.random.Generator, text: str) -> list[Building]:
    """A low house beside a tall tower with clocks."""
    style = random_style(rng)
    high = tower(rng, style, float(rng.uniform(4.0, 5.2)), float(rng.uniform(13, 16)), True)
    low_style = replace(style, bays=2, storeys=1)
    low = house(rng, low_style, paint_facade(low_style, rng, DENSITY))
    return [high, low] if rng.random() < 0.5 else [low, high]


def church(rng: np.random.Generator, text: str) -> list[Building]:
    """A gabled front with a rose window, and a bell tower."""
    style = replace(
        random_style(rng),
        bays=3,
        bay=float(rng.uniform(2.7, 3.3)),
        storeys=1,
        storey=4.2,
        ground=4.2,
        wall="ashlar",
        shape="arch",
        window=(1.1, 2.5),
        ground_floor="plain",
        shutters=False,
        ornament="",
    )
    front = paint_facade(style, rng, DENSITY)
    paint_arch(front, style, style.width / 2, style.height, 2.6, 3.9)
    centre = (style.width / 2, 0.5 + 1.9)
    front.disc(*centre, 1.65, style.trim)
    front.disc(*centre, 1.45, (44, 48, 60))
    glass = inks(rng, 4)
    for petal in range(12):
        turn = petal * np.pi / 6
        at = (centre[0] + 1.02 * np.cos(turn), centre[1] + 1.02 * np.sin(turn))
        front.disc(*at, 0.24, glass[petal % 3])
        front.line([centre, at], style.trim, 0.06)
    front.disc(*centre, 0.5, glass[3])
    building = house(rng, style, front, depth=14.0, roof="gable")
    belfry = tower(rng, style, 3.8, float(rng.uniform(12, 14)), bool(rng.random() < 0.5))
    return [belfry, building] if rng.random() < 0.5 else [building, belfry]


def temple(rng: np.random.Generator, text: str) -> list[Building]:
    """A portico of columns with a carved pediment."""
    style = replace(
        random_style(rng),
        bays=5,
        bay=float(rng.uniform(2.2, 2.8)),
        storeys=1,
        storey=3.4,
        ground=4.2,
        wall="ashlar",
        ground_floor="doors",
        ornament="panels",
        shutters=False,
    )
    building = house(rng, style, paint_facade(style, rng, DENSITY), roof="flat")
    stone = mix(style.trim, (222, 212, 190), 0.5)
    shaft = Canvas(0.75, 6.6, DENSITY, stone)
    roundness = np.sin(np.linspace(0.35, np.pi - 0.1, shaft.pixels.shape[1])) * 0.55 + 0.45
    flutes = 1 - 0.13 * (np.arange(shaft.pixels.shape[1]) % 5 == 0)
    shaft.pixels[:] = shaft.pixels * (roundness * flutes)[:, None]
    for y, h in ((0.0, 0.45), (6.2, 0.4)):
        paint_ledge(shaft, 0, y, 0.75, h, stone)
    texture = Texture(shaft.with_glow())
    cap = plain(rng, "ashlar", 4, 1, 24, stone)
    top = 6.6
    for x in np.linspace(0.3, style.width - 1.05, int(rng.integers(5, 8))):
        building.details.append(box((x, 0, -1.5), (x + 0.75, top, -0.75), texture, texture))
    board = signboard(rng, text, style.width, 1.1, DENSITY, stone)
    entablature = box((0, top, -1.7), (style.width, top + 1.1, 0), Texture(board.with_glow()), cap)
    building.details.append(entablature)
    rise = 0.2 * style.width
    relief = Canvas(style.width, rise, DENSITY, darker(stone, 0.2))
    picture = artwork(rng, 0.66 * style.width, 0.62 * rise, DENSITY)
    relief.paste((picture * 0.5 + 80).astype(np.uint8), 0.17 * style.width, 0.36 * rise,
                 0.66 * style.width, 0.62 * rise)  # fmt: skip
    for edge in (0.0, style.width):
        relief.line([(edge, rise), (style.width / 2, 0.1)], lighter(stone, 0.3), 0.5)
    start, end = (0.0, top + 1.1, -1.7), (style.width, top + 1.1, -1.7)
    building.details.append([gable_surface(Texture(relief.with_glow()), start, end, rise)])
    return [building]


def mural(rng: np.random.Generator, text: str) -> list[Building]:
    """A house without windows on the street, painted all over."""
    style = replace(
        random_style(rng), bays=3, bay=3.2, storeys=2, ground_floor="plain", wall="plaster"
    )
    front = paint_facade(style, rng, DENSITY)
    room = (style.width - 0.8, style.height - 2.2)
    front.rectangle(0, 0.4, style.width, style.height - 1.2, style.wall_colour)
    scenes = int(rng.integers(2, 4))
    for scene in range(scenes):
        picture = artwork(rng, room[0], room[1] / scenes, DENSITY)
        front.paste(picture, 0.4, 0.8 + scene * room[1] / scenes, room[0], room[1] / scenes)
    grain = material("plaster", rng, front.glow.shape, DENSITY, (232, 226, 218))
    front.pixels[:] = front.pixels * (grain / 255.0)
    front.glow[:] = 0
    return [house(rng, style, front, roof="flat")]


def cinema(rng: np.random.Generator, text: str) -> list[Building]:
    """A front with large posters, a lit marquee and an upright sign."""
    style = replace(
        random_style(rng),
        bays=4,
        bay=2.8,
        storeys=2,
        ground_floor="doors",
        shutters=False,
        ornament="",
        wall="glazed",
    )
    front = paint_facade(style, rng, DENSITY)
    for bay in range(style.bays):
        x, y, _, _ = style.window_box(bay, 1)
        tall = 2 * style.storey - 1.2
        front.rectangle(bay * style.bay + 0.3, y - 0.1, style.bay - 0.6, tall + 0.2, (40, 36, 40))
        sheet = poster(rng, style.bay - 0.8, tall, DENSITY)
        front.paste(sheet, bay * style.bay + 0.4, y, style.bay - 0.8, tall)
    building = house(rng, style, front, roof="flat")
    board = signboard(rng, text, style.width, 1.2, DENSITY, INKS[rng.integers(len(INKS))])
    edge = Canvas(1.6, 1.2, DENSITY, (220, 200, 150))
    for x in np.arange(0.1, 1.6, 0.2):
        edge.disc(x, 0.15, 0.07, (255, 250, 220))
        edge.disc(x, 1.05, 0.07, (255, 250, 220))
    edge.glow[:] = 160
    low, high = (0.0, style.ground - 0.7, -1.6), (style.width, style.ground + 0.5, 0.0)
    building.details.append(box(low, high, Texture(board.with_glow()), Texture(edge.with_glow())))
    add_blade_sign(building, rng, text, style.width / 2, style.height + 1.2)
    return [building]


def gate(rng: np.random.Generator, text: str) -> list[Building]:
    """A city gate: an arched passage between two stout towers with battlements."""
    wall = str(rng.choice(["rubble", "ashlar", "brick"]))
    style = replace(
        random_style(rng),
        bays=2,
        bay=float(rng.uniform(2.3, 3.0)),
        storeys=1,
        storey=float(rng.uniform(2.9, 4.4)),
        ground=float(rng.uniform(4.9, 5.9)),
        wall=wall,
        base=wall,
        shape=str(rng.choice(["arch", "flat"])),
        ground_floor="plain",
        shutters=False,
        ornament="",
    )
    style = replace(style, base_colour=style.wall_colour)
    front = paint_facade(style, rng, DENSITY)
    passage = float(rng.uniform(2.6, 3.8)), float(rng.uniform(4.0, 4.8))
    paint_arch(front, style, style.width / 2, style.height, *passage)
    shield = artwork(rng, 1.1, 1.3, DENSITY)
    front.rectangle(style.width / 2 - 0.65, 0.8, 1.3, 1.5, style.trim)
    front.paste(shield, style.width / 2 - 0.55, 0.9, 1.1, 1.3)
    middle = house(rng, style, front, depth=6.0, roof="flat")
    stone = plain(rng, "rubble", 1, 1, 24, style.wall_colour)
    for x in np.arange(0.0, style.width - 0.4, 1.05):
        top = style.height
        middle.details.append(box((x, top, 0), (x + 0.6, top + 0.8, 0.6), stone, stone))
    width, height = float(rng.uniform(2.7, 4.0)), style.height + float(rng.uniform(1.0, 3.5))
    towers = [tower(rng, style, width, height, False) for _ in range(2)]
    return [towers[0], middle, towers[1]]


def timber_house(rng: np.random.Generator, text: str) -> list[Building]:
    """A half-timbered house with a gable and a sign."""
    style = replace(
        random_style(rng),
        timber=True,
        wall="plaster",
        shape="flat",
        quoins=False,
        storeys=2,
        ornament="",
        bays=4,
        bay=2.3,
    )
    style = replace(style, wall_colour=lighter(style.wall_colour, 0.4))
    building = house(rng, style, paint_facade(style, rng, DENSITY), roof="gable")
    add_sign(building, style, rng, text, style.ground - 0.5, 0.7)
    return [building]
