"""What every runtime does: images of one pyramid scale in, raw features out."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from opendelg.runtime.architecture import Architecture


@dataclass(frozen=True)
class RawFeatures:
    """Outputs of the network for B images of one size, nothing normalised; None if not wanted."""

    global_descriptors: np.ndarray | None  # (B, D) float32
    attention: np.ndarray | None  # (B, h, w) float32, not negative
    local_descriptors: np.ndarray | None  # (B, h, w, D') float32, a row per cell


class Runtime(Protocol):
    """A network on a device, ready to run."""

    device: str  # "cpu" or "cuda"
    architecture: Architecture

    def run(self, images: np.ndarray, want_global: bool, want_local: bool) -> RawFeatures:
        """One forward pass; what is not wanted is not computed.

        Args:
            images: (B, H, W, 3) float32 RGB, 0..255, sides of at least `architecture.min_side`.
            want_global: Compute the global descriptors.
            want_local: Compute attention and local descriptors.
        """


def check_images(images: np.ndarray, min_side: int) -> None:
    """Raise ValueError unless `images` is what `Runtime.run` takes."""
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.float32:
        raise ValueError(f"images must be (B, H, W, 3) float32, got {images.shape} {images.dtype}")
    if len(images) == 0 or min(images.shape[1:3]) < min_side:
        raise ValueError(
            f"images must be one or more with sides of at least {min_side}, got {images.shape}"
        )
