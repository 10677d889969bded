"""What a collection asks of the place that keeps it: a folder, or a cluster.

`Folder` in `embedded` and `Cluster` in `cluster` make the parts; `Collection` is the same above
both.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from opendelg.collection.catalogue import ImageFacts, ImageRow, RootRow, State, Totals
from opendelg.collection.packing import Precision
from opendelg.collection.recipe import Recipe
from opendelg.collection.records import FileStat


class AnyCatalogue(Protocol):
    """All that is known about the images; `catalogue.Catalogue` says more about each method."""

    def close(self) -> None:
        """Ends the connection; an open transaction is rolled back."""

    def snapshot(self) -> AbstractContextManager[None]:
        """All reads inside see one state, as far as the place can promise that."""

    def transaction(self) -> AbstractContextManager[None]:
        """All writes inside happen at the end, or none after an error; may be nested."""

    def state(self) -> State:
        """What is known about the whole."""

    def totals(self) -> Totals:
        """Numbers of all that is kept."""

    def fix_dimensions(self, global_dimensions: int, local_dimensions: int) -> None:
        """Sets the lengths of descriptors, once, when the first image is added."""

    def roots(self) -> list[RootRow]:
        """All roots in order of adding."""

    def put_root(self, root: RootRow) -> None:
        """Adds a root, or replaces the one of the same id."""

    def sample_paths(self, root_id: int) -> list[bytes]:
        """A few paths of images below a root."""

    def count(self) -> int:
        """Number of images."""

    def ids(self) -> np.ndarray:
        """(N,) int64, ascending."""

    def find_image(self, root_id: int, path: bytes) -> int | None:
        """Id of the image at `path`, None if there is none."""

    def knows(self, root_id: int, path: bytes) -> bool:
        """Whether there is an image or a failure at `path`."""

    def files(self, root_id: int, below: bytes) -> Iterator[tuple[Any, ...]]:
        """(path, id, file size, mtime_ns, sha256, failure) of all files whose path starts so."""

    def images(self, image_ids: list[int]) -> dict[int, ImageFacts]:
        """Facts by id; ids that are not there are left out."""

    def after(self, image_id: int, limit: int) -> list[ImageFacts]:
        """Facts of the first ``limit`` images with greater ids, in order of id."""

    def failures(self) -> list[tuple[int, bytes, str]]:
        """(root id, path, reason) of files that could not be read, in order of path."""

    def put_image(self, root_id: int, path: bytes, image: ImageRow) -> int:
        """Adds an image, or replaces the one at the same path and keeps its id."""

    def put_stat(self, image_id: int, stat: FileStat) -> None:
        """Replaces the facts of an image's file; its features stay."""

    def delete_image(self, image_id: int) -> bool:
        """Removes an image and its features; whether there was one."""

    def put_failure(self, root_id: int, path: bytes, stat: FileStat, reason: str) -> None:
        """Records that the file at `path` could not be read; an image there is removed."""

    def delete_failure(self, root_id: int, path: bytes) -> bool:
        """Forgets a failure; whether there was one."""

    def descriptor(self, image_id: int) -> bytes | None:
        """Global descriptor of one image, (D,) float32 little-endian; None without the image."""

    def descriptors(self) -> tuple[np.ndarray, np.ndarray]:
        """Ids (N,) int64, ascending, and global descriptors (N, D) float32 of all images."""

    def records(self, image_ids: list[int]) -> dict[int, bytes]:
        """Packed local features by id; ids that are not there are left out."""


class AnyIndex(Protocol):
    """Finds the nearest global descriptors."""

    def forget(self) -> None:
        """Drops what is in memory: it may never have been committed."""

    def search(self, query_descriptor: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Ids (K,) int64 and similarities (K,) float32 of the nearest, best first, ties by id."""

    def save(self) -> None:
        """Does what is worth doing after many changes."""

    def described(self) -> str:
        """How a search goes, in words."""


class AnyChecks(Protocol):
    """Tells whether what was put in is still there."""

    def problems(self) -> Iterable[str]:
        """Everything that is wrong, one line each."""

    def repair(self) -> list[str]:
        """Removes what belongs to nothing, and images that lack a part; one line for each."""

    def digest(self) -> str:
        """Hex SHA-256 of the content; see `checking.ContentDigest` for what it covers."""

    def num_bytes(self) -> int:
        """What the collection takes, search structure included."""


class Lock(Protocol):
    """The right to write."""

    def close(self) -> None:
        """Lets others write."""


@dataclass(frozen=True)
class Parts:
    """An open collection in pieces."""

    location: str  # as a user names it
    name: str  # the last part of it
    folder: Path | None  # None on a cluster
    catalogue: AnyCatalogue
    index: AnyIndex
    checks: AnyChecks
    lock: Lock | None  # None if it is open for reading


class Keeper(Protocol):
    """Where one collection is, or may be made."""

    def exists(self) -> bool:
        """Whether there is a collection."""

    def create(self, recipe: Recipe, precision: Precision) -> Parts:
        """An empty one, open for writing."""

    def open(self, read_only: bool) -> Parts:
        """The one that is there."""
