"""ResNet-v1 backbone in the layouts that DELG's weights come in.

The layouts differ in where the stride sits, how borders are padded, the batch-norm epsilon and
whether convolutions have biases; a network run in another layout than it was trained in gives
plausible but wrong features.  Sources: SPEC 1.2 (TF-slim, released weights), SPEC 1.3 (Keras,
open training code); torchvision's ResNet-18 for the starter weights.

Every layout gives the *shallow* map (conv4, S of the paper) at stride 16 and the *deep* map
(conv5, D) at stride 32.  A shallow map at stride 32, as in the paper, is its every second cell:
a strided unit equals the same unit without stride followed by ``[::2, ::2]``, because its 3x3
convolution pads one pixel on each side and everything else in it is pointwise.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Stride = Literal["first_conv3x3", "first_conv1x1", "last_conv3x3"]
Padding = Literal["symmetric", "same", "valid"]
Block = Literal["basic", "bottleneck"]


@dataclass(frozen=True)
class Layout:
    """How one code base lays out ResNet-v1."""

    stride: Stride  # which convolution of a stage carries its stride, and in which unit
    stem_padding: Padding  # of the 7x7 stride-2 convolution
    pool_padding: Padding  # of the 3x3 stride-2 max-pool
    epsilon: float  # of every batch norm
    conv_bias: bool


LAYOUTS = {
    # SPEC 1.2: stride in the 3x3 of a block's last unit, explicit 3/3 in the stem, pool SAME.
    "slim": Layout("last_conv3x3", "symmetric", "same", 1e-5, conv_bias=False),
    # SPEC 1.3: stride in the first 1x1, stem SAME, pool without padding, biases beside batch norm.
    "keras": Layout("first_conv1x1", "same", "valid", 1e-3, conv_bias=True),
    "torchvision": Layout("first_conv3x3", "symmetric", "symmetric", 1e-5, conv_bias=False),
    # keras.applications: the ImageNet teacher.  1.001e-5 is that code's constant.
    "keras_imagenet": Layout("first_conv1x1", "symmetric", "symmetric", 1.001e-5, conv_bias=False),
}


def pad_same(images: Tensor, kernel: int, fill: float) -> Tensor:
    """Pad (B, C, H, W) as TensorFlow's SAME does for stride 2: the odd pixel goes after.

    An even side gets (kernel - 2) // 2 before and the rest of kernel - 2 after, an odd side
    (kernel - 1) // 2 on both ends (SPEC 1.2).
    """
    pads = []
    for side in (images.shape[3], images.shape[2]):
        total = kernel - 2 + side % 2
        pads += [total // 2, total - total // 2]
    return functional.pad(images, pads, value=fill)


class BasicUnit(nn.Module):
    """Two 3x3 convolutions with a shortcut (ResNet-18)."""

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int, layout: Layout) -> None:
        super().__init__()
        bias, epsilon = layout.conv_bias, layout.epsilon
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=bias)
        self.bn1 = nn.BatchNorm2d(width, eps=epsilon)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=bias)
        self.bn2 = nn.BatchNorm2d(width, eps=epsilon)
        self.downsample = (
            _projection(channels, width, stride, layout)
            if stride != 1 or channels != width
            else nn.Identity()
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, width, H / stride, W / stride)."""
        out = functional.relu(self.bn1(self.conv1(maps)))
        out = self.bn2(self.conv2(out))
        return functional.relu(out + self.downsample(maps))


class BottleneckUnit(nn.Module):
    """1x1, 3x3 and 1x1 convolutions with a shortcut (ResNet-50 and -101)."""

    expansion = 4

    def __init__(
        self, channels: int, width: int, stride: int, layout: Layout, *, is_first: bool
    ) -> None:
        super().__init__()
        bias, epsilon = layout.conv_bias, layout.epsilon
        stride1, stride2 = (stride, 1) if layout.stride == "first_conv1x1" else (1, stride)
        self.conv1 = nn.Conv2d(channels, width, 1, stride1, bias=bias)
        self.bn1 = nn.BatchNorm2d(width, eps=epsilon)
        self.conv2 = nn.Conv2d(width, width, 3, stride2, 1, bias=bias)
        self.bn2 = nn.BatchNorm2d(width, eps=epsilon)
        self.conv3 = nn.Conv2d(width, width * self.expansion, 1, bias=bias)
        self.bn3 = nn.BatchNorm2d(width * self.expansion, eps=epsilon)
        self.stride = stride
        self.downsample = (
            _projection(channels, width * self.expansion, stride, layout)
            if is_first
            else nn.Identity()
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, 4 width, H / stride, W / stride)."""
        out = functional.relu(self.bn1(self.conv1(maps)))
        out = functional.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        shortcut = self.downsample(maps)
        if self.stride != 1 and isinstance(self.downsample, nn.Identity):
            # SPEC 1.2: slim's strided last unit takes every second cell as its shortcut.
            shortcut = subsample(shortcut)
        return functional.relu(out + shortcut)


def _projection(channels: int, width: int, stride: int, layout: Layout) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, 1, stride, bias=layout.conv_bias),
        nn.BatchNorm2d(width, eps=layout.epsilon),
    )


def subsample(maps: Tensor) -> Tensor:
    """Every second cell of (B, C, H, W), the first one kept: a 1x1 max-pool of stride 2."""
    return maps[:, :, ::2, ::2]


class ResNet(nn.Module):
    """Backbone; ``layer3`` ends in the shallow map, ``layer4`` in the deep one."""

    def __init__(
        self,
        layout: Layout,
        block: Block,
        units: tuple[int, ...],
        widths: tuple[int, ...],
        stem_width: int,
    ) -> None:
        super().__init__()
        self.layout = layout
        self.conv1 = nn.Conv2d(
            3,
            stem_width,
            7,
            2,
            padding=3 if layout.stem_padding == "symmetric" else 0,
            bias=layout.conv_bias,
        )
        self.bn1 = nn.BatchNorm2d(stem_width, eps=layout.epsilon)
        channels = stem_width
        for stage, (num_units, width) in enumerate(zip(units, widths, strict=True), start=1):
            stage_units = []
            for unit in range(num_units):
                stride = _unit_stride(layout, stage, unit, num_units)
                if block == "basic":
                    made: nn.Module = BasicUnit(channels, width, stride, layout)
                    channels = width
                else:
                    made = BottleneckUnit(channels, width, stride, layout, is_first=unit == 0)
                    channels = width * BottleneckUnit.expansion
                stage_units.append(made)
            self.add_module(f"layer{stage}", nn.Sequential(*stage_units))
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def stem(self, images: Tensor) -> Tensor:
        """Map (B, 3, H, W) to (B, stem width, H / 4, W / 4)."""
        if self.layout.stem_padding == "same":
            images = pad_same(images, 7, 0.0)
        maps = functional.relu(self.bn1(self.conv1(images)))
        if self.layout.pool_padding == "same":
            maps = pad_same(maps, 3, float("-inf"))
        return functional.max_pool2d(
            maps, 3, 2, padding=1 if self.layout.pool_padding == "symmetric" else 0
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """As `stages`."""
        return self.stages(images)

    def stages(self, images: Tensor) -> list[Tensor]:
        """Outputs of the first three stages: strides 4 or 8, 8 or 16, and 16."""
        maps, outputs = self.stem(images), []
        for stage in (1, 2, 3):
            maps = self.get_submodule(f"layer{stage}")(maps)
            outputs.append(maps)
        return outputs

    def shallow(self, images: Tensor) -> Tensor:
        """Map (B, 3, H, W) to the shallow map (B, C, H / 16, W / 16)."""
        return self.stages(images)[-1]

    def deep(self, shallow: Tensor) -> Tensor:
        """Map the shallow map at stride 16 to the deep map (B, C', H / 32, W / 32)."""
        if self.layout.stride == "last_conv3x3":
            shallow = subsample(shallow)
        return torch.as_tensor(self.get_submodule("layer4")(shallow))


def _unit_stride(layout: Layout, stage: int, unit: int, num_units: int) -> int:
    """Stride of one unit: stage 1 pools already, slim strides at the end of stages 1 and 2."""
    if layout.stride == "last_conv3x3":
        # Slim's stage 3 is strided too; here that stride is taken by `deep` (module docstring).
        return 2 if stage <= 2 and unit == num_units - 1 else 1
    return 2 if stage >= 2 and unit == 0 else 1
