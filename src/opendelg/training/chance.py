"""Random numbers of each view, as a function of the run's seed and of the view's number.

A view's number counts all views of a run, in the order of learning.  What is drawn for a view
depends on nothing else: not on the process that learns from it, on what else is in its batch, or
on how often the run was stopped and resumed.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from opendelg.scrambling import scrambled

# What is drawn for; each has random numbers of its own.
ORDER, VIEW, LIGHT, CROP, MIX = range(5)


def seeds_of(seed: int, purpose: int, numbers: np.ndarray) -> np.ndarray:
    """Seeds (N,) uint64 of the views of these numbers (N,) for one purpose."""
    run = scrambled(scrambled(np.array([seed], np.uint64)) + np.uint64(purpose))
    return scrambled(run ^ scrambled(np.asarray(numbers).astype(np.uint64)))


class Chance:
    """Source of random numbers for a batch of views; each call draws new ones.

    Args:
        seeds: (B,) uint64, see `seeds_of`.
        device: Where the numbers are wanted.
    """

    def __init__(self, seeds: np.ndarray, device: torch.device) -> None:
        self._seeds = seeds
        self._device = device

    def uniform(self, *shape: int) -> Tensor:
        """Numbers (B, *shape) float32, even in [-1, 1)."""
        self._seeds = scrambled(self._seeds)
        count = int(np.prod(shape))
        keys = scrambled(self._seeds[:, None] ^ scrambled(np.arange(count, dtype=np.uint64)))
        shares = (keys >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24)
        numbers = torch.from_numpy(2 * shares - 1).view(len(keys), *shape)
        if self._device.type == "cuda":
            # From pageable memory the copy would wait until the device has done all it was given.
            numbers = numbers.pin_memory()
        return numbers.to(self._device, non_blocking=True)

    def noise(self, channels: int, height: int, width: int) -> Tensor:
        """Noise (B, channels, height, width) float32 of mean 0 and deviation 1.

        A row is one of a few fixed fields, pushed round by a random way.  A generator would have to
        be seeded for every view, 256 times a step, while a GPU waits.
        """
        fields = _noise_fields(channels, height, width, self._device)
        draws = (self.uniform(3) + 1) / 2
        field, down, right = (
            (draws * draws.new_tensor([len(fields), height, width])).long().unbind(1)
        )
        rows = (torch.arange(height, device=self._device) + down[:, None]) % height
        columns = (torch.arange(width, device=self._device) + right[:, None]) % width
        noise: Tensor = fields[field[:, None, None], rows[:, :, None], columns[:, None, :]]
        return noise.permute(0, 3, 1, 2)


@lru_cache(maxsize=2)
def _noise_fields(channels: int, height: int, width: int, device: torch.device) -> Tensor:
    """Fields (16, height, width, channels), the same on every device."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(16, height, width, channels, generator=generator).to(device)
