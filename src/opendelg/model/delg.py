"""DELG: one backbone, a global head on its deep map, a local head on its shallow map (SPEC 1)."""

from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor, nn

from opendelg.model.attention import Attention
from opendelg.model.autoencoder import Autoencoder
from opendelg.model.pooling import gem
from opendelg.model.resnet import LAYOUTS, BottleneckUnit, ResNet, subsample

LayoutName = Literal["slim", "keras", "torchvision", "keras_imagenet"]
ResizeRule = Literal["half_pixel", "legacy"]


@dataclass(frozen=True)
class ModelConfig:
    """Shape of a DELG network; the defaults are the released ResNet-50 models (SPEC 1.2)."""

    layout: LayoutName = "slim"
    block: Literal["basic", "bottleneck"] = "bottleneck"
    units: tuple[int, int, int, int] = (3, 4, 6, 3)
    widths: tuple[int, int, int, int] = (64, 128, 256, 512)  # of the 3x3 convolutions
    stem_width: int = 64
    local_stride: Literal[16, 32] = 32  # px per cell of the local features; SPEC 1.1: 32
    num_global_dimensions: int = 2048
    num_local_dimensions: int = 128
    attention_width: int = 512
    gem_power: float = 3.0
    gem_epsilon: float = 1e-6  # SPEC 1.3
    # How the pyramid is resampled: TF1 exports have the legacy kernel (SPEC 3.2).
    resize_rule: ResizeRule = "legacy"
    # Models that were exported for inference come without: they cannot reconstruct, so not train.
    has_decoder: bool = True

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise ValueError(f"layout must be one of {sorted(LAYOUTS)}, got {self.layout!r}")
        if self.block == "basic" and self.layout == "slim":
            raise ValueError("block must be 'bottleneck' in the 'slim' layout, got 'basic'")
        if self.local_stride not in (16, 32):
            raise ValueError(f"local_stride must be 16 or 32, got {self.local_stride}")
        sizes = (*self.units, *self.widths, self.stem_width, self.num_global_dimensions)
        if min(*sizes, self.num_local_dimensions, self.attention_width) < 1:
            raise ValueError(f"units, widths and dimensions must be positive, got {self}")

    @property
    def expansion(self) -> int:
        """Output channels of a stage divided by its width."""
        return BottleneckUnit.expansion if self.block == "bottleneck" else 1

    @property
    def num_shallow_channels(self) -> int:
        """Channels of the shallow map, C_S."""
        return self.widths[2] * self.expansion

    @property
    def num_deep_channels(self) -> int:
        """Channels of the deep map, C_D."""
        return self.widths[3] * self.expansion

    @property
    def min_side(self) -> int:
        """Shortest image side in pixels for which no feature map is empty."""
        # A stem of ceil(n / 2) pixels must fill one 3x3 window of a pool without padding.
        return 5 if LAYOUTS[self.layout].pool_padding == "valid" else 1


RESNET18 = ModelConfig(
    layout="torchvision",
    block="basic",
    units=(2, 2, 2, 2),
    local_stride=16,
    num_global_dimensions=512,
    resize_rule="half_pixel",
)
RESNET50 = ModelConfig()
RESNET101 = replace(RESNET50, units=(3, 4, 23, 3))


class Delg(nn.Module):
    """The network.  Images enter as (B, 3, H, W) float, RGB, ``(value - 128) / 128`` (SPEC 3.1).

    The parts are called one by one, so that a pyramid scale pays only for the heads it needs:
    ``deep`` costs a quarter of a ResNet-18 and local-only scales do without.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        layout = LAYOUTS[config.layout]
        self.config = config
        self.backbone = ResNet(layout, config.block, config.units, config.widths, config.stem_width)
        self.whitening = nn.Linear(config.num_deep_channels, config.num_global_dimensions)
        self.attention = Attention(
            config.num_shallow_channels,
            config.attention_width,
            epsilon=layout.epsilon,
            conv_bias=layout.conv_bias,
        )
        self.autoencoder = Autoencoder(
            config.num_shallow_channels, config.num_local_dimensions, config.has_decoder
        )

    def shallow(self, images: Tensor) -> Tensor:
        """The conv4 map at stride 16, (B, C_S, H / 16, W / 16)."""
        return self.backbone.shallow(images)

    def local_map(self, shallow: Tensor) -> Tensor:
        """The cells that local features are taken from: S of the paper, at ``local_stride``."""
        return subsample(shallow) if self.config.local_stride == 32 else shallow

    def global_descriptor(self, shallow: Tensor) -> Tensor:
        """Global descriptors (B, D) of the stride-16 shallow map, before normalisation."""
        return self.pooled_descriptor(self.backbone.deep(shallow))

    def pooled_descriptor(self, deep: Tensor) -> Tensor:
        """Global descriptors (B, D) of the deep map (B, C, H, W), before normalisation."""
        pooled = gem(deep, self.config.gem_power, self.config.gem_epsilon)
        descriptor: Tensor = self.whitening(pooled)
        return descriptor.float()

    def local_features(self, shallow: Tensor) -> tuple[Tensor, Tensor]:
        """Attention (B, h, w) and local descriptors (B, D, h, w), not normalised."""
        cells = self.local_map(shallow)
        return self.attention(cells), self.autoencoder.encode(cells).float()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Global descriptors (B, D), attention (B, h, w) and local descriptors (B, D', h, w)."""
        shallow = self.shallow(images)
        return (self.global_descriptor(shallow), *self.local_features(shallow))
