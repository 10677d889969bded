"""Fronts of houses: storeys, a ground floor, ledges and ornament on a canvas."""

import numpy as np

from opendelg.datasets.town.artwork import INKS, artwork, graffiti, poster
from opendelg.datasets.town.canvas import Canvas, darker, lighter, mix
from opendelg.datasets.town.materials import material
from opendelg.datasets.town.openings import (
    paint_arch,
    paint_door,
    paint_ledge,
    paint_shop_window,
    paint_window,
)
from opendelg.datasets.town.styles import FacadeStyle


def paint_facade(style: FacadeStyle, rng: np.random.Generator, density: float) -> Canvas:
    """The front on a canvas as wide and high as the style says."""
    canvas = Canvas(style.width, style.height, density, style.wall_colour)
    canvas.pixels[:] = material(style.wall, rng, canvas.glow.shape, density, style.wall_colour)
    top_of_ground = style.height - style.ground
    _paint_base(canvas, style, rng, top_of_ground)
    if style.timber:
        _paint_timber(canvas, style, rng, top_of_ground)
    if style.quoins:
        _paint_quoins(canvas, style, top_of_ground)
    for storey in range(style.storeys):
        paint_ledge(
            canvas, 0, 0.5 + (storey + 1) * style.storey - 0.12, style.width, 0.16, style.trim
        )
        for bay in range(style.bays):
            paint_window(canvas, style, rng, *style.window_box(bay, storey))
    _paint_ornament(canvas, style, rng)
    _paint_ground_floor(canvas, style, rng, top_of_ground)
    paint_ledge(canvas, 0, 0.0, style.width, 0.42, style.trim)
    for x in np.arange(0.1, style.width, 0.45):
        canvas.rectangle(x, 0.24, 0.18, 0.16, darker(style.trim, 0.3))
    canvas.rectangle(0, style.height - 0.45, style.width, 0.45, darker(style.base_colour, 0.25))
    if rng.random() < 0.6:
        pipe = 0.12 if rng.random() < 0.5 else style.width - 0.22
        canvas.rectangle(pipe, 0.4, 0.1, style.height, darker(style.trim, 0.45))
    return canvas


def _paint_base(canvas: Canvas, style: FacadeStyle, rng: np.random.Generator, top: float) -> None:
    rows = canvas.texels(top)[0]
    shape = (canvas.pixels.shape[0] - rows, canvas.pixels.shape[1])
    canvas.pixels[rows:] = material(style.base, rng, shape, canvas.density, style.base_colour)


def _paint_timber(
    canvas: Canvas, style: FacadeStyle, rng: np.random.Generator, bottom: float
) -> None:
    wood = darker(style.accent, 0.5)
    for storey in range(style.storeys):
        top = 0.5 + storey * style.storey
        low = min(top + style.storey, bottom)
        for bay in range(style.bays):
            x, width = bay * style.bay, style.bay
            canvas.rectangle(x - 0.08, top, 0.17, style.storey, wood)
            left, box_top, w, h = style.window_box(bay, style.storeys - 1 - storey)
            for x0, x1 in ((x, left - 0.1), (left + w + 0.1, x + width)):
                ends = (top, low) if rng.random() < 0.5 else (low, top)
                canvas.line([(x0, ends[0]), (x1, ends[1])], wood, 0.13)
            below = box_top + h + 0.12
            if rng.random() < 0.6:
                canvas.line([(left, below), (left + w, low)], wood, 0.11)
                canvas.line([(left + w, below), (left, low)], wood, 0.11)
            else:
                canvas.disc(left + w / 2, (below + low) / 2, 0.28, wood, 0.1)
        canvas.rectangle(0, top - 0.1, style.width, 0.2, wood)


def _paint_quoins(canvas: Canvas, style: FacadeStyle, bottom: float) -> None:
    for row, y in enumerate(np.arange(0.5, bottom, 0.45)):
        long = 0.62 if row % 2 else 0.4
        for x in (0.0, style.width - long):
            canvas.rectangle(x, y, long, 0.42, style.trim)
            canvas.rectangle(x, y + 0.38, long, 0.05, darker(style.trim, 0.4))


def _paint_ornament(canvas: Canvas, style: FacadeStyle, rng: np.random.Generator) -> None:
    if style.ornament == "band":
        y, size = 0.5 + style.storey - 0.62, 0.42
        ink = mix(INKS[rng.integers(len(INKS))], style.wall_colour, 0.3)
        for x in np.arange(0.2, style.width - 0.3, size * 1.25):
            canvas.rectangle(x, y, size, size, darker(style.trim, 0.15))
            canvas.disc(x + size / 2, y + size / 2, 0.15, ink)
        return
    if not style.ornament:
        return
    for bay in range(style.bays - 1):
        for storey in range(style.storeys):
            x = (bay + 1) * style.bay
            _, y, w, h = style.window_box(bay, storey)
            room = (style.bay - w) * 0.5
            if style.ornament == "panels":
                canvas.rectangle(x - room / 2 - 0.05, y + 0.1, room + 0.1, h - 0.1, style.trim)
                picture = artwork(rng, room, h - 0.2, canvas.density)
                canvas.paste(picture, x - room / 2, y + 0.15, room, h - 0.2)
            elif rng.random() < 0.7:
                canvas.disc(x, y + h / 2, 0.42, style.trim)
                canvas.disc(x, y + h / 2, 0.33, darker(style.wall_colour, 0.3))
                profile = rng.normal((x, y + h / 2), 0.1, (7, 2))
                canvas.polygon(profile, lighter(style.trim, 0.2))


def _paint_ground_floor(
    canvas: Canvas, style: FacadeStyle, rng: np.random.Generator, top: float
) -> None:
    door = int(rng.integers(style.bays))
    for bay in range(style.bays):
        left, width, height = bay * style.bay, style.bay, style.ground
        if style.ground_floor == "plain":
            continue
        if bay == door or style.ground_floor == "doors":
            paint_door(canvas, style, rng, left + width / 2, style.height, 1.25, 0.68 * height)
        elif style.ground_floor == "shop":
            paint_shop_window(
                canvas, style, rng, left + 0.2, top + 0.95, width - 0.4, height - 1.55
            )
        elif style.ground_floor == "arcade":
            paint_arch(canvas, style, left + width / 2, style.height, 0.7 * width, 0.8 * height)
        else:
            w, h = style.window
            paint_window(canvas, style, rng, left + (width - w) / 2, top + 1.2, w, 0.8 * h)
    for _ in range(int(rng.integers(0, 4))):
        x = rng.uniform(0, style.width - 0.8)
        sheet = poster(rng, 0.7, 1.0, canvas.density)
        canvas.paste(sheet, x, style.height - rng.uniform(1.7, 2.3), 0.7, 1.0)
    if rng.random() < 0.35:
        x = rng.uniform(0, style.width - 2.0)
        graffiti(rng, canvas, x, style.height - 1.5, rng.uniform(1.4, 2.2), 0.8)
