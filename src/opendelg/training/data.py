"""Photos for training: folders on disk, decoded once, augmented at every visit."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from opendelg.errors import ImageError, OpenDelgError
from opendelg.image import find_images, read_image, resize_to_limit
from opendelg.training.augmentation import AugmentationConfig, random_view

logger = logging.getLogger(__name__)

# Video letterboxes are not exactly black after JPEG; below this a border row is one.
LETTERBOX_LEVEL = 24


@dataclass(frozen=True)
class PhotoFolder:
    """A folder to train on."""

    path: str
    # "folders": each folder that holds photos is a class; "instances": each photo is its own.
    labels: Literal["folders", "instances"] = "folders"


@dataclass(frozen=True)
class DataConfig:
    """What is trained on."""

    folders: tuple[PhotoFolder, ...] = ()
    max_side: int = 384  # px, longer side of a photo as it is kept in memory
    image_size: int = 160  # px, side of the square views
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


@dataclass(frozen=True)
class Photo:
    """One photo to train on."""

    path: Path
    label: int


@dataclass(frozen=True)
class PhotoList:
    """Photos with contiguous labels from 0; ``class_names`` in label order."""

    photos: tuple[Photo, ...]
    class_names: tuple[str, ...]


def list_photos(folders: Sequence[PhotoFolder], root: Path = Path()) -> PhotoList:
    """Find the photos of ``folders`` (relative to ``root``) and number their classes in order.

    Raises:
        OpenDelgError: If a folder is absent or holds no photo.
    """
    photos: list[Photo] = []
    numbers: dict[str, int] = {}
    for folder in folders:
        path = root / folder.path
        if not path.is_dir():
            raise OpenDelgError(f"data folder must be a directory, got {str(path)!r}")
        found = find_images([path])
        if not found:
            raise OpenDelgError(f"data folder must hold photos, got none in {str(path)!r}")
        for file in found:
            name = str(file if folder.labels == "instances" else file.parent)
            photos.append(Photo(file, numbers.setdefault(name, len(numbers))))
    return PhotoList(tuple(photos), tuple(numbers))


def read_photo(path: Path, max_side: int) -> np.ndarray:
    """Read a photo as (H, W, 3) uint8 RGB, letterbox removed, no side above ``max_side``."""
    image = read_image(path, draft_size=max_side)
    bright = image.pixels.max(axis=2) > LETTERBOX_LEVEL
    rows, columns = (np.flatnonzero(bright.mean(axis=axis) > 0.02) for axis in (1, 0))
    pixels = image.pixels
    if len(rows) >= 32 and len(columns) >= 32:
        pixels = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    size = (pixels.shape[1], pixels.shape[0])
    return resize_to_limit(pixels, size, max_size=max_side, min_size=-1)


def _read_or_error(photo: Photo, config: DataConfig) -> np.ndarray | ImageError:
    try:
        return read_photo(photo.path, config.max_side)
    except ImageError as error:
        return error


class Views(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Random views of photos held in memory.

    An item is a view (3, S, S) uint8, its label and the photo's position, both int64; where views
    are made on the device, the view is empty.
    """

    def __init__(self, photo_list: PhotoList, config: DataConfig) -> None:
        self.config = config
        self.pixels: list[np.ndarray] = []
        self.photos: list[Photo] = []
        with ThreadPoolExecutor() as pool:
            read = pool.map(lambda photo: _read_or_error(photo, config), photo_list.photos)
            for photo, pixels in zip(photo_list.photos, read, strict=True):
                if isinstance(pixels, ImageError):
                    logger.warning("left out of training: %s", pixels)
                else:
                    self.pixels.append(pixels)
                    self.photos.append(photo)

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor, Tensor]:
        label, number = torch.tensor(self.photos[position].label), torch.tensor(position)
        if self.config.views_on == "device":
            return torch.empty(0), label, number
        # Each worker has a generator of torch's, seeded from the run's; it goes on over epochs.
        random = np.random.default_rng(int(torch.randint(2**62, ()).item()))
        view = random_view(
            self.pixels[position], self.config.image_size, self.config.augmentation, random
        )
        return torch.from_numpy(view).permute(2, 0, 1), label, number
