"""A canvas measured in metres, and lettering, for painting facades, signs and posters."""

from functools import lru_cache

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]

_FIXED = 16  # sub-pixel steps of OpenCV's drawing, 2 ** 4


def mix(colour: Colour, other: Colour, share: float) -> Colour:
    """``colour`` with ``share`` in [0, 1] of ``other``."""
    mixed = np.asarray(colour) * (1 - share) + np.asarray(other) * share
    return (int(mixed[0]), int(mixed[1]), int(mixed[2]))


def darker(colour: Colour, share: float = 0.35) -> Colour:
    """``colour`` towards black."""
    return mix(colour, (0, 0, 0), share)


def lighter(colour: Colour, share: float = 0.35) -> Colour:
    """``colour`` towards white."""
    return mix(colour, (255, 255, 255), share)


class Canvas:
    """RGB pixels and emitted light; lengths in metres, y down from the top left corner."""

    def __init__(self, width: float, height: float, density: float, colour: Colour) -> None:
        self.width, self.height = width, height  # m
        self.density = density  # texels per m
        shape = (max(4, round(height * density)), max(4, round(width * density)))
        self.pixels = np.empty((*shape, 3), np.uint8)
        self.pixels[:] = colour
        self.glow = np.zeros(shape, np.uint8)

    def texels(self, *lengths: float) -> list[int]:
        """Whole texels nearest to lengths in metres."""
        return [round(length * self.density) for length in lengths]

    def _fixed(self, points: np.ndarray) -> np.ndarray:
        texels = np.asarray(points, np.float64) * self.density - 0.5
        return (texels * _FIXED).round().astype(np.int32)

    def polygon(self, points: object, colour: Colour, glow: int | None = None) -> None:
        """Fill a polygon (K, 2)."""
        fixed = self._fixed(np.asarray(points, np.float64))
        cv2.fillPoly(self.pixels, [fixed], colour, cv2.LINE_AA, 4)
        if glow is not None:
            cv2.fillPoly(self.glow, [fixed], (glow,), cv2.LINE_AA, 4)

    def rectangle(
        self, x: float, y: float, w: float, h: float, colour: Colour, glow: int | None = None
    ) -> None:
        """Fill a rectangle, with its edges on whole texels."""
        x0, y0, x1, y1 = self.texels(x, y, x + w, y + h)
        x0, y0 = max(x0, 0), max(y0, 0)
        self.pixels[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)] = colour
        if glow is not None:
            self.glow[y0 : max(y1, 0), x0 : max(x1, 0)] = glow

    def disc(self, x: float, y: float, radius: float, colour: Colour, thick: float = -1.0) -> None:
        """Fill a disc, or draw a ring ``thick`` metres wide."""
        centre = self._fixed(np.array([x, y]))
        thickness = -1 if thick < 0 else max(1, round(thick * self.density))
        cv2.circle(
            self.pixels,
            (int(centre[0]), int(centre[1])),
            max(1, round(radius * self.density * _FIXED)),
            colour,
            thickness,
            cv2.LINE_AA,
            4,
        )

    def line(self, points: object, colour: Colour, thick: float, closed: bool = False) -> None:
        """Draw a line through points (K, 2), ``thick`` metres wide."""
        fixed = self._fixed(np.asarray(points, np.float64))
        thickness = max(1, round(thick * self.density))
        cv2.polylines(self.pixels, [fixed], closed, colour, thickness, cv2.LINE_AA, 4)

    def shade(self, x: float, y: float, w: float, h: float, factor: float) -> None:
        """Darken (below 1) or brighten a rectangle, most at its upper edge, fading downwards."""
        x0, y0, x1, y1 = (max(value, 0) for value in self.texels(x, y, x + w, y + h))
        region = self.pixels[y0:y1, x0:x1]
        if region.size:
            factors = np.linspace(factor, (1 + factor) / 2, region.shape[0], dtype=np.float32)
            shaded = region * factors[:, None, None]
            self.pixels[y0:y1, x0:x1] = shaded.clip(0, 255).astype(np.uint8)

    def paste(self, picture: np.ndarray, x: float, y: float, w: float, h: float) -> None:
        """Put a picture (h, w, 3 or 4) uint8 into a rectangle; a fourth channel is opacity."""
        x0, y0, x1, y1 = self.texels(x, y, x + w, y + h)
        if x1 <= x0 or y1 <= y0:
            return
        shrinks = picture.shape[1] > x1 - x0
        interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        fitting = cv2.resize(picture, (x1 - x0, y1 - y0), interpolation=interpolation)
        height, width = self.pixels.shape[:2]
        fitting = fitting[max(-y0, 0) : height - y0, max(-x0, 0) : width - x0]
        x0, y0 = max(x0, 0), max(y0, 0)
        region = self.pixels[y0 : y0 + fitting.shape[0], x0 : x0 + fitting.shape[1]]
        if fitting.shape[2] == 3:
            region[:] = fitting
        else:
            opacity = fitting[..., 3:] * np.float32(1 / 255)
            region[:] = (region + (fitting[..., :3] - region.astype(np.float32)) * opacity).astype(
                np.uint8
            )

    def write(
        self, text: str, x: float, y: float, w: float, h: float, colour: Colour, bold: bool = True
    ) -> None:
        """Fit a line of lettering into a rectangle."""
        _, wanted = self.texels(w, h)
        letters = lettering(text, min(max(wanted, 8), 96), bold)
        fitted = min(w, 1.25 * h * letters.shape[1] / letters.shape[0])
        tall = min(h, 1.25 * fitted * letters.shape[0] / letters.shape[1])
        picture = np.empty((*letters.shape, 4), np.uint8)
        picture[..., :3] = colour
        picture[..., 3] = letters
        self.paste(picture, x + (w - fitted) / 2, y + (h - tall) / 2, fitted, tall)

    def with_glow(self) -> np.ndarray:
        """(h, w, 4) uint8, the fourth channel is emitted light."""
        return np.dstack([self.pixels, self.glow])


@lru_cache(maxsize=256)
def lettering(text: str, height: int, bold: bool) -> np.ndarray:
    """(h, w) uint8 coverage of a line of letters about ``height`` px tall, without margins."""
    font = _font(height)
    stroke = max(1, height // 18) if bold else 0
    left, top, right, bottom = font.getbbox(text, stroke_width=stroke)
    size = (max(1, int(np.ceil(right - left))), max(1, int(np.ceil(bottom - top))))
    picture = Image.new("L", size, 0)
    ImageDraw.Draw(picture).text((-left, -top), text, fill=255, font=font, stroke_width=stroke)
    return np.asarray(picture)


@lru_cache(maxsize=128)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
