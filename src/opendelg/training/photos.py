"""Which photos are trained on, and as what: folders, tables, and Google Landmarks v2."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from opendelg.datasets.faults import Faults
from opendelg.datasets.labels import read_labels
from opendelg.datasets.landmark_images import LandmarkImages, find_landmark_images
from opendelg.datasets.landmarks import id_faults, read_landmarks
from opendelg.datasets.tars import TarMember
from opendelg.errors import OpenDelgError
from opendelg.image import find_images

INDEX_NAME = "tar_index.npz"


@dataclass(frozen=True)
class PhotoFolder:
    """Photos to train on: exactly one of ``path``, ``csv`` and ``gldv2``."""

    path: str = ""  # folder of photos
    # "folders": each folder that holds photos is a class; "instances": each photo is its own.
    labels: Literal["folders", "instances"] = "folders"
    csv: str = ""  # table with the columns image and label
    images: str = ""  # folder that the table's images lie in; empty: the table's own
    gldv2: str = ""  # folder of Google Landmarks v2 as downloaded
    list: str = "train_clean.csv"  # there, in its folder metadata or train; or train.csv
    # Four fifths of each landmark's images, or the others.
    part: Literal["train", "val"] = "train"

    def __post_init__(self) -> None:
        given = [name for name in ("path", "csv", "gldv2") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(f"photos must be given by one of path, csv and gldv2, got {given}")
        for name, kind in (
            ("labels", "path"),
            ("images", "csv"),
            ("list", "gldv2"),
            ("part", "gldv2"),
        ):
            if kind not in given and getattr(self, name) != getattr(PhotoFolder, name):
                raise ValueError(f"{name} must be left out beside {given[0]}; it belongs to {kind}")


@dataclass(frozen=True)
class Photo:
    """One photo to train on."""

    path: Path  # of one in a tar: its name below the tar's path
    member: TarMember | None = None


@dataclass(frozen=True)
class Section:
    """What one entry of the settings gave."""

    name: str
    folder: str  # what the names of its classes begin with
    photos: Sequence[Photo]
    labels: np.ndarray  # (N,) int64, positions in ``class_names``
    class_names: tuple[str, ...]
    faults: dict[str, Faults] = field(default_factory=dict)  # of its list, for the audit
    split_hash: str = ""


@dataclass(frozen=True)
class PhotoList:
    """Photos with contiguous labels from 0; ``class_names`` in label order."""

    photos: Sequence[Photo]
    labels: np.ndarray  # (N,) int64
    class_names: tuple[str, ...]
    sections: tuple[Section, ...] = ()


def list_photos(
    folders: Sequence[PhotoFolder], root: Path = Path(), cache: Path | None = None
) -> PhotoList:
    """Find the photos of ``folders`` (relative to ``root``) and number their classes in order.

    Args:
        folders: Where photos are.
        root: What relative paths start from.
        cache: Folder for the index of tars whose own folder cannot be written; None: no other.

    Raises:
        OpenDelgError: If a folder or table is absent or not as it must be, or gives no photo.
    """
    sections = tuple(_section(folder, root, cache) for folder in folders)
    numbers: dict[str, int] = {}
    labels = [np.zeros(0, np.int64)]
    for section in sections:
        own = [numbers.setdefault(name, len(numbers)) for name in section.class_names]
        labels.append(np.array(own, np.int64)[section.labels])
    photos = sections[0].photos if len(sections) == 1 else _Joined(sections)
    return PhotoList(photos, np.concatenate(labels), tuple(numbers), sections)


def _section(folder: PhotoFolder, root: Path, cache: Path | None) -> Section:
    if folder.gldv2:
        return _landmarks(folder, root / folder.gldv2, cache)
    if folder.csv:
        table = root / folder.csv
        return _table(table, root / folder.images if folder.images else table.parent)
    return _folder(root / folder.path, folder.labels)


def _folder(path: Path, labels: Literal["folders", "instances"]) -> Section:
    if not path.is_dir():
        raise OpenDelgError(f"data folder must be a directory, got {str(path)!r}")
    found = find_images([path])
    if not found:
        raise OpenDelgError(f"data folder must hold photos, got none in {str(path)!r}")
    numbers: dict[str, int] = {}
    names = [str(file if labels == "instances" else file.parent) for file in found]
    own = [numbers.setdefault(name, len(numbers)) for name in names]
    photos = [Photo(file) for file in found]
    return Section(str(path), str(path), photos, np.array(own, np.int64), tuple(numbers))


def _table(table: Path, images: Path) -> Section:
    try:
        found = read_labels(table, images)
    except FileNotFoundError as error:
        raise OpenDelgError(f"data table must exist with its images, got {error}") from error
    faults = {name: value for name, value in vars(found).items() if isinstance(value, Faults)}
    if not found.labels:
        raise OpenDelgError(
            f"data table must give photos, got none in {str(table)!r} ({_summary(faults)})"
        )
    classes = sorted(set(found.labels.values()))
    numbers = {label: number for number, label in enumerate(classes)}
    return Section(
        str(table),
        str(table),
        [Photo(images / name) for name in found.labels],
        np.array([numbers[label] for label in found.labels.values()], np.int64),
        tuple(f"{table}: {label}" for label in classes),
        faults,
    )


def _landmarks(folder: PhotoFolder, path: Path, cache: Path | None) -> Section:
    """The images of one part of the split that are there; labels are those of the whole list."""
    places = [path, path / "metadata", path / "train"]
    table = next((place / folder.list for place in places if (place / folder.list).is_file()), None)
    if table is None:
        raise OpenDelgError(
            f"gldv2 must hold {folder.list!r}, itself or in metadata or train, got {str(path)!r}"
        )
    listed = read_landmarks(table)
    home = path / "train" if (path / "train").is_dir() else path
    place = home if cache is None or os.access(home, os.W_OK) else cache
    images = find_landmark_images(home, place / INDEX_NAME)
    positions = images.positions(listed.ids)
    chosen = listed.is_held_out() == (folder.part == "val")
    faults = {name: value for name, value in vars(listed).items() if isinstance(value, Faults)} | {
        "missing_images": id_faults(listed.ids[chosen & (positions < 0)]),
        "damaged_tars": images.damaged_tars,
    }
    chosen &= positions >= 0
    if not chosen.any():
        raise OpenDelgError(
            f"gldv2 must hold images of the {folder.part} part of {folder.list!r}, got none in "
            f"{str(home)!r} ({_summary(faults)}); they are read from images_000.tar and so on, "
            "or unpacked from a/b/c/<id>.jpg"
        )
    return Section(
        f"{path} ({folder.list}, {folder.part})",
        str(path),
        _LandmarkPhotos(images, positions[chosen]),
        listed.labels[chosen],
        tuple(f"{path}: {landmark}" for landmark in listed.landmark_ids.tolist()),
        faults,
        listed.split_hash(),
    )


def _summary(faults: dict[str, Faults]) -> str:
    return ", ".join(f"{fault.count} {name.replace('_', ' ')}" for name, fault in faults.items())


class _LandmarkPhotos(Sequence[Photo]):
    """Photos made when asked for: a million of them would fill half a gigabyte."""

    def __init__(self, images: LandmarkImages, positions: np.ndarray) -> None:
        self._images = images
        self._positions = positions

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, number: int) -> Photo:  # type: ignore[override]
        position = int(self._positions[number])
        return Photo(self._images.name(position), self._images.member(position))


class _Joined(Sequence[Photo]):
    """The photos of one section after the other."""

    def __init__(self, sections: Sequence[Section]) -> None:
        self._parts = [section.photos for section in sections]
        self._ends = np.cumsum([len(part) for part in self._parts])

    def __len__(self) -> int:
        return int(self._ends[-1]) if self._parts else 0

    def __getitem__(self, number: int) -> Photo:  # type: ignore[override]
        if not 0 <= number < len(self):
            raise IndexError(f"photo must be in 0..{len(self) - 1}, got {number}")
        part = int(np.searchsorted(self._ends, number, side="right"))
        return self._parts[part][number - int(self._ends[part]) + len(self._parts[part])]
