"""The shape of a network without torch, for runtimes that never import it.

Importing torch takes longer than a search, so the settings and layouts of `opendelg.model` are
repeated here as plain data; a test holds the two equal.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from opendelg.errors import WeightsError


@dataclass(frozen=True)
class Layout:
    """How one code base lays out ResNet-v1; meanings in `opendelg.model.resnet.Layout`."""

    stride: str
    stem_padding: str
    pool_padding: str
    epsilon: float


LAYOUTS = {
    "slim": Layout("last_conv3x3", "symmetric", "same", 1e-5),
    "keras": Layout("first_conv1x1", "same", "valid", 1e-3),
    "torchvision": Layout("first_conv3x3", "symmetric", "symmetric", 1e-5),
    "keras_imagenet": Layout("first_conv1x1", "symmetric", "symmetric", 1.001e-5),
}


@dataclass(frozen=True)
class Architecture:
    """The settings of `opendelg.model.ModelConfig` that a forward pass depends on."""

    layout: Layout
    block: str  # "basic" or "bottleneck"
    units: tuple[int, ...]  # per stage
    local_stride: int  # px per cell of the local features, 16 or 32
    num_global_dimensions: int
    num_local_dimensions: int
    gem_power: float
    gem_epsilon: float
    resize_rule: Literal["half_pixel", "legacy"]

    def __post_init__(self) -> None:
        if self.block not in ("basic", "bottleneck"):
            raise ValueError(f"block must be 'basic' or 'bottleneck', got {self.block!r}")
        if self.local_stride not in (16, 32):
            raise ValueError(f"local_stride must be 16 or 32, got {self.local_stride}")
        if self.resize_rule not in ("half_pixel", "legacy"):
            raise ValueError(
                f"resize_rule must be 'half_pixel' or 'legacy', got {self.resize_rule!r}"
            )
        if len(self.units) != 4:
            raise ValueError(f"units must be four numbers, got {self.units}")
        if min(*self.units, self.num_global_dimensions, self.num_local_dimensions) < 1:
            raise ValueError(f"units and dimensions must be positive, got {self}")
        if not (0 < self.gem_power < math.inf and 0 <= self.gem_epsilon < math.inf):
            raise ValueError(
                "gem_power must be positive and gem_epsilon not negative, got "
                f"{self.gem_power} and {self.gem_epsilon}"
            )

    @classmethod
    def from_settings(cls, model: Mapping[str, Any]) -> "Architecture":
        """The architecture in `Weights.model`, the complete fields of a ModelConfig.

        Raises:
            WeightsError: If a setting is absent, unknown to this version or out of range.
        """
        try:
            return cls(
                layout=LAYOUTS[model["layout"]],
                block=str(model["block"]),
                units=tuple(int(number) for number in model["units"]),
                local_stride=int(model["local_stride"]),
                num_global_dimensions=int(model["num_global_dimensions"]),
                num_local_dimensions=int(model["num_local_dimensions"]),
                gem_power=float(model["gem_power"]),
                gem_epsilon=float(model["gem_epsilon"]),
                resize_rule=model["resize_rule"],
            )
        except KeyError as error:
            raise WeightsError(
                f"model settings must be complete and known, got no {error} in {dict(model)}"
            ) from error
        except (TypeError, ValueError, OverflowError) as error:
            raise WeightsError(
                f"model settings must be valid, got {dict(model)} ({error})"
            ) from error

    @property
    def min_side(self) -> int:
        """Shortest image side in px for which no feature map is empty."""
        return 5 if self.layout.pool_padding == "valid" else 1

    def unit_stride(self, stage: int, unit: int) -> int:
        """Stride of one unit, both counted from stage 1 and unit 0."""
        if self.layout.stride == "last_conv3x3":
            return 2 if stage <= 2 and unit == self.units[stage - 1] - 1 else 1
        return 2 if stage >= 2 and unit == 0 else 1
