"""A collection: the images that were indexed, kept on disk and searched by descriptor.

The folder holds `catalogue.sqlite` (all that is known), `nearest.faiss` and, where there are
many images, `nearest-*.segment` (derived, may be deleted), and `writer.lock` (empty).  One
process may write at a time; any number may read meanwhile, and each sees the images committed so
far.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import numpy as np

from opendelg.collection.catalogue import Catalogue, ImageFacts, ImageRow, State
from opendelg.collection.checking import catalogue_problems, digest, index_problems
from opendelg.collection.connection import lock_for_writing
from opendelg.collection.current_index import CurrentIndex
from opendelg.collection.nearest import exact_similarities, remove_drafts
from opendelg.collection.packing import PRECISIONS, Precision, unpack_local
from opendelg.collection.quantising import codebook_of, learn_if_due, packed
from opendelg.collection.recipe import Recipe
from opendelg.collection.records import (
    CollectionInfo,
    Failure,
    FileStat,
    StoredFile,
    StoredImage,
)
from opendelg.collection.roots import Roots, relative_bytes
from opendelg.collection.schema import create_catalogue
from opendelg.errors import FormatError, OpenDelgError
from opendelg.features import ImageFeatures, LocalFeatures
from opendelg.whole_files import remove_parts

_CATALOGUE_NAME = "catalogue.sqlite"
_INDEX_NAME = "nearest.faiss"


class Collection:
    """An open collection: a context manager, which threads may share (their calls take turns)."""

    def __init__(self, folder: Path, catalogue: Catalogue, lock: sqlite3.Connection | None) -> None:
        """Use `Collection.create` or `Collection.open`."""
        self.folder = folder
        self._catalogue = catalogue
        self._lock = lock
        self._index = CurrentIndex(catalogue, folder / _INDEX_NAME)
        self._roots_now: Roots | None = None

    # -- opening and closing -------------------------------------------------------------------

    @classmethod
    def create(cls, folder: Path, recipe: Recipe, precision: Precision = "int8") -> "Collection":
        """An empty collection in `folder`, open for writing.

        Args:
            folder: Made if it is missing; may hold other files, but no collection.
            recipe: What will make the features.
            precision: How local descriptors are kept, see `packing`.

        Raises:
            FormatError: If the folder holds a collection already.
            OpenDelgError: If the folder cannot be written, or another process writes to it.
        """
        if precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {PRECISIONS}, got {precision!r}")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OpenDelgError(
                f"collection must be in a folder that you may write, got {error}"
            ) from error
        lock = lock_for_writing(folder)
        try:
            if cls.exists(folder):
                raise FormatError(f"folder must not hold a collection yet, got {str(folder)!r}")
            create_catalogue(folder / _CATALOGUE_NAME, recipe.to_json(), precision)
            return cls(folder, Catalogue.open(folder / _CATALOGUE_NAME, read_only=False), lock)
        except BaseException:
            lock.close()
            raise

    @classmethod
    def open(cls, folder: Path, read_only: bool = False) -> "Collection":
        """The collection in `folder`.

        Args:
            folder: As given to `create`, or where it was moved or copied to.
            read_only: Leave the catalogue as it is.  The index beside it, a cache, may still be
                refreshed; where that is not allowed it stays in memory.

        Raises:
            FormatError: If there is no collection, or it is damaged or of a newer version.
            OpenDelgError: If it is to be written and cannot be, or another process writes to it.
        """
        path = folder / _CATALOGUE_NAME
        if not cls.exists(folder):
            raise FormatError(
                f"collection must be a folder made by `delg index`, got {str(folder)!r}"
            )
        lock = None if read_only else lock_for_writing(folder)
        try:
            catalogue = Catalogue.open(path, read_only)
        except BaseException:
            if lock is not None:
                lock.close()
            raise
        if not read_only:
            remove_drafts(folder / _INDEX_NAME)
            remove_parts(folder)  # of segments
        return cls(folder, catalogue, lock)

    @staticmethod
    def exists(folder: Path) -> bool:
        """Whether `folder` holds a collection, or something else under its name."""
        try:
            return (folder / _CATALOGUE_NAME).stat().st_size > 0
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise OpenDelgError(
                f"collection must be a folder that you may read, got {error}"
            ) from error

    def close(self) -> None:
        """Lets others write; may be repeated."""
        self._catalogue.close()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> "Collection":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Everything read inside is one state, even while another process indexes.

        Keep it short: other threads wait, and the writer's log grows meanwhile.
        """
        with self._catalogue.snapshot():
            yield

    # -- the recipe ----------------------------------------------------------------------------

    @property
    def recipe(self) -> Recipe:
        """What made the features."""
        return Recipe.from_json(self._state().recipe)

    @property
    def precision(self) -> str:
        """How local descriptors are kept."""
        return self._state().precision

    def require_recipe(self, recipe: Recipe) -> None:
        """Raises FormatError, naming all differences, unless `recipe` made this collection."""
        differences = self.recipe.differences(recipe)
        if differences:
            raise FormatError(
                f"recipe must be the one that made the collection, got {'; '.join(differences)} "
                f"in {str(self.folder)!r}; use the collection's own weights and settings, "
                "or index into another folder"
            )

    # -- writing -------------------------------------------------------------------------------

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Changes inside are committed together at the end, or not at all after an error."""
        try:
            with self._catalogue.transaction():
                yield
        except BaseException:
            self._index.forget()  # it may hold what was never committed
            raise

    def add(self, path: Path, root: Path, stat: FileStat, features: ImageFeatures) -> int:
        """Adds an image, or replaces the one at the same path and keeps its id.

        Args:
            path: The photo, below `root`.
            root: The folder that was indexed.
            stat: Facts of the file, to notice changes later.
            features: What was extracted from it, with this collection's recipe.

        Returns:
            The image's id: 1, 2, ... in order of adding.

        Raises:
            FormatError: If descriptors differ in length from those of the collection.
            ValueError: If the path is not below the root or the features are malformed.
        """
        descriptor = np.asarray(features.global_descriptor)
        if descriptor.ndim != 1 or not np.isfinite(descriptor).all():
            raise ValueError(
                f"global_descriptor must be a finite vector, got shape {descriptor.shape}"
            )
        with self.batch():
            image = ImageRow(
                stat=stat,
                size=(int(features.size[0]), int(features.size[1])),
                num_local=len(features.local),
                descriptor=descriptor.astype("<f4").tobytes(),
                record=packed(self._catalogue, features.local),
            )
            self._fix_dimensions(len(descriptor), features.local.descriptors.shape[1], path)
            image_id = self._catalogue.put_image(*self._place(path, root), image)
            learn_if_due(self._catalogue)
            return image_id

    def add_failure(self, path: Path, root: Path, stat: FileStat, reason: str) -> None:
        """Records that a file could not be read; an image that was there is removed."""
        printable = reason.encode("utf-8", "backslashreplace").decode("utf-8")
        with self.batch():
            self._catalogue.put_failure(*self._place(path, root), stat, printable)

    def touch(self, image_id: int, stat: FileStat) -> None:
        """Replaces the facts of a file whose content turned out to be unchanged."""
        with self.batch():
            self._rows([image_id])
            self._catalogue.put_stat(image_id, stat)

    def remove(self, items: Iterable[int | Path]) -> int:
        """Removes images by id or path, and failures by path: all of them, or none.

        Returns:
            Number of images and failures removed.

        Raises:
            OpenDelgError: If the collection lacks one of them.
        """
        num_removed = 0
        with self.batch():
            for item in items:
                if not self._remove(item):
                    raise OpenDelgError(
                        f"image must be in the collection, got {_shown(item)}; nothing was removed"
                    )
                num_removed += 1
        return num_removed

    def refresh_root(self, folder: Path) -> None:
        """Notes where the roots in or above a folder are now: they may have been moved along."""
        with self.batch():
            roots = self._roots()
            for root_id, _, _ in roots.overlapping(folder):
                location = roots.locations[root_id]
                row = roots.row_for(Path(location))
                if row.id == root_id and os.path.isdir(location) and not roots.is_stored(row):
                    self._catalogue.put_root(row)

    def update_index(self) -> None:
        """Brings the saved search index up to date; call it after adding or removing."""
        with self.snapshot():
            self._index.save()

    # -- reading -------------------------------------------------------------------------------

    def __len__(self) -> int:
        with self.snapshot():
            return self._catalogue.count()

    def ids(self) -> np.ndarray:
        """(N,) int64 ids of all images, ascending."""
        with self.snapshot():
            rows = self._catalogue.query("SELECT id FROM images ORDER BY id").fetchall()
        return np.array(rows, np.int64).reshape(-1)

    def known(self, root: Path) -> dict[Path, StoredFile]:
        """Every file below the folder `root` that was indexed or failed, by relative path."""
        files = {}
        with self.snapshot():
            for root_id, above, below in self._roots().overlapping(root):
                for path, *facts in self._catalogue.files(root_id, below):
                    relative = Path(above, os.fsdecode(path[len(below) :]))
                    files[relative] = StoredFile(*facts)
        return files

    def failures(self) -> list[Failure]:
        """Files that could not be read, in order of path."""
        with self.snapshot():
            roots = self._roots()
            rows = self._catalogue.query(
                "SELECT root_id, path, reason FROM failures ORDER BY path, root_id"
            )
            return [Failure(roots.path(root_id, path), reason) for root_id, path, reason in rows]

    def find(self, path: Path) -> int | None:
        """Id of the image at `path`, None if it is not in the collection."""
        with self.snapshot():
            for root_id, relative in self._roots().resolve(path):
                image_id = self._catalogue.find_image(root_id, relative)
                if image_id is not None:
                    return image_id
        return None

    def image(self, image_id: int) -> StoredImage:
        """One image; OpenDelgError if the collection lacks it."""
        return self.images([image_id])[0]

    def images(self, image_ids: Sequence[int] | np.ndarray) -> list[StoredImage]:
        """The images of these ids, in their order; OpenDelgError if one is missing."""
        ids = [int(image_id) for image_id in image_ids]
        with self.snapshot():
            roots = self._roots()
            rows = self._rows(ids)
        return [_stored_image(rows[image_id], roots) for image_id in ids]

    def images_after(self, image_id: int, limit: int) -> list[StoredImage]:
        """The first ``limit`` images with greater ids, in order of id."""
        with self.snapshot():
            roots = self._roots()
            return [_stored_image(facts, roots) for facts in self._catalogue.after(image_id, limit)]

    def global_descriptors(self) -> tuple[np.ndarray, np.ndarray]:
        """Ids (N,) int64, ascending, and global descriptors (N, D) float32 of all images."""
        with self.snapshot():
            count = self._catalogue.count()
            ids = np.zeros(count, np.int64)
            descriptors = np.zeros((count, self._state().global_dimensions or 0), np.float32)
            for row, (image_id, _, found) in enumerate(self._catalogue.descriptors_after(0)):
                ids[row] = image_id
                descriptors[row] = found
        return ids, descriptors

    def global_descriptor(self, image_id: int) -> np.ndarray:
        """Global descriptor (D,) float32 of one image; OpenDelgError if it is not there."""
        with self.snapshot():
            stored = self._catalogue.descriptor(image_id)
        if stored is None:
            raise OpenDelgError(f"image must be in the collection, got id {image_id}")
        return np.frombuffer(stored, "<f4").astype(np.float32)

    def similarity(self, image_id: int, query_descriptor: np.ndarray) -> float:
        """Similarity of one image and a query descriptor (D,), as `nearest` gives it."""
        stored = self.global_descriptor(image_id)
        return float(exact_similarities(stored[None], query_descriptor)[0])

    def local_features(self, image_ids: Sequence[int] | np.ndarray) -> list[LocalFeatures]:
        """Local features of these images, in their order; OpenDelgError if one is missing."""
        ids = [int(image_id) for image_id in image_ids]
        with self.snapshot():
            records = self._catalogue.records(ids)
            codebook = codebook_of(self._catalogue)
        features = []
        for image_id in ids:
            if image_id not in records:
                raise OpenDelgError(f"image must be in the collection, got id {image_id}")
            try:
                features.append(unpack_local(records[image_id], codebook))
            except FormatError as error:
                raise FormatError(
                    f"local features of image {image_id} must be intact, got: {error}; "
                    "`delg verify` lists all damage, index these photos again"
                ) from error
        return features

    def nearest(self, query_descriptor: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The min(k, N) images most similar to a query: exactly, or nearly where there are many.

        From 65,536 images on, one-bit codes choose what is measured exactly; they find at least
        0.99 of the 100 nearest on average, or are not used (see `codes`).

        Args:
            query_descriptor: (D,) float32, unit length.
            k: Number of images wanted, at least 1.

        Returns:
            ids (K,) int64 and similarities (K,) float32, most similar first, ties by id.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        with self.snapshot():
            dimensions = self._state().global_dimensions
            if dimensions is None:
                return np.zeros(0, np.int64), np.zeros(0, np.float32)
            if not np.isfinite(query_descriptor).all():
                raise ValueError("query_descriptor must be finite, got NaN or infinity")
            if query_descriptor.shape != (dimensions,):
                raise ValueError(
                    f"query_descriptor must have shape {(dimensions,)}, "
                    f"got {query_descriptor.shape}"
                )
            return self._index.get().search(query_descriptor.astype(np.float32), k)

    # -- checking ------------------------------------------------------------------------------

    def verify(self) -> list[str]:
        """Reads everything and returns all faults, one line each; empty if there are none."""
        try:
            with self.snapshot():
                problems = catalogue_problems(self._catalogue)
                if not problems:
                    problems += index_problems(self._catalogue, self.folder / _INDEX_NAME)
        except FormatError as error:
            return [str(error)]
        return problems

    def digest(self) -> str:
        """Hex SHA-256 of the content; see `checking.digest` for what it covers."""
        with self.snapshot():
            return digest(self._catalogue)

    def info(self) -> CollectionInfo:
        """Numbers about the collection."""
        with self.snapshot():
            state = self._state()
            recipe = Recipe.from_json(state.recipe)
            query = self._catalogue.query
            (num_failures,) = query("SELECT count(*) FROM failures").fetchone()
            return CollectionInfo(
                folder=self.folder,
                weights_name=recipe.weights_name,
                weights_sha256=recipe.weights_sha256,
                precision=state.precision,
                num_images=self._catalogue.count(),
                num_failures=num_failures,
                num_local=self._catalogue.num_local(),
                global_dimensions=state.global_dimensions,
                local_dimensions=state.local_dimensions,
                roots=tuple(Path(place) for place in self._roots().locations.values()),
                num_bytes=_bytes_below(self.folder),
                search=self._index.described(),
                revision=state.revision,
            )

    # -- inside --------------------------------------------------------------------------------

    def _state(self) -> State:
        with self.snapshot():
            return self._catalogue.state()

    def _roots(self) -> Roots:
        """The roots of this snapshot, resolved again only when others were added."""
        rows = self._catalogue.roots()
        if self._roots_now is None or self._roots_now.rows != rows:
            self._roots_now = Roots(self.folder, rows, self._catalogue.sample_paths)
        return self._roots_now

    def _rows(self, ids: list[int]) -> dict[int, ImageFacts]:
        rows = self._catalogue.images(ids)
        for image_id in ids:
            if image_id not in rows:
                raise OpenDelgError(f"image must be in the collection, got id {image_id}")
        return rows

    def _place(self, path: Path, root: Path) -> tuple[int, bytes]:
        """Root id and relative path under which a file is stored, or will be."""
        try:
            below = Path(os.path.abspath(path)).relative_to(os.path.abspath(root))
        except ValueError as error:
            raise ValueError(
                f"path must lie below the root {str(root)!r}, got {str(path)!r}"
            ) from error
        row = self._roots().row_for(root)
        # A folder inside another one that was indexed: the same file must not count twice.
        for place in self._roots().containing(os.path.join(os.fsdecode(row.absolute), below)):
            if self._catalogue.knows(*place):
                return place
        if not self._roots().is_stored(row):
            self._catalogue.put_root(row)
        return row.id, relative_bytes(below)

    def _fix_dimensions(self, num_global: int, num_local: int, path: Path) -> None:
        state = self._catalogue.state()
        if state.global_dimensions is None:
            self._catalogue.fix_dimensions(num_global, num_local)
        elif (num_global, num_local) != (state.global_dimensions, state.local_dimensions):
            raise FormatError(
                f"descriptors must have {state.global_dimensions} (global) and "
                f"{state.local_dimensions} (local) columns, got {num_global} and {num_local} "
                f"for {str(path)!r}; they were extracted with another model"
            )

    def _remove(self, item: int | Path) -> bool:
        if not isinstance(item, Path):
            return self._catalogue.delete_image(int(item))
        for root_id, relative in self._roots().resolve(item):
            image_id = self._catalogue.find_image(root_id, relative)
            if image_id is not None:
                return self._catalogue.delete_image(image_id)
            if self._catalogue.delete_failure(root_id, relative):
                return True
        return False


def _stored_image(facts: ImageFacts, roots: Roots) -> StoredImage:
    return StoredImage(
        id=facts.id,
        path=roots.path(facts.root_id, facts.path),
        relative=Path(os.fsdecode(facts.path)),
        size=(facts.width, facts.height),
        num_local=facts.num_local,
    )


def _shown(item: int | Path) -> str:
    return repr(str(item)) if isinstance(item, Path) else f"id {item}"


def _bytes_below(folder: Path) -> int:
    """Size of the files in a folder, as far as they stay while they are counted."""
    total = 0
    for entry in os.scandir(folder):
        try:
            total += entry.stat().st_size if entry.is_file() else 0
        except FileNotFoundError:
            continue
    return total
