"""Generalised-mean pooling (GeM), SPEC 1.1 and 1.3."""

from torch import Tensor
from torch.nn import functional


def gem(maps: Tensor, power: float = 3.0, epsilon: float = 1e-6) -> Tensor:
    """Pool (B, C, H, W) to (B, C): the ``power`` mean of the values, floored at ``epsilon``.

    Computed in float32 even under autocast: cubes overflow half precision.
    """
    cubes = maps.float().clamp(min=epsilon) ** power
    return cubes.mean(dim=(2, 3)) ** (1.0 / power)


def gem_of_windows(
    maps: Tensor, side: int, stride: int, power: float = 3.0, epsilon: float = 1e-6
) -> Tensor:
    """Pool every ``side`` x ``side`` window of (B, C, H, W), row by row: (B * windows, C)."""
    cubes = maps.float().clamp(min=epsilon) ** power
    pooled = functional.avg_pool2d(cubes, side, stride) ** (1.0 / power)
    return pooled.permute(0, 2, 3, 1).flatten(0, 2)
