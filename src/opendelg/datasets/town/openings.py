"""Windows, doors, arches and shop windows, painted on a front."""

import numpy as np

from opendelg.datasets.town.artwork import INKS
from opendelg.datasets.town.canvas import Canvas, Colour, darker, lighter, mix
from opendelg.datasets.town.styles import FacadeStyle


def paint_ledge(canvas: Canvas, x: float, y: float, w: float, h: float, colour: Colour) -> None:
    """A moulding that stands out from the wall, and its shade below."""
    canvas.rectangle(x, y, w, h, colour)
    canvas.rectangle(x, y, w, 0.3 * h, lighter(colour, 0.4))
    canvas.rectangle(x, y + 0.75 * h, w, 0.25 * h, darker(colour, 0.4))
    canvas.shade(x, y + h, w, 0.9 * h, 0.55)


def paint_window(
    canvas: Canvas,
    style: FacadeStyle,
    rng: np.random.Generator,
    x: float,
    y: float,
    w: float,
    h: float,
) -> None:
    """A window with its surround; curtains, shutters and flowers are its own."""
    trim, frame = style.trim, lighter(style.accent, 0.75) if sum(style.accent) % 2 else style.accent
    canvas.rectangle(x - 0.14, y - 0.12, w + 0.28, h + 0.2, trim)
    middle = x + w / 2
    match style.shape:
        case "arch":
            canvas.disc(middle, y, w / 2 + 0.14, trim)
            canvas.disc(middle, y, w / 2, frame)
            canvas.disc(middle, y, w / 2 - 0.08, (52, 64, 78))
            canvas.line([(middle, y - w / 2), (middle, y)], frame, 0.06)
            canvas.rectangle(middle - 0.1, y - w / 2 - 0.2, 0.2, 0.26, lighter(trim))
        case "pediment":
            peak = [(x - 0.25, y - 0.1), (middle, y - 0.5), (x + w + 0.25, y - 0.1)]
            canvas.polygon(peak, darker(trim, 0.45))
            canvas.polygon([(px, py - 0.06) for px, py in peak], trim)
        case "lintel":
            paint_ledge(canvas, x - 0.22, y - 0.24, w + 0.44, 0.18, trim)
    canvas.rectangle(x, y, w, h, frame)
    _paint_glass(canvas, style, rng, x + 0.06, y + 0.06, w - 0.12, h - 0.12)
    columns, rows = style.panes
    for column in range(1, columns):
        canvas.rectangle(x + column * w / columns - 0.03, y, 0.06, h, frame)
    for row in range(1, rows):
        canvas.rectangle(x, y + row * h / rows - 0.03, w, 0.06, frame)
    canvas.shade(x, y, w, 0.2, 0.5)
    paint_ledge(canvas, x - 0.2, y + h, w + 0.4, 0.14, trim)
    if style.shutters:
        _paint_shutters(canvas, style, rng, x, y, w, h)
    if rng.random() < 0.3:
        _paint_flowers(canvas, rng, x, y + h, w)


def _paint_glass(
    canvas: Canvas,
    style: FacadeStyle,
    rng: np.random.Generator,
    x: float,
    y: float,
    w: float,
    h: float,
) -> None:
    lit = int(rng.integers(150, 256)) if rng.random() < 0.4 else int(rng.integers(0, 12))
    dark = mix((34, 44, 56), (92, 110, 128), float(rng.random() * 0.7))
    canvas.rectangle(x, y, w, h, dark, lit)
    sheen = rng.uniform(0.1, 0.7) * w
    corners = [(x + sheen, y), (x + min(w, sheen + 0.35 * w), y), (x + 0.3 * w, y + h), (x, y + h)]
    canvas.polygon(corners, lighter(dark, 0.22))
    fabric = mix(INKS[rng.integers(len(INKS))], (224, 214, 196), 0.6)
    match rng.integers(6):
        case 0:
            canvas.rectangle(x, y, w, rng.uniform(0.2, 0.8) * h, fabric, lit // 2)
        case 1 | 2:
            for edge, inner in ((x, x + 0.12 * w), (x + w, x + 0.88 * w)):
                drape = [(edge, y), ((x + w / 2), y), (inner, y + 0.6 * h), (inner, y + h)]
                canvas.polygon([*drape, (edge, y + h)], fabric, lit // 2)
        case 3:
            for slat in np.arange(0, rng.uniform(0.3, 0.9) * h, 0.12):
                canvas.rectangle(x, y + slat, w, 0.05, fabric)
        case 4:
            canvas.rectangle(x + 0.2 * w, y + 0.7 * h, 0.22 * w, 0.3 * h, fabric)
            canvas.disc(x + 0.31 * w, y + 0.6 * h, 0.14, (70, 110, 60))


def _paint_shutters(
    canvas: Canvas,
    style: FacadeStyle,
    rng: np.random.Generator,
    x: float,
    y: float,
    w: float,
    h: float,
) -> None:
    wide = min(0.5 * w, (style.bay - w) / 2 - 0.08)
    for left in (x - wide - 0.06, x + w + 0.06):
        if rng.random() < 0.08:
            continue
        canvas.rectangle(left, y, wide, h, style.accent)
        for slat in np.arange(0.12, h - 0.1, 0.16):
            canvas.rectangle(left + 0.06, y + slat, wide - 0.12, 0.05, darker(style.accent, 0.4))


def _paint_flowers(canvas: Canvas, rng: np.random.Generator, x: float, y: float, w: float) -> None:
    petals = INKS[rng.integers(len(INKS))]
    canvas.rectangle(x, y - 0.08, w, 0.24, (110, 70, 46))
    for at in x + rng.random(9) * w:
        canvas.disc(at, y - 0.12 - rng.random() * 0.12, 0.11, (58, 104, 52))
    for at in x + rng.random(7) * w:
        canvas.disc(at, y - 0.14 - rng.random() * 0.14, 0.06, petals)


def paint_door(
    canvas: Canvas,
    style: FacadeStyle,
    rng: np.random.Generator,
    x: float,
    foot: float,
    w: float,
    h: float,
) -> None:
    """A panelled double door with a fanlight, its middle at ``x`` and threshold at ``foot``."""
    left, top = x - w / 2, foot - h
    canvas.rectangle(left - 0.22, top - 0.22, w + 0.44, h + 0.22, style.trim)
    canvas.rectangle(left - 0.3, top - 0.34, w + 0.6, 0.16, lighter(style.trim))
    canvas.rectangle(left, top, w, h, style.accent)
    canvas.rectangle(left + 0.06, top + 0.06, w - 0.12, 0.2 * h, (66, 78, 88), 120)
    for bar in np.linspace(left, left + w, int(rng.integers(3, 7))):
        canvas.line([(x, top + 0.2 * h + 0.06), (bar, top + 0.06)], style.accent, 0.04)
    for leaf in (left + 0.08, x + 0.05):
        for low, high in ((0.27, 0.5), (0.54, 0.68), (0.72, 0.94)):
            panel = (leaf, top + low * h, w / 2 - 0.13, (high - low) * h)
            canvas.rectangle(*panel, darker(style.accent, 0.35))
            canvas.rectangle(panel[0] + 0.04, panel[1] + 0.05, panel[2] - 0.05, panel[3] - 0.06,
                             lighter(style.accent, 0.16))  # fmt: skip
    canvas.line([(x, top + 0.25 * h), (x, foot)], darker(style.accent, 0.6), 0.03)
    canvas.disc(x - 0.1, foot - 0.45 * h, 0.05, (222, 186, 96))
    canvas.shade(left, top, w, 0.2, 0.5)
    number = str(rng.integers(1, 99))
    canvas.rectangle(left + w + 0.26, foot - 1.9, 0.36, 0.28, (34, 60, 124))
    canvas.write(number, left + w + 0.28, foot - 1.86, 0.32, 0.2, (244, 244, 240))


def paint_arch(
    canvas: Canvas, style: FacadeStyle, x: float, foot: float, w: float, h: float
) -> None:
    """A deep round arch with voussoirs."""
    radius = w / 2
    spring = foot - h + radius
    canvas.disc(x, spring, radius + 0.3, style.trim)
    canvas.rectangle(x - radius - 0.3, spring, w + 0.6, foot - spring, style.trim)
    for turn in np.linspace(0, np.pi, 10):
        direction = np.array([np.cos(turn), -np.sin(turn)])
        ends = [(x, spring) + direction * radius, (x, spring) + direction * (radius + 0.3)]
        canvas.line(ends, darker(style.trim, 0.4), 0.05)
    for depth in range(4):
        inner, dark = radius - 0.13 * depth, darker(style.base_colour, 0.45 + 0.13 * depth)
        canvas.disc(x, spring, inner, dark)
        canvas.rectangle(x - inner, spring, 2 * inner, foot - spring, dark, 40)


def paint_shop_window(
    canvas: Canvas,
    style: FacadeStyle,
    rng: np.random.Generator,
    x: float,
    y: float,
    w: float,
    h: float,
) -> None:
    """Glass with shelves of goods behind it."""
    canvas.rectangle(x - 0.1, y - 0.1, w + 0.2, h + 0.2, style.accent)
    canvas.rectangle(x, y, w, h, (72, 72, 70), 190)
    for shelf in (0.38, 0.68, 1.0):
        at, foot = x + 0.06, y + shelf * h - 0.04
        while at < x + w - 0.25:
            wide, tall = rng.uniform(0.12, 0.34), rng.uniform(0.12, 0.26) * h
            colour = INKS[rng.integers(len(INKS))]
            if rng.random() < 0.5:
                canvas.rectangle(at, foot - tall, wide, tall, colour)
                canvas.rectangle(at, foot - 0.6 * tall, wide, 0.06, lighter(colour, 0.5))
            else:
                canvas.disc(at + wide / 2, foot - wide / 2, wide / 2, colour)
            at += wide + rng.uniform(0.03, 0.16)
        canvas.rectangle(x, foot, w, 0.05, (150, 128, 96))
    canvas.line([(x + 0.5 * w, y), (x + 0.2 * w, y + h)], (150, 160, 164), 0.04)
    canvas.rectangle(x + w / 2 - 0.03, y, 0.06, h, style.accent)
    canvas.shade(x, y, w, 0.35, 0.5)
