"""The forward pass on torch: for GPUs, and what ONNX Runtime is compared with."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch

from opendelg.errors import WeightsError
from opendelg.model import Delg, ModelConfig
from opendelg.model.pooling import gem
from opendelg.runtime.architecture import Architecture
from opendelg.runtime.protocol import RawFeatures, check_images
from opendelg.weights import Weights

# Pixels of one pass: bounds the memory of large batches (about 9 GB for a ResNet-50 in bfloat16).
MAX_PASS_PIXELS = 16_000_000


class TorchRuntime:
    """A network on the CPU or a GPU; see `opendelg.runtime.Runtime`."""

    def __init__(self, weights: Weights, device: str = "cuda", threads: int | None = None) -> None:
        """Move the network to a device.

        Args:
            weights: Weights of the network.
            device: "cuda" or "cpu"; GPUs run the backbone in bfloat16 where they can.
            threads: CPU threads of torch, of the whole process; None leaves them.
        """
        if threads is not None:
            torch.set_num_threads(threads)
        self.device = device
        self.architecture = Architecture.from_settings(weights.model)
        self.network = load_network(weights).to(device)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(self, images: np.ndarray, want_global: bool, want_local: bool) -> RawFeatures:
        """Raw features of images of one size; see `opendelg.runtime.Runtime`."""
        check_images(images, self.architecture.min_side)
        batch, height, width, _ = images.shape
        step = max(1, MAX_PASS_PIXELS // (height * width))
        passes = [
            self._run(images[start : start + step], want_global, want_local)
            for start in range(0, batch, step)
        ]
        outputs = [
            None if column[0] is None else torch.cat(column).cpu().numpy()
            for column in zip(*passes, strict=True)
        ]
        return RawFeatures(*outputs)

    @torch.inference_mode()
    def _run(
        self, images: np.ndarray, want_global: bool, want_local: bool
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        network = self.network
        # Moving the last axis of (B, H, W, 3) to the front gives channels_last already.
        inputs = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2)
        with self._autocast():
            shallow = network.shallow((inputs - 128) / 128)
            deep = network.backbone.deep(shallow) if want_global else None
        # The heads are cheap: outside of autocast they keep descriptors in float32.
        global_descriptors = attention = local_descriptors = None
        if deep is not None:
            config = network.config
            pooled = gem(deep.float(), config.gem_power, config.gem_epsilon)
            global_descriptors = network.whitening(pooled)
        if want_local:
            attention, encoded = network.local_features(shallow.float())
            local_descriptors = encoded.permute(0, 2, 3, 1)
        return global_descriptors, attention, local_descriptors

    def _autocast(self) -> AbstractContextManager[object]:
        if self.device == "cuda" and torch.cuda.is_bf16_supported():
            return torch.autocast("cuda", torch.bfloat16)
        return nullcontext()


def load_network(weights: Weights) -> Delg:
    """The network in evaluation mode, float32, on the CPU.

    Raises:
        WeightsError: If tensors are absent, unknown or of another shape.
    """
    settings: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in weights.model.items()
    }
    try:
        network = Delg(ModelConfig(**settings)).eval()
        state = {
            name: torch.from_numpy(np.asarray(array, np.float32))
            for name, array in weights.state.items()
        }
        # Counters of batches matter only to training and are not stored.
        counters = {
            name: value
            for name, value in network.state_dict().items()
            if name.endswith("num_batches_tracked")
        }
        network.load_state_dict(state | counters)
    except (RuntimeError, TypeError, ValueError) as error:
        raise WeightsError(f"weights must fit their network, got {error}") from error
    return network
