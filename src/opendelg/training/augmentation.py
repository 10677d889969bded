"""Random views: crop, perspective and rotation on the CPU, light, blur and noise in batches.

No view is mirrored: a mirrored facade is another facade (SPEC 2.1: random_reflection=False).
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from opendelg.training.chance import Chance


@dataclass(frozen=True)
class AugmentationConfig:
    """How far views differ from their photo; every range is drawn from uniformly."""

    min_area: float = 0.25  # share of the photo that a view shows at least; SPEC 2.1: 0.08
    max_aspect: float = 4 / 3  # SPEC 2.1
    max_rotation_deg: float = 8.0
    max_perspective: float = 0.08  # of the view's side, for each corner
    max_brightness: float = 0.35  # on values in [-1, 1]
    max_contrast: float = 0.4  # as a logarithm
    max_colour: float = 0.2  # as a logarithm, per channel
    blur_probability: float = 0.2
    max_noise: float = 0.06  # standard deviation on values in [-1, 1]

    def __post_init__(self) -> None:
        if not 0 < self.min_area <= 1:
            raise ValueError(f"min_area must be in (0, 1], got {self.min_area}")
        if not self.max_aspect >= 1:
            raise ValueError(f"max_aspect must be at least 1, got {self.max_aspect}")
        # At half a side, moved corners can meet and the view has no perspective.
        if not 0 <= self.max_perspective < 0.5:
            raise ValueError(f"max_perspective must be in [0, 0.5), got {self.max_perspective}")
        if not 0 <= self.blur_probability <= 1:
            raise ValueError(f"blur_probability must be in [0, 1], got {self.blur_probability}")
        for name in ("rotation_deg", "brightness", "contrast", "colour", "noise"):
            value = getattr(self, f"max_{name}")
            if not value >= 0:
                raise ValueError(f"max_{name} must not be negative, got {value}")


def random_view(
    pixels: np.ndarray, size: int, config: AugmentationConfig, random: np.random.Generator
) -> np.ndarray:
    """Draw a view (size, size, 3) uint8 of a photo (H, W, 3) uint8.

    The view is a rectangle of at least ``min_area`` of the photo, rotated and with its corners
    moved; what lies outside the photo repeats its border.
    """
    height, width = pixels.shape[:2]
    area = random.uniform(config.min_area, 1.0) * height * width
    aspect = np.exp(random.uniform(-1, 1) * np.log(config.max_aspect)) * width / height
    box_width = min(np.sqrt(area * aspect), width)
    box_height = min(area / box_width, height)
    centre = np.array(
        [
            random.uniform(box_width / 2, width - box_width / 2),
            random.uniform(box_height / 2, height - box_height / 2),
        ]
    )
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [box_width / 2, box_height / 2]
    angle = np.radians(random.uniform(-1, 1) * config.max_rotation_deg)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shifts = random.uniform(-1, 1, (4, 2)) * config.max_perspective * [box_width, box_height]
    source = corners @ turn.T + shifts + centre
    target = np.array([[0, 0], [size, 0], [size, size], [0, size]]) - 0.5
    if box_width > 1.5 * size:
        # Bilinear sampling would skip pixels: shrink first.
        factor = size / box_width
        # At least one row must be left of a sliver.
        pixels = cv2.resize(
            pixels, None, fx=factor, fy=max(factor, 1 / height), interpolation=cv2.INTER_AREA
        )
        source = source * [pixels.shape[1] / width, pixels.shape[0] / height]
    view_from_photo = cv2.getPerspectiveTransform(
        (source - 0.5).astype(np.float32), target.astype(np.float32)
    )
    view = cv2.warpPerspective(
        pixels, view_from_photo, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    return np.asarray(view)


def change_light(images: Tensor, config: AugmentationConfig, chance: Chance) -> Tensor:
    """Vary light, colour, sharpness and noise of (B, 3, H, W) images in [-1, 1]."""
    contrast = torch.exp(chance.uniform(1, 1, 1) * config.max_contrast)
    colour = torch.exp(chance.uniform(3, 1, 1) * config.max_colour)
    brightness = chance.uniform(1, 1, 1) * config.max_brightness
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    images = (images - mean) * contrast + mean + brightness
    images = (images + 1) * colour - 1
    blurred = functional.avg_pool2d(images, 3, 1, 1, count_include_pad=False)
    is_blurred = (chance.uniform(1, 1, 1) + 1) / 2 < config.blur_probability
    images = torch.where(is_blurred, blurred, images)
    level = (chance.uniform(1, 1, 1) + 1) / 2 * config.max_noise
    return (images + chance.noise(*images.shape[1:]) * level).clamp(-1, 1)
