"""The ImageNet networks that teach: frozen ResNet layers read from .npz files.

They are used for feature distillation only; none of their tensors enters a student.
"""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from opendelg.errors import FormatError
from opendelg.model.resnet import LAYOUTS, ResNet

# BGR means of the Caffe lineage that keras.applications keeps, on 0..255 values.
CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)
# torchvision's statistics of ImageNet, on 0..1 RGB values.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Teacher(nn.Module):
    """Layers conv1 to conv4 of a frozen ImageNet ResNet; its output is the stride-16 map."""

    mean: Tensor  # (1, 3, 1, 1), on 0..255 values in the teacher's channel order
    std: Tensor  # (1, 3, 1, 1)

    def __init__(self, backbone: ResNet, pixels: Literal["caffe", "torchvision"]) -> None:
        super().__init__()
        self.backbone = backbone.eval().requires_grad_(False)
        self.pixels = pixels
        if pixels == "caffe":
            mean, std = torch.tensor(CAFFE_MEAN_BGR), torch.ones(3)
        else:
            mean, std = torch.tensor(IMAGENET_MEAN) * 255, torch.tensor(IMAGENET_STD) * 255
        self.register_buffer("mean", mean.view(1, 3, 1, 1))
        self.register_buffer("std", std.view(1, 3, 1, 1))

    def train(self, mode: bool = True) -> "Teacher":
        """Stay in evaluation mode: a teacher's statistics are stored, never those of a batch."""
        return super().train(False)

    @property
    def num_channels(self) -> int:
        """Channels of its last map."""
        *_, last = (
            module
            for module in self.backbone.get_submodule("layer3").modules()
            if isinstance(module, nn.BatchNorm2d)
        )
        return last.num_features

    def forward(self, images: Tensor) -> list[Tensor]:
        """Outputs of stages 1, 2 and 3 for (B, 3, H, W) images as DELG takes them (SPEC 3.1)."""
        values = images * 128 + 128
        if self.pixels == "caffe":
            values = values.flip(1)
        return self.backbone.stages((values - self.mean) / self.std)


def load_teacher(path: Path) -> Teacher:
    """Read a teacher from an .npz with torchvision's key names, conv1 to layer3.

    With batch norms (``bn1.running_mean`` is there) it is keras.applications' ResNet-50; without,
    torchvision's ResNet-18 with the batch norms folded into the convolutions' biases.

    Raises:
        FormatError: If names or shapes do not fit either; all of them are listed.
    """
    with np.load(path, allow_pickle=False) as file:
        # What follows conv4 is cut from the middle of a layer in the file at hand: not used.
        names = [name for name in file.files if not name.startswith("layer4.")]
        arrays = {name: file[name].astype(np.float32) for name in names}
    has_batch_norm = "bn1.running_mean" in arrays
    backbone = ResNet(
        LAYOUTS["keras_imagenet" if has_batch_norm else "torchvision"],
        "bottleneck" if has_batch_norm else "basic",
        units=(3, 4, 6) if has_batch_norm else (2, 2, 2),
        widths=(64, 128, 256),
        stem_width=64,
    )
    state = backbone.state_dict()
    wanted = {name for name in state if not name.endswith("num_batches_tracked")}
    if not has_batch_norm:
        arrays = _unfold(arrays, state)
    if wanted != set(arrays):
        raise FormatError(
            f"teacher must have the tensors of a ResNet-18 or -50, got {path}: "
            f"missing {sorted(wanted - set(arrays))}, unknown {sorted(set(arrays) - wanted)}"
        )
    backbone.load_state_dict(
        {name: torch.from_numpy(arrays[name]) for name in wanted}, strict=False
    )
    return Teacher(backbone, "caffe" if has_batch_norm else "torchvision")


def _unfold(arrays: dict[str, np.ndarray], state: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """Turn folded biases into batch norms that add them and do nothing else."""
    unfolded = {}
    for name, array in arrays.items():
        if name.endswith(".weight"):
            unfolded[name] = array
            continue
        prefix = name.removesuffix(".bias")
        norm = prefix.replace("conv", "bn") if "conv" in prefix else prefix[:-1] + "1"
        epsilon = LAYOUTS["torchvision"].epsilon
        unfolded[f"{norm}.bias"] = array
        unfolded[f"{norm}.weight"] = np.ones_like(array)
        unfolded[f"{norm}.running_mean"] = np.zeros_like(array)
        unfolded[f"{norm}.running_var"] = np.full_like(array, 1 - epsilon)
    return unfolded
