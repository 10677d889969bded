"""Generalised-mean pooling (GeM), SPEC 1.1 and 1.3."""

from torch import Tensor


def gem(maps: Tensor, power: float = 3.0, epsilon: float = 1e-6) -> Tensor:
    """Pool (B, C, H, W) to (B, C): the ``power`` mean of the values, floored at ``epsilon``.

    Computed in float32 even under autocast: cubes overflow half precision.
    """
    cubes = maps.float().clamp(min=epsilon) ** power
    return cubes.mean(dim=(2, 3)) ** (1.0 / power)
