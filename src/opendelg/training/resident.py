"""Photos kept decoded in the memory of the training device, and random views made there.

For sets that fit (a photo takes 0.4 MB at 384 px): a GPU learns from more views a second than the
processor's cores can cut out.  The views follow the same rules as `augmentation.random_view`.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from opendelg.training.augmentation import AugmentationConfig
from opendelg.training.chance import Chance

# Samples per pixel and side: photos are shrunk up to twofold, and bilinear sampling would alias.
OVERSAMPLING = 2


class ResidentPhotos:
    """Photos on one device, each in the corner of a square canvas.

    Args:
        pixels: (H, W, 3) uint8 RGB photos of any size.
        device: Where they are kept and views are made.
    """

    def __init__(self, pixels: Sequence[np.ndarray], device: torch.device) -> None:
        side = max(max(photo.shape[:2]) for photo in pixels)
        self._canvas = torch.zeros((len(pixels), 3, side, side), dtype=torch.uint8, device=device)
        for canvas, photo in zip(self._canvas, pixels, strict=True):
            height, width = photo.shape[:2]
            canvas[:, :height, :width] = torch.from_numpy(photo).to(device).permute(2, 0, 1)
        sizes = [(photo.shape[1], photo.shape[0]) for photo in pixels]
        self._sizes = torch.tensor(sizes, dtype=torch.float32, device=device)  # (N, 2) w, h

    def views(
        self, positions: Tensor, size: int, config: AugmentationConfig, chance: Chance
    ) -> Tensor:
        """Draw a view of each photo at ``positions`` (B,): (B, 3, size, size) float32 in 0..255.

        Args:
            positions: (B,) int64 numbers of photos, on the device.
            size: px, side of the views.
            config: How far a view differs from its photo.
            chance: Source of random numbers for these views, on the device.
        """
        sizes = self._sizes[positions]
        corners = random_corners(sizes, config, chance)
        points = _quad_grid(corners, size * OVERSAMPLING)
        # What lies outside the photo repeats its border, mirrored.
        limits = sizes[:, None, None, :]
        folded = limits - (limits - points.remainder(2 * limits)).abs()
        inside = torch.minimum(folded.clamp(min=0.5), limits - 0.5)
        grid = inside * (2 / self._canvas.shape[-1]) - 1
        sampled = functional.grid_sample(
            self._canvas[positions].float(), grid, mode="bilinear", align_corners=False
        )
        return functional.avg_pool2d(sampled, OVERSAMPLING)


def random_corners(sizes: Tensor, config: AugmentationConfig, chance: Chance) -> Tensor:
    """Corners (B, 4, 2) of random views, (x, y) px with the photo's corner at (0, 0).

    As in `augmentation.random_view`: a rectangle of the photo, turned, its corners moved.

    Args:
        sizes: (B, 2) width and height of the photos, px.
        config: Limits that are drawn from.
        chance: Source of random numbers, on the device of ``sizes``.
    """
    width, height = sizes.unbind(1)
    share = config.min_area + (1 - config.min_area) * (chance.uniform() + 1) / 2
    area = share * width * height
    aspect = torch.exp(chance.uniform() * math.log(config.max_aspect)) * width / height
    box_width = torch.minimum((area * aspect).sqrt(), width)
    box_height = torch.minimum(area / box_width, height)
    box = torch.stack([box_width, box_height], dim=1)
    centre = box / 2 + (chance.uniform(2) + 1) / 2 * (sizes - box)
    angle = chance.uniform() * math.radians(config.max_rotation_deg)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(-1, 2, 2)
    unit = torch.tensor([[-1.0, -1], [1, -1], [1, 1], [-1, 1]], device=sizes.device)
    corners = (unit * box[:, None] / 2) @ turn.transpose(1, 2)
    return corners + chance.uniform(4, 2) * config.max_perspective * box[:, None] + centre[:, None]


def _quad_grid(corners: Tensor, size: int) -> Tensor:
    """Points (B, size, size, 2) of the square that a perspective maps onto ``corners`` (B, 4, 2).

    Source: Heckbert, "Fundamentals of Texture Mapping and Image Warping", 1989, section 2.2.3.
    """
    first, second, third, fourth = corners.unbind(1)  # clockwise from the upper left
    total = first - second + third - fourth
    along, down = second - third, fourth - third
    determinant = along[:, 0] * down[:, 1] - along[:, 1] * down[:, 0]
    g = (total[:, 0] * down[:, 1] - total[:, 1] * down[:, 0]) / determinant
    h = (along[:, 0] * total[:, 1] - along[:, 1] * total[:, 0]) / determinant
    from_u = second - first + g[:, None] * second
    from_v = fourth - first + h[:, None] * fourth
    steps = (torch.arange(size, device=corners.device) + 0.5) / size
    u, v = steps[None, :, None], steps[:, None, None]

    def spread(vector: Tensor) -> Tensor:
        return vector.view(len(corners), 1, 1, -1)

    scale = spread(g) * u + spread(h) * v + 1
    return (spread(from_u) * u + spread(from_v) * v + spread(first)) / scale
