"""The images of Google Landmarks v2 where the download left them: in tars, or unpacked.

The tars are ``images_000.tar`` ... ``images_499.tar``, members ``a/b/c/<id>.jpg`` below any folder;
a b c are the first digits of the id.  Unpacked images have the same paths.  Both may be mixed: of
an image that is found twice the unpacked one counts, then the one in the first tar.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from opendelg.datasets.faults import Faults
from opendelg.datasets.landmarks import id_text
from opendelg.datasets.tars import TarContent, TarMember, tar_contents

UNPACKED = -1
_DIGITS = "0123456789abcdef"
_TAR_NAME = re.compile(r"images_[0-9]+\.tar", re.ASCII)
_IMAGE_NAME = re.compile(r"([0-9a-f]{16})\.jpg", re.ASCII)


@dataclass(frozen=True)
class LandmarkImages:
    """Where each image of a download lies."""

    folder: Path
    tar_names: tuple[str, ...]
    damaged_tars: Faults
    ids: np.ndarray  # (M,) uint64, ascending, each once
    tars: np.ndarray  # (M,) int16, positions in ``tar_names``, or UNPACKED
    offsets: np.ndarray  # (M,) int64
    sizes: np.ndarray  # (M,) int64

    def positions(self, ids: np.ndarray) -> np.ndarray:
        """Positions (N,) int64 of images by their ids (N,) uint64; -1 where one is missing."""
        if len(self.ids) == 0:
            return np.full(len(ids), -1, np.int64)
        found = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return np.where(self.ids[found] == ids, found, -1)

    def name(self, position: int) -> Path:
        """The path of an image; of one in a tar, below the tar as if it were a folder."""
        name = unpacked_name(id_text(int(self.ids[position])))
        tar = int(self.tars[position])
        return self.folder / name if tar == UNPACKED else self.folder / self.tar_names[tar] / name

    def member(self, position: int) -> TarMember | None:
        """Where in a tar an image lies; None if it is unpacked."""
        tar = int(self.tars[position])
        if tar == UNPACKED:
            return None
        path = self.folder / self.tar_names[tar]
        return TarMember(path, int(self.offsets[position]), int(self.sizes[position]))


def find_landmark_images(folder: Path, index: Path) -> LandmarkImages:
    """Find the images in a folder with tars or with unpacked images.

    Args:
        folder: Holds ``images_NNN.tar`` or the folders ``0`` to ``f``; may hold neither.
        index: File that keeps where images lie in tars, made or brought up to date.
    """
    tars = [path for path in folder.glob("images_*.tar") if _TAR_NAME.fullmatch(path.name)]
    contents = tar_contents(sorted(path for path in tars if path.is_file()), index)
    damaged = Faults()
    for content in contents:
        if content.fault:
            damaged.add(f"{content.name}: {content.fault}")
    return _joined(folder, contents, damaged, np.array([*_unpacked_ids(folder)], np.uint64))


def _joined(
    folder: Path, contents: list[TarContent], damaged: Faults, unpacked: np.ndarray
) -> LandmarkImages:
    """The first of each image by ascending id."""
    nothing = np.zeros(len(unpacked), np.int64)
    counts = [len(unpacked), *(len(content.ids) for content in contents)]
    tars = np.repeat(np.arange(UNPACKED, len(contents), dtype=np.int16), counts)
    ids = np.concatenate([unpacked, *(content.ids for content in contents)])
    ids, firsts = np.unique(ids, return_index=True)
    return LandmarkImages(
        folder,
        tuple(content.name for content in contents),
        damaged,
        ids,
        tars[firsts],
        np.concatenate([nothing, *(content.offsets for content in contents)])[firsts],
        np.concatenate([nothing, *(content.sizes for content in contents)])[firsts],
    )


def _unpacked_ids(folder: Path) -> Iterator[int]:
    """Ids of the unpacked images; folders are listed, which is faster than asking for each."""
    for first in _DIGITS:
        if not (folder / first).is_dir():
            continue
        for second in _DIGITS:
            for third in _DIGITS:
                prefix = first + second + third
                try:
                    with os.scandir(folder / first / second / third) as entries:
                        names = [entry.name for entry in entries]
                except (FileNotFoundError, NotADirectoryError):
                    continue
                for name in map(_IMAGE_NAME.fullmatch, names):
                    if name and name[1].startswith(prefix):
                        yield int(name[1], 16)


def unpacked_name(image_id: str) -> str:
    """The path of an image below the folder of its split, by its 16 digits."""
    return f"{image_id[0]}/{image_id[1]}/{image_id[2]}/{image_id}.jpg"
