"""Revisited Oxford and Paris as their makers publish them: ground truth and photos.

A folder holds `gnd_roxford5k.pkl` or `gnd_rparis6k.pkl` (or the same as .mat) and the photos as
`jpg/NAME.jpg`; photos in other folders below it are found by their names.  Ids of database images
are positions in the published list, also where photos are missing.

Source: Radenović et al., "Revisiting Oxford and Paris", CVPR 2018.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from opendelg.datasets.matlab import read_matlab
from opendelg.datasets.plain_pickle import read_plain_pickle
from opendelg.errors import FormatError, OpenDelgError
from opendelg.image import find_images

RevisitedName = Literal["roxford5k", "rparis6k"]
LISTS = ("easy", "hard", "junk")
# Queries, database images and the lengths of the three lists over all queries, as published.
OFFICIAL: Mapping[RevisitedName, tuple[int, ...]] = {
    "roxford5k": (70, 4993, 3029, 2497, 1356),
    "rparis6k": (70, 6322, 6874, 10350, 7153),
}
ORIGINAL_SIDE = 1024  # px, longer side of the photos as they are published
_NAME = re.compile(r"[^/\\\0]+")
_MAX_LISTED = 3  # missing photos that an error names


@dataclass(frozen=True)
class RevisitedDataset:
    """What the ground truth says; it knows no photo."""

    name: RevisitedName
    file: Path  # of the ground truth
    names: tuple[str, ...]  # of database images, without extension; ids are positions
    query_names: tuple[str, ...]
    boxes: np.ndarray  # (Q, 4) float64, (x1, y1, x2, y2) px of the photos as they are published
    easy: tuple[np.ndarray, ...]  # per query (P,) int64 database ids, ascending
    hard: tuple[np.ndarray, ...]
    junk: tuple[np.ndarray, ...]

    @property
    def is_official(self) -> bool:
        """Whether all counts are those of the published ground truth."""
        lists = (self.easy, self.hard, self.junk)
        totals = (sum(len(ids) for ids in one) for one in lists)
        return (len(self.query_names), len(self.names), *totals) == OFFICIAL[self.name]


@dataclass(frozen=True)
class RevisitedPhotos:
    """Which photos of a dataset are there."""

    queries: Mapping[int, Path]  # by position in ``query_names``, ascending
    database: Mapping[int, Path]  # by database id, ascending


def read_revisited(folder: Path, name: RevisitedName) -> RevisitedDataset:
    """The ground truth in a folder.

    Raises:
        FormatError: If it is damaged or contradicts itself.
        FileNotFoundError: If the folder or the file is not there.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"dataset must be an existing folder, got {str(folder)!r}")
    for ending in (".pkl", ".mat"):
        file = folder / f"gnd_{name}{ending}"
        if file.is_file():
            break
    else:
        raise FileNotFoundError(
            f"dataset must have a file gnd_{name}.pkl or gnd_{name}.mat, got none in "
            f"{str(folder)!r}; docs/evaluation.md says what to download"
        )
    values, first_id = (read_plain_pickle(file), 0) if ending == ".pkl" else (read_matlab(file), 1)
    try:
        return _dataset(values, first_id, name, file)
    except _Fault as fault:
        raise FormatError(f"{fault} in {str(file)!r}") from None


def find_revisited_photos(dataset: RevisitedDataset, folder: Path) -> RevisitedPhotos:
    """The photos below a folder: in `jpg` first, then in the folder itself, then anywhere.

    Raises:
        FormatError: If two photos in other places go by one name.
    """
    wanted = {*dataset.names, *dataset.query_names}
    found: dict[str, Path] = {}
    for place in (folder / "jpg", folder):
        for name in wanted - found.keys():
            if (place / f"{name}.jpg").is_file():
                found[name] = place / f"{name}.jpg"
    missing = wanted - found.keys()
    elsewhere: dict[str, Path] = {}
    for path in find_images([folder]) if missing else []:
        if path.stem in missing and elsewhere.setdefault(path.stem, path) != path:
            raise FormatError(
                f"photo must be there once, got {str(elsewhere[path.stem])!r} and {str(path)!r}; "
                f"keep the originals in {str(folder / 'jpg')!r}"
            )
    found |= elsewhere
    return RevisitedPhotos(
        {n: found[name] for n, name in enumerate(dataset.query_names) if name in found},
        {n: found[name] for n, name in enumerate(dataset.names) if name in found},
    )


def require_photos(
    dataset: RevisitedDataset, photos: RevisitedPhotos, is_subset_allowed: bool
) -> None:
    """Raises OpenDelgError if photos are missing, so that figures are not comparable or none."""
    listed = [
        *(
            dataset.query_names[n]
            for n in range(len(dataset.query_names))
            if n not in photos.queries
        ),
        *(dataset.names[n] for n in range(len(dataset.names)) if n not in photos.database),
    ]
    if not photos.queries or not photos.database:
        raise OpenDelgError(
            f"dataset must have photos of queries and of the database, got {len(photos.queries)} "
            f"and {len(photos.database)} beside {str(dataset.file)!r}"
        )
    if listed and not is_subset_allowed:
        shown = ", ".join(f"{name}.jpg" for name in listed[:_MAX_LISTED])
        raise OpenDelgError(
            f"dataset must have all {len(dataset.query_names)} queries and {len(dataset.names)} "
            f"database images, got {len(listed)} missing beside {str(dataset.file)!r}: {shown}"
            f"{', ...' if len(listed) > _MAX_LISTED else ''}; with --subset the photos that are "
            "there are evaluated, and the output says so"
        )
    there = np.array(list(photos.database))
    if not any(np.isin([*dataset.easy[n], *dataset.hard[n]], there).any() for n in photos.queries):
        raise OpenDelgError(
            "a query must have database images to find, got none for any of "
            f"{len(photos.queries)} beside {str(dataset.file)!r}"
        )


class _Fault(Exception):
    """What is wrong with a ground truth; the file is named by whoever catches it."""


def _dataset(values: Any, first_id: int, name: RevisitedName, file: Path) -> RevisitedDataset:
    """The dataset from plain values, checked."""
    if not isinstance(values, dict) or not {"imlist", "qimlist", "gnd"} <= values.keys():
        raise _Fault("ground truth must be a dict of imlist, qimlist and gnd, got another")
    names, query_names = (_names(values[key], key) for key in ("imlist", "qimlist"))
    both = set(names) & set(query_names)
    if both:
        raise _Fault(f"queries must not be database images, got {min(both)!r} in both")
    entries = _sequence(values["gnd"], "gnd")
    if len(entries) != len(query_names):
        raise _Fault(
            f"gnd must have one entry per query, got {len(entries)} for {len(query_names)}"
        )
    boxes, lists = [], []
    for query_name, entry in zip(query_names, entries, strict=True):
        if not isinstance(entry, dict) or not {"bbx", *LISTS} <= entry.keys():
            raise _Fault(f"gnd must be dicts of bbx, easy, hard and junk, got none: {query_name!r}")
        boxes.append(_box(entry["bbx"], query_name))
        lists.append(_lists(entry, first_id, len(names), query_name))
    easy, hard, junk = zip(*lists, strict=True)
    return RevisitedDataset(name, file, names, query_names, np.stack(boxes), easy, hard, junk)


def _sequence(value: Any, what: str) -> Sequence[Any]:
    """A list, tuple, or array of one row or column as a list; one thing alone, too."""
    if isinstance(value, np.ndarray):
        if value.size != max(value.shape, default=1) and value.size != 0:
            raise _Fault(f"{what} must be a list, got an array of shape {value.shape}")
        values: list[Any] = value.ravel().tolist()
        return values
    if isinstance(value, list | tuple):
        return value
    return [value]


def _names(value: Any, what: str) -> tuple[str, ...]:
    names = _sequence(value, what)
    for name in names:
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name in (".", ".."):
            shown = repr(name[:80]) if isinstance(name, str) else type(name).__name__
            raise _Fault(f"{what} must hold names of photos, got {shown}")
    if not names or len(set(names)) != len(names):
        raise _Fault(f"{what} must name distinct photos, got {len(set(names))} of {len(names)}")
    return tuple(names)


def _numbers(value: Any, what: str) -> np.ndarray:
    """(N,) float64 of a list of finite numbers."""
    numbers = _sequence(value, what)
    if not all(type(number) in (int, float) and abs(number) < 2**31 for number in numbers):
        raise _Fault(f"{what} must be numbers below 2**31, got others")
    return np.array(numbers, np.float64)


def _box(value: Any, query_name: str) -> np.ndarray:
    box = _numbers(value, f"bbx of {query_name!r}")
    if len(box) != 4 or box[0] >= box[2] or box[1] >= box[3]:
        raise _Fault(f"bbx of {query_name!r} must be x1 < x2, y1 < y2, got {box.tolist()[:5]}")
    return box


def _lists(
    entry: Mapping[str, Any], first_id: int, count: int, query_name: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Database ids of the three lists, ascending; no id is in two of them or twice in one."""
    found = []
    for key in LISTS:
        what = f"{key} of {query_name!r}"
        numbers = _numbers(entry[key], what)
        ids = numbers.astype(np.int64) - first_id
        if np.any(numbers % 1) or np.any((ids < 0) | (ids >= count)):
            raise _Fault(
                f"{what} must number images from {first_id} to {count - 1 + first_id}, got others"
            )
        found.append(np.sort(ids))
    ids, counts = np.unique(np.concatenate(found), return_counts=True)
    if np.any(counts > 1):
        raise _Fault(
            f"image must be in one list of {query_name!r} once, got "
            f"{ids[counts > 1][0] + first_id} more often"
        )
    easy, hard, junk = found
    return easy, hard, junk
