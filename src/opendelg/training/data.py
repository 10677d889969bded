"""Photos for training: decoded once or at every visit, augmented at every visit."""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from opendelg.errors import ImageError, OpenDelgError
from opendelg.image import read_image, resize_to_limit
from opendelg.training.augmentation import AugmentationConfig, random_view
from opendelg.training.photos import Photo, PhotoFolder, PhotoList

logger = logging.getLogger(__name__)

# Video letterboxes are not exactly black after JPEG; below this a border row is one.
LETTERBOX_LEVEL = 24


@dataclass(frozen=True)
class DataConfig:
    """What is trained on."""

    folders: tuple[PhotoFolder, ...] = ()
    max_side: int = 384  # px, longer side of a photo that views are cut out of
    image_size: int = 160  # px, side of the square views
    # Whether photos are decoded once, before the first step, or at every visit. None: once, unless
    # there is GLDv2 among them, which at 384 px fills 500 GB.
    keep_in_memory: bool | None = None
    # Where views are cut out: by the loader's processes, or on the device, which then holds all
    # photos in its memory (`resident`).
    views_on: Literal["loader", "device"] = "loader"
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)

    def __post_init__(self) -> None:
        if min(self.max_side, self.image_size) < 32:
            raise ValueError(
                f"max_side and image_size must be at least 32, "
                f"got {self.max_side} and {self.image_size}"
            )
        if self.views_on == "device" and not self.is_in_memory:
            raise ValueError("keep_in_memory must be true for views on the device, got false")

    @property
    def is_in_memory(self) -> bool:
        """Whether photos are decoded once and kept."""
        if self.keep_in_memory is None:
            return not any(folder.gldv2 for folder in self.folders)
        return self.keep_in_memory


def read_photo(photo: Photo, max_side: int) -> np.ndarray:
    """Read a photo as (H, W, 3) uint8 RGB, letterbox removed, no side above ``max_side``.

    Raises:
        ImageError: If it cannot be read.
    """
    source = photo.path if photo.member is None else photo.member.read()
    image = read_image(source, draft_size=max_side, name=photo.path)
    pixels = image.pixels
    # Plane by plane: 0.4 ms of an 800 x 600 photo, where max(axis=2) takes 18.
    red, green, blue = (pixels[..., channel] for channel in range(3))
    bright = np.maximum(np.maximum(red, green), blue) > LETTERBOX_LEVEL
    rows, columns = (np.flatnonzero(bright.mean(axis=axis) > 0.02) for axis in (1, 0))
    if len(rows) >= 32 and len(columns) >= 32:
        pixels = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    size = (pixels.shape[1], pixels.shape[0])
    return resize_to_limit(pixels, size, max_size=max_side, min_size=-1)


def use_one_thread(worker: int) -> None:
    """Keep OpenCV to one thread in a loader's process: there are as many processes as asked for."""
    cv2.setNumThreads(0)


class Views(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Random views of photos, which are held in memory or read at every visit.

    An item is a view (3, S, S) uint8, its label and the photo's position, both int64.  In memory,
    photos that cannot be read are left out.  Else another photo of the same class takes their
    place, and of any class if it has none.
    """

    def __init__(self, photo_list: PhotoList, config: DataConfig) -> None:
        self.config = config
        self.pixels: list[np.ndarray] = []
        self.photos = photo_list.photos
        self.labels = photo_list.labels
        # In memory that the loader's processes share: each tells the others what it found.
        self._is_unreadable = torch.zeros(len(self.photos), dtype=torch.bool)
        self._is_unreadable.share_memory_()  # type: ignore[no-untyped-call]
        if config.is_in_memory:
            self._read_all()

    def _read_all(self) -> None:
        kept = []
        with ThreadPoolExecutor() as pool:
            for position, pixels in enumerate(pool.map(self.read, range(len(self.photos)))):
                if pixels is not None:
                    self.pixels.append(pixels)
                    kept.append(position)
        self.photos = [self.photos[position] for position in kept]
        self.labels = self.labels[kept]

    def read(self, position: int) -> np.ndarray | None:
        """The pixels of a photo; None, and said once, if it cannot be read."""
        if self._is_unreadable[position]:
            return None
        try:
            return read_photo(self.photos[position], self.config.max_side)
        except ImageError as error:
            logger.warning("left out of training: %s", error)
            self._is_unreadable[position] = True
            return None

    @property
    def num_unreadable(self) -> int:
        """Photos that could not be read so far."""
        return int(self._is_unreadable.sum())

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor, Tensor]:
        # From torch's generator, which `order.SeededViews` seeds for every visit.
        random = np.random.default_rng(int(torch.randint(2**62, ()).item()))
        position, pixels = self._readable(position, random)
        size, augmentation = self.config.image_size, self.config.augmentation
        view = torch.from_numpy(random_view(pixels, size, augmentation, random)).permute(2, 0, 1)
        return view, torch.tensor(int(self.labels[position])), torch.tensor(position)

    def _readable(self, position: int, random: np.random.Generator) -> tuple[int, np.ndarray]:
        """The photo at ``position`` or what replaces it, and its pixels."""
        if self.config.is_in_memory:
            return position, self.pixels[position]
        for candidate in self._candidates(position, random):
            pixels = self.read(candidate)
            if pixels is not None:
                return candidate, pixels
        raise OpenDelgError(
            f"photos must be readable, got {self.num_unreadable} that are not of {len(self)}"
        )

    def _candidates(self, position: int, random: np.random.Generator) -> Iterator[int]:
        """The photo itself, those of its class in random order, then all.

        The order does not depend on what other processes found, so a run can be repeated.
        """
        yield position
        yield from random.permutation(np.flatnonzero(self.labels == self.labels[position])).tolist()
        yield from random.permutation(len(self)).tolist()
