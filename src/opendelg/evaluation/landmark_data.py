"""Google Landmarks v2 on disk, as a database and queries: what its two protocols share.

The folder holds ``index``, ``test`` and ``train`` with their images, in tars or unpacked, and the
.csv files: itself, in ``metadata`` or ``ground_truth``, or in the folder of their images.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from opendelg.datasets.landmark_benchmark import (
    Solution,
    read_image_list,
    read_labelled_images,
    read_recognition_solution,
    read_retrieval_solution,
)
from opendelg.datasets.landmark_images import (
    LandmarkImages,
    find_landmark_images,
    unpacked_name,
)
from opendelg.datasets.landmarks import id_text
from opendelg.errors import OpenDelgError
from opendelg.evaluation.provenance import hash_of_file
from opendelg.image import read_file

RETRIEVAL_SOLUTION = "retrieval_solution_v2.1.csv"
RECOGNITION_SOLUTION = "recognition_solution_v2.1.csv"
TAR_INDEX_NAME = "tar_index.npz"  # as training keeps it
MAX_EXAMPLES = 5  # images that a note names

ListName = Literal["train_clean.csv", "train.csv"]


@dataclass(frozen=True)
class Split:
    """Images of one split of the dataset that are there; they are numbered in this order."""

    name: str  # index, test or train
    ids: np.ndarray  # (N,) uint64
    images: LandmarkImages
    places: np.ndarray  # (N,) int64, positions in ``images``

    def path(self, number: int) -> Path:
        """Where an image lies; of one in a tar, below the tar as if it were a folder."""
        return self.images.name(int(self.places[number]))

    def read(self, number: int) -> bytes:
        """The bytes of an image's file; raises ImageError if that cannot be read."""
        member = self.images.member(int(self.places[number]))
        return read_file(self.path(number)) if member is None else member.read()

    def names(self) -> list[str]:
        """Ids of all images as text."""
        return [id_text(image_id) for image_id in self.ids.tolist()]

    def listed_path(self, number: int) -> str:
        """Where an unpacked image lies below the dataset: the same wherever it is now."""
        return f"{self.name}/{unpacked_name(id_text(int(self.ids[number])))}"

    def local_source(self, number: int) -> tuple[Path, partial[bytes]]:
        """An image for `KeptLocal`."""
        return self.path(number), partial(self.read, number)

    def sources(self, numbers: np.ndarray) -> Iterator[tuple[str, partial[bytes]]]:
        """Images (K,) int64 for `fill_shards`, made when asked for."""
        for number in numbers.tolist():
            yield id_text(int(self.ids[number])), partial(self.read, number)


@dataclass(frozen=True)
class LandmarkBenchmark:
    """A database, and queries with what they should find."""

    database: Split
    queries: Split  # in the order of the solution
    solution: Solution  # one entry per image of ``queries``
    labels: np.ndarray | None  # (N,) int64 landmarks of the database; None for retrieval
    test_ids: np.ndarray  # (T,) uint64, all that a submission lists
    notes: tuple[str, ...]
    about: dict[str, Any]  # names, counts and hashes
    is_subset: bool  # images are missing


def open_retrieval(
    folder: Path, solution: Path | None = None, subset: bool = False, cache: Path | None = None
) -> LandmarkBenchmark:
    """The retrieval benchmark: index images as the database.

    Args:
        folder: The dataset as downloaded.
        solution: Its .csv file; None: the official one below ``folder``.
        subset: Take the images that are there instead of refusing.
        cache: Folder for the indexes of tars whose own folder cannot be written.

    Raises:
        OpenDelgError: If files are missing or wrong, or, without ``subset``, images are.
        FileNotFoundError: If the folder does not exist.
    """
    table = solution or find_table(folder, RETRIEVAL_SOLUTION, "test")
    listed = find_table(folder, "index.csv", "index")
    solved = read_retrieval_solution(table)
    return _open(
        folder, ("index", listed, read_image_list(listed)), None, table, solved, subset, cache
    )


def open_recognition(
    folder: Path,
    solution: Path | None = None,
    list_name: ListName = "train_clean.csv",
    subset: bool = False,
    cache: Path | None = None,
) -> LandmarkBenchmark:
    """The recognition benchmark: labelled training images as the database.

    Args:
        folder: The dataset as downloaded.
        solution: Its .csv file; None: the official one below ``folder``.
        list_name: Which images the database holds.
        subset: Take the images that are there instead of refusing.
        cache: Folder for the indexes of tars whose own folder cannot be written.

    Raises:
        OpenDelgError: If files are missing or wrong, or, without ``subset``, images are.
        FileNotFoundError: If the folder does not exist.
    """
    table = solution or find_table(folder, RECOGNITION_SOLUTION, "test")
    solved = read_recognition_solution(table)
    path = find_table(folder, list_name, "train")
    listed = read_labelled_images(path)
    opened = _open(
        folder,
        ("train", path, listed.ids),
        listed.landmark_ids[listed.labels],
        table,
        solved,
        subset,
        cache,
    )
    disputed = listed.images_with_two_labels
    if disputed.count == 0:
        return opened
    note = f"{disputed.count} database images have two landmarks in {list_name} and are left out"
    return replace(opened, notes=(*opened.notes, note))


def find_table(folder: Path, name: str, split: str) -> Path:
    """Where a .csv file of the dataset lies.

    Raises:
        OpenDelgError: If it is in none of its places.
        FileNotFoundError: If the folder does not exist.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"dataset must be an existing folder, got {str(folder)!r}")
    for place in (folder, folder / "metadata", folder / "ground_truth", folder / split):
        if (place / name).is_file():
            return place / name
    raise OpenDelgError(
        f"dataset must hold {name!r}, itself or in metadata, ground_truth or {split}, "
        f"got {str(folder)!r}"
    )


def _open(
    folder: Path,
    listed: tuple[str, Path, np.ndarray],
    labels: np.ndarray | None,
    table: Path,
    solution: Solution,
    subset: bool,
    cache: Path | None,
) -> LandmarkBenchmark:
    split, list_path, ids = listed
    tests = find_table(folder, "test.csv", "test")
    test_ids = read_image_list(tests)
    strangers = ~np.isin(solution.query_ids, test_ids)
    if strangers.any():
        raise OpenDelgError(
            f"queries of {str(table)!r} must be in {str(tests)!r}, got {int(strangers.sum())} that "
            f"are not: {_examples(solution.query_ids[strangers])}"
        )
    database = _find_split(folder, split, ids, cache)
    queries = _find_split(folder, "test", solution.query_ids, cache)
    notes: tuple[str, ...] = ()
    database_there, queries_there = database.places >= 0, queries.places >= 0
    if not (database_there.all() and queries_there.all()):
        if not subset:
            part = queries if database_there.all() else database
            _refuse(part, "query" if part is queries else "database")
        notes = (
            f"SUBSET: {int(database_there.sum())} of {len(ids)} database images and "
            f"{int(queries_there.sum())} of {len(queries.ids)} queries; "
            "not comparable with published figures",
        )
    taken = _taken(database, database_there)
    asked = np.flatnonzero(queries_there)
    for part, count in ((taken, len(taken.ids)), (queries, len(asked))):
        if count == 0:
            _refuse(part, "query" if part is queries else "database")
    about = {
        "list": list_path.name,
        "list_sha256": hash_of_file(list_path),
        "solution": table.name,
        "solution_sha256": hash_of_file(table),
        "database": len(taken.ids),
        "queries": len(asked),
        "ignored": solution.num_ignored,
    }
    return LandmarkBenchmark(
        taken,
        _taken(queries, queries_there),
        solution.take(asked),
        None if labels is None else labels[database_there],
        test_ids,
        notes,
        about,
        bool(notes),
    )


def _find_split(folder: Path, name: str, ids: np.ndarray, cache: Path | None) -> Split:
    home = folder / name
    # What is listed may not be there at all: the error about missing images says so.
    index = home / TAR_INDEX_NAME
    if cache is not None and not os.access(home, os.W_OK):
        index = cache / f"{name}_{TAR_INDEX_NAME}"
    images = find_landmark_images(home, index)
    return Split(name, ids, images, images.positions(ids))


def _taken(split: Split, is_taken: np.ndarray) -> Split:
    return Split(split.name, split.ids[is_taken], split.images, split.places[is_taken])


def _refuse(split: Split, role: str) -> None:
    """Raise the error about missing images."""
    missing = split.ids[split.places < 0]
    damaged = split.images.damaged_tars
    tars = f"; {damaged.count} damaged tars: {'; '.join(damaged.examples)}" if damaged.count else ""
    raise OpenDelgError(
        f"every {role} image must be in {str(split.images.folder)!r}, got {len(missing)} missing "
        f"of {len(split.ids)}: {_examples(missing)}{tars}; they are read from images_000.tar and "
        "so on, or unpacked from a/b/c/<id>.jpg; --subset evaluates those that are there"
    )


def _examples(ids: np.ndarray) -> str:
    more = ", ..." if len(ids) > MAX_EXAMPLES else ""
    return ", ".join(map(id_text, ids[:MAX_EXAMPLES].tolist())) + more
