"""Posters, murals, signboards, clocks and graffiti, drawn from random numbers."""

import numpy as np

from opendelg.datasets.town.canvas import Canvas, Colour, darker, lighter, mix

WORDS = (
    "JAZZ", "CIRCUS", "OPERA", "MARKET", "TANGO", "WINTER", "REGATTA", "VOYAGE", "MARIONETTE",
    "COMET", "GALA", "HARVEST", "ORCHID", "FUNFAIR", "POLKA", "AURORA", "LANTERN", "SAFARI",
    "BALLET", "CARAVAN", "ZENITH", "MASQUERADE", "TULIP", "RODEO", "MIDNIGHT", "ODYSSEY",
    "FESTIVAL", "QUARTET", "CINNAMON", "HARBOUR", "NOCTURNE", "PARADE", "VELVET", "KITES",
    "GLACIER", "BAZAAR", "SOLSTICE", "MAGPIE",
)  # fmt: skip

INKS: tuple[Colour, ...] = (
    (200, 40, 38), (232, 168, 32), (28, 84, 148), (30, 120, 84), (112, 44, 110), (240, 232, 210),
    (24, 26, 34), (226, 104, 40), (96, 176, 200), (190, 196, 60), (222, 130, 150), (80, 56, 40),
)  # fmt: skip


def inks(rng: np.random.Generator, count: int) -> list[Colour]:
    """Different colours of printing ink."""
    return [INKS[chosen] for chosen in rng.permutation(len(INKS))[:count]]


def poster(rng: np.random.Generator, width: float, height: float, density: float) -> np.ndarray:
    """(h, w, 3) uint8 of a poster with a drawing, a border and a title."""
    title, paper = inks(rng, 2)
    sheet = Canvas(width, height, density, paper)
    margin = 0.05 * width
    lettered = 0.2 * height
    top = margin if rng.random() < 0.5 else lettered
    drawing = artwork(rng, width - 2 * margin, height - margin - lettered, density)
    sheet.paste(drawing, margin, top, width - 2 * margin, height - margin - lettered)
    word = str(rng.choice(WORDS))
    y = height - lettered + 0.02 * height if top == margin else 0.02 * height
    if abs(sum(title) - sum(paper)) < 200:
        title = darker(paper, 0.8) if sum(paper) > 330 else lighter(paper, 0.8)
    sheet.write(word, margin, y, width - 2 * margin, lettered * 0.62, title)
    date = f"{rng.integers(1, 29)}.{rng.integers(1, 13)}."
    small = f"{date}  {rng.choice(WORDS)}  {rng.integers(6, 22)} h"
    sheet.write(
        small, margin, y + lettered * 0.66, width - 2 * margin, lettered * 0.24, title, False
    )
    return sheet.pixels


def artwork(rng: np.random.Generator, width: float, height: float, density: float) -> np.ndarray:
    """(h, w, 3) uint8 of a drawing in one of several manners."""
    colours = inks(rng, 6)
    sheet = Canvas(width, height, density, colours[0])
    manners = (_shapes, _landscape, _truchet, _rays, _flowers, _waves, _face, _harlequin)
    manners[rng.integers(len(manners))](sheet, rng, colours)
    return sheet.pixels


def _shapes(sheet: Canvas, rng: np.random.Generator, colours: list[Colour]) -> None:
    w, h = sheet.width, sheet.height
    for _ in range(int(rng.integers(14, 26))):
        colour = colours[rng.integers(1, 6)]
        x, y, size = rng.random() * w, rng.random() * h, rng.uniform(0.05, 0.25) * min(w, h)
        match rng.integers(4):
            case 0:
                sheet.disc(x, y, size, colour)
            case 1:
                sheet.disc(x, y, size, colour, 0.25 * size)
            case 2:
                turn = rng.random() * 6.28 + np.array([0, 2.1, 4.2])
                sheet.polygon(
                    np.stack([x + size * np.cos(turn), y + size * np.sin(turn)], 1), colour
                )
            case _:
                end = rng.normal(0, 0.3, 2) * min(w, h)
                sheet.line([(x, y), (x + end[0], y + end[1])], colour, 0.25 * size)


def _landscape(sheet: Canvas, rng: np.random.Generator, colours: list[Colour]) -> None:
    w, h = sheet.width, sheet.height
    for band in range(6):
        sheet.rectangle(0, band * h / 10, w, h / 9, mix(colours[0], colours[1], band / 6))
    sheet.disc(rng.uniform(0.2, 0.8) * w, rng.uniform(0.15, 0.4) * h, 0.12 * min(w, h), colours[2])
    x = np.linspace(0, w, 24)
    for ridge in range(4):
        base = h * (0.4 + 0.15 * ridge)
        heights = np.convolve(rng.normal(0, 0.12 * h, 28), np.ones(5) / 3, "valid")
        colour = mix(colours[3 + ridge % 3], (20, 24, 30), 0.12 * ridge)
        sheet.polygon([(0, h), *zip(x, base + heights, strict=True), (w, h)], colour)
    for _ in range(int(rng.integers(4, 9))):
        at, size = rng.random() * w, rng.uniform(0.05, 0.14) * h
        foot = rng.uniform(0.75, 0.98) * h
        sheet.rectangle(at, foot - size, size * 0.8, size, lighter(colours[1], 0.5))
        roof = [(at - 0.1 * size, foot - size), (at + 0.4 * size, foot - 1.7 * size)]
        sheet.polygon([*roof, (at + 0.9 * size, foot - size)], colours[4])
        sheet.rectangle(at + 0.3 * size, foot - 0.6 * size, 0.2 * size, 0.25 * size, (20, 24, 30))


def _truchet(sheet: Canvas, rng: np.random.Generator, colours: list[Colour]) -> None:
    cell = sheet.width / float(rng.integers(4, 8))
    for y in np.arange(0, sheet.height, cell):
        for x in np.arange(0, sheet.width, cell):
            sheet.rectangle(x, y, cell, cell, colours[rng.integers(2)])
            corners = np.array([(x, y), (x + cell, y), (x + cell, y + cell), (x, y + cell)])
            match rng.integers(3):
                case 0:
                    sheet.polygon(
                        np.roll(corners, rng.integers(4), 0)[:3], colours[rng.integers(2, 6)]
                    )
                case 1:
                    sheet.disc(x + cell / 2, y + cell / 2, cell * 0.36, colours[rng.integers(2, 6)])
                case _:
                    turned = corners.mean(0) + (corners - corners.mean(0)) @ [
                        [0.5, 0.5],
                        [-0.5, 0.5],
                    ]
                    sheet.polygon(turned, colours[rng.integers(2, 6)])


def _rays(sheet: Canvas, rng: np.random.Generator, colours: list[Colour]) -> None:
    w, h = sheet.width, sheet.height
    centre = np.array([rng.uniform(0.3, 0.7) * w, rng.uniform(0.3, 0.7) * h])
    edges = np.sort(rng.random(2 * rng.integers(7, 13)) * 2 * np.pi)
    for start, end in edges.reshape(-1, 2):
        tips = centre + 2 * max(w, h) * np.array(
            [(np.cos(start), np.sin(start)), (np.cos(end), np.sin(end))]
        )
        sheet.polygon([centre, *tips], colours[rng.integers(1, 4)])
    for ring in range(int(rng.integers(3, 6))):
        radius = (0.32 - 0.07 * ring) * min(w, h)
        sheet.disc(centre[0], centre[1], max(radius, 0.02), colours[rng.integers(1, 6)])
    star = np.arange(10) * np.pi / 5 + rng.random()
    reach = np.where(np.arange(10) % 2, 0.08, 0.2) * min(w, h)
    sheet.polygon(centre + np.stack([np.cos(star), np.sin(star)], 1) * reach[:, None], colours[5])


def _flowers(sheet: Canvas, rng: np.random.Generator, colours: list[Colour]) -> None:
    w, h = sheet.width, sheet.height
    for _ in range(int(rng.integers(7, 13))):
        x, y = rng.uniform(0.08, 0.92) * w, rng.uniform(0.08, 0.75) * h
        size = rng.uniform(0.05, 0.13) * min(w, h)
        foot = (x + rng.normal() * 0.15 * w, h)
        sheet.line(
            [(x, y), ((x + foot[0]) / 2 + 0.03 * w, (y + h) / 2), foot], (40, 92, 52), 0.02 * h
        )
        colour, count = colours[rng.integers(1, 5)], int(rng.integers(5, 9))
        for angle in np.arange(count) * 2 * np.pi / count + rng.random():
            sheet.disc(x + size * np.cos(angle), y + size * np.sin(angle), size * 0.5, colour)
        sheet.disc(x, y, size * 0.5, colours[5])
        sheet.disc(x, y, size * 0.22, darker(colours[5], 0.5))


def _waves(sheet: Canvas, rng: np.random.Generator, colours: list[Colour]) -> None:
    w, h = sheet.width, sheet.height
    x = np.linspace(0, w, 30)
    for row in range(9):
        y = h * (0.15 + 0.1 * row) + 0.04 * h * np.sin(
            x / w * rng.uniform(8, 22) + rng.random() * 6
        )
        colour = mix(colours[row % 3], (16, 40, 80), 0.07 * row)
        sheet.polygon([(0, h), *zip(x, y, strict=True), (w, h)], colour)
        if row in (3, 6):
            at, size = rng.uniform(0.15, 0.7) * w, rng.uniform(0.14, 0.24) * min(w, h)
            foot = h * (0.15 + 0.1 * row)
            hull = [(at, foot), (at + size, foot), (at + 0.8 * size, foot + 0.3 * size)]
            sheet.polygon([*hull, (at + 0.2 * size, foot + 0.3 * size)], colours[4])
            mast = at + size / 2
            sheet.polygon([(mast, foot - size), (mast, foot), (at + size, foot)], colours[3])
            sheet.polygon([(mast, foot - 0.8 * size), (mast, foot), (at, foot)], colours[5])


def _face(sheet: Canvas, rng: np.random.Generator, colours: list[Colour]) -> None:
    w, h = sheet.width, sheet.height
    for stripe in range(8):
        sheet.rectangle(stripe * w / 8, 0, w / 16, h, lighter(colours[0], 0.25))
    x, y, size = w * rng.uniform(0.4, 0.6), h * 0.48, 0.3 * min(w, h)
    skin = ((236, 188, 150), (176, 116, 78), (120, 76, 52), (244, 212, 184))[rng.integers(4)]
    shoulders = [(x - 1.5 * size, h), (x - size, y + 1.2 * size), (x + size, y + 1.2 * size)]
    sheet.polygon([*shoulders, (x + 1.5 * size, h)], colours[1])
    sheet.disc(x, y - 0.25 * size, 1.15 * size, colours[2])
    sheet.disc(x, y, size, skin)
    sheet.disc(x, y + 0.3 * size, 0.8 * size, skin)
    for side in (-1, 1):
        sheet.disc(x + side * 0.38 * size, y, 0.18 * size, (250, 250, 246))
        sheet.disc(
            x + side * 0.38 * size + rng.normal() * 0.04 * size, y, 0.09 * size, (20, 20, 28)
        )
        brow = [(x + side * 0.2 * size, y - 0.3 * size), (x + side * 0.6 * size, y - 0.25 * size)]
        sheet.line(brow, (40, 26, 22), 0.07 * size)
    sheet.line(
        [(x, y), (x - 0.12 * size, y + 0.4 * size), (x, y + 0.42 * size)], darker(skin), 0.05 * size
    )
    smile = np.linspace(-1, 1, 9)
    bend = rng.uniform(-0.1, 0.2) * size * (1 - smile**2)
    mouth = np.stack([x + 0.35 * size * smile, y + 0.65 * size + bend], 1)
    sheet.line(mouth, (170, 36, 44), 0.1 * size)
    hat = [(x - 1.3 * size, y - 0.6 * size), (x + 1.3 * size, y - 0.6 * size)]
    sheet.polygon(
        [*hat, (x + 0.7 * size, y - 1.4 * size), (x - 0.7 * size, y - 1.4 * size)], colours[3]
    )


def _harlequin(sheet: Canvas, rng: np.random.Generator, colours: list[Colour]) -> None:
    columns = int(rng.integers(4, 7))
    across = sheet.width / columns
    down = across * rng.uniform(1.0, 1.6)
    for row in range(int(sheet.height / down * 2) + 2):
        for column in range(columns + 1):
            x, y = (column + 0.5 * (row % 2)) * across, row * down / 2
            rhomb = [(x - across / 2, y), (x, y - down / 2), (x + across / 2, y), (x, y + down / 2)]
            sheet.polygon(rhomb, colours[rng.integers(6)])
            if rng.random() < 0.4:
                sheet.disc(x, y, 0.18 * across, colours[rng.integers(6)])


def clock(rng: np.random.Generator, size: float, density: float, face: Colour) -> np.ndarray:
    """(h, w, 4) uint8 of a round clock, transparent around it."""
    sheet = Canvas(size, size, density, (0, 0, 0))
    centre, radius = size / 2, size * 0.49
    dark = mix(INKS[rng.integers(len(INKS))], (10, 10, 20), 0.6)
    sheet.disc(centre, centre, radius, dark)
    sheet.disc(centre, centre, radius * 0.9, face)
    sheet.disc(centre, centre, radius * 0.62, mix(face, dark, 0.25), radius * 0.05)
    for hour in range(12):
        turn = hour * np.pi / 6
        direction = np.array([np.sin(turn), -np.cos(turn)])
        inner = 0.66 if hour % 3 == 0 else 0.72
        line = [centre + direction * radius * inner, centre + direction * radius * 0.85]
        sheet.line(line, dark, radius * (0.1 if hour % 3 == 0 else 0.05))
    for reach, thick in ((0.5, 0.09), (0.78, 0.05)):
        turn = rng.random() * 2 * np.pi
        tip = centre + np.array([np.sin(turn), -np.cos(turn)]) * radius * reach
        sheet.line([(centre, centre), tip], dark, radius * thick)
    opacity = Canvas(size, size, density, (0, 0, 0))
    opacity.disc(centre, centre, radius, (255, 255, 255))
    return np.dstack([sheet.pixels, opacity.pixels[..., 0]])


def signboard(
    rng: np.random.Generator, text: str, width: float, height: float, density: float, board: Colour
) -> Canvas:
    """A lettered board with a border and ornaments; its letters shine at night."""
    sheet = Canvas(width, height, density, board)
    bright = sum(board) > 380
    ink = mix(INKS[rng.integers(len(INKS))], (20, 20, 30), 0.6) if bright else (246, 236, 206)
    edge = ((214, 176, 84), ink, lighter(board, 0.5))[rng.integers(3)]
    frame = 0.07 * height
    corners = [(frame, frame), (width - frame, frame), (width - frame, height - frame)]
    sheet.line([*corners, (frame, height - frame)], edge, 0.05 * height, closed=True)
    shadow = darker(board, 0.5)
    ends = 0.9 * height if rng.random() < 0.6 and width > 4 * height else 0.25 * height
    inside = (ends, 0.2 * height, width - 2 * ends, 0.6 * height)
    sheet.write(text, inside[0] + 0.03 * height, inside[1] + 0.03 * height, *inside[2:], shadow)
    sheet.write(text, *inside, ink)
    if ends > 0.5 * height:
        for x in (0.5 * height, width - 0.5 * height):
            sheet.disc(x, height / 2, 0.28 * height, edge)
            sheet.disc(x, height / 2, 0.17 * height, INKS[rng.integers(len(INKS))])
            sheet.disc(x, height / 2, 0.07 * height, ink)
    sheet.glow[:] = 70
    sheet.glow[np.abs(sheet.pixels.astype(int) - ink).sum(-1) < 60] = 230
    return sheet


def graffiti(
    rng: np.random.Generator, canvas: Canvas, x: float, y: float, w: float, h: float
) -> None:
    """Spray a tag with an outline into a rectangle of a wall."""
    word = str(rng.choice(WORDS))[:5]
    line, fill, glint = inks(rng, 3)
    for offset in ((-0.05, 0.0), (0.05, 0.0), (0.0, -0.05), (0.0, 0.05), (0.05, 0.06)):
        canvas.write(word, x + offset[0], y + offset[1], w, h, line)
    canvas.write(word, x, y, w, h, fill)
    for _ in range(3):
        start = (x + rng.random() * w, y + rng.random() * h)
        bend = (x + rng.random() * w, y + rng.random() * h)
        canvas.line([start, bend, (bend[0] + 0.3, bend[1] + 0.2)], glint, 0.05)
