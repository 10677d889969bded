"""Which photo is learnt from when, and with which view: a function of the seed and the step.

The views of a run are numbered 0, 1, 2, ...; each step takes the next ``batch_size``, and a resumed
run starts at the number that its checkpoint had come to.  Where a step is shared, each of its
``accumulate`` parts is split over the processes: the batch stays the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from opendelg.training.chance import ORDER, VIEW, seeds_of

Batch = list[Tensor]  # views, labels, positions of photos, numbers of views


@dataclass(frozen=True)
class Visit:
    """One view of a photo."""

    position: int  # of the photo
    number: int  # of the view in the run


class Visits(Sampler[list[Visit]]):
    """Batches of one process, from a step on to the last.

    Args:
        num_photos: Photos there are; each is seen once per epoch, but for a last part of a batch.
        batch_size: Views per step, over all processes and parts.
        steps: Steps of the run, those before ``first_step`` included.
        seed: Of the order.
        first_step: Where to start.
        process: Number of this process.
        num_processes: Processes that share each part.
        accumulate: Parts of a step.
    """

    def __init__(
        self,
        num_photos: int,
        batch_size: int,
        steps: int,
        seed: int = 0,
        *,
        first_step: int = 0,
        process: int = 0,
        num_processes: int = 1,
        accumulate: int = 1,
    ) -> None:
        self.steps, self.first_step, self.accumulate = steps, first_step, accumulate
        self._batch_size, self._seed = batch_size, seed
        self._steps_per_epoch, self._num_photos = num_photos // batch_size, num_photos
        self._process, self._num_processes = process, num_processes

    def __len__(self) -> int:
        # Of the whole run: Lightning counts those before resuming too.
        return self.steps * self.accumulate

    def __iter__(self) -> Iterator[list[Visit]]:
        epoch, order = -1, np.zeros(0, np.int64)
        for step in range(self.first_step, self.steps):
            if step // self._steps_per_epoch != epoch:
                epoch = step // self._steps_per_epoch
                seed = seeds_of(self._seed, ORDER, np.array([epoch]))[0]
                order = np.random.default_rng(int(seed)).permutation(self._num_photos)
            start = step % self._steps_per_epoch * self._batch_size
            visits = [
                Visit(int(position), step * self._batch_size + place)
                for place, position in enumerate(order[start : start + self._batch_size])
            ]
            share = self._batch_size // (self.accumulate * self._num_processes)
            for part in range(self.accumulate):
                first = (part * self._num_processes + self._process) * share
                yield visits[first : first + share]


class PhotoNumbers(Dataset[tuple[Tensor, ...]]):
    """What a batch is made of where the device makes the views: an item is a batch of visits.

    Views (B, 0), which are empty, labels, positions of photos and numbers of views (B,) int64.  One
    view after the other, as `SeededViews` takes them, a GPU would wait half the time.
    """

    def __init__(self, labels: np.ndarray) -> None:
        self._labels = torch.from_numpy(np.asarray(labels, np.int64))

    def __getitem__(self, visits: list[Visit]) -> tuple[Tensor, ...]:
        positions = torch.tensor([visit.position for visit in visits])
        numbers = torch.tensor([visit.number for visit in visits])
        return torch.empty(len(visits), 0), self._labels[positions], positions, numbers


class SeededViews(Dataset[tuple[Tensor, ...]]):
    """Items of a dataset by visit: what it draws from torch's generator depends on the visit only.

    An item is that of the dataset and the number of the view.
    """

    def __init__(self, views: Dataset[tuple[Tensor, Tensor, Tensor]], seed: int) -> None:
        self._views, self._seed = views, seed

    def __getitem__(self, visit: Visit) -> tuple[Tensor, ...]:
        seed = seeds_of(self._seed, VIEW, np.array([visit.number]))[0]
        torch.default_generator.manual_seed(int(seed) >> 1)
        return (*self._views[visit.position], torch.tensor(visit.number))
