"""A collection: the images that were indexed, kept on disk and searched by descriptor.

It is in a folder, which holds `catalogue.sqlite` (all that is known), `nearest.faiss` and, where
there are many images, `nearest-*.segment` (derived, may be deleted), and `writer.lock` (empty); or
on a cluster (see `cluster`).  One process may write at a time; any number may read meanwhile, and
each sees the images committed so far.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import numpy as np

from opendelg.collection.catalogue import ImageFacts, ImageRow, State
from opendelg.collection.cluster import Cluster, is_cluster
from opendelg.collection.cluster.catalogue import ClusterCatalogue
from opendelg.collection.cluster.rows import Slot
from opendelg.collection.embedded import Folder
from opendelg.collection.interface import Keeper, Parts
from opendelg.collection.nearest import exact_similarities
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
from opendelg.errors import FormatError, OpenDelgError
from opendelg.features import ImageFeatures, LocalFeatures


class Collection:
    """An open collection: a context manager, which threads may share (their calls take turns)."""

    def __init__(self, parts: Parts) -> None:
        """Use `Collection.create` or `Collection.open`."""
        self.location = parts.location  # as a user names it
        self.name = parts.name  # the last part of it
        self._folder = parts.folder
        self._catalogue = parts.catalogue
        self._index = parts.index
        self._checks = parts.checks
        self._lock = parts.lock
        self._roots_now: Roots | None = None

    # -- opening and closing -------------------------------------------------------------------

    @classmethod
    def create(
        cls, location: Path | str, recipe: Recipe, precision: Precision = "int8"
    ) -> "Collection":
        """An empty collection, open for writing.

        Args:
            location: A folder, made if it is missing, which may hold other files but no
                collection; or the address of one on a cluster (see `cluster.address`).
            recipe: What will make the features.
            precision: How local descriptors are kept, see `packing`.

        Raises:
            FormatError: If there is a collection already.
            OpenDelgError: If it cannot be written, or another process writes to it.
        """
        if precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {PRECISIONS}, got {precision!r}")
        return cls(_keeper(location).create(recipe, precision))

    @classmethod
    def open(cls, location: Path | str, read_only: bool = False) -> "Collection":
        """The collection that is there.

        Args:
            location: As given to `create`, or where its folder was moved or copied to.
            read_only: Leave the catalogue as it is.  The index beside it, a cache, may still be
                refreshed; where that is not allowed it stays in memory.

        Raises:
            FormatError: If there is no collection, or it is damaged or of a newer version.
            OpenDelgError: If it is to be written and cannot be, or another process writes to it.
        """
        return cls(_keeper(location).open(read_only))

    @staticmethod
    def exists(location: Path | str) -> bool:
        """Whether there is a collection, or something else under its name."""
        return _keeper(location).exists()

    @property
    def folder(self) -> Path:
        """The folder that the collection is in; OpenDelgError if it is on a cluster."""
        if self._folder is None:
            raise OpenDelgError(
                f"collection must be in a folder for this, got {self.location!r}; "
                "use a folder, or do without what keeps files beside it"
            )
        return self._folder

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
                f"in {self.location!r}; use the collection's own weights and settings, "
                "or index into another collection"
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

    def reserve(
        self, files: Sequence[tuple[Path, Path]], dimensions: tuple[int, int]
    ) -> list[Slot]:
        """Where tasks on other machines may write the images of files, given with their roots.

        Only on a cluster; ids are given out for good.  `dimensions` are those of global and local
        descriptors.
        """
        if not isinstance(self._catalogue, ClusterCatalogue):
            raise OpenDelgError(
                f"collection must be on a cluster (milvus://...) for this, got {self.location!r}"
            )
        with self.batch():
            self._fix_dimensions(*dimensions, Path())
            return self._catalogue.reserve([self._place(path, root) for path, root in files])

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
            return self._catalogue.ids()

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
            return [
                Failure(roots.path(root_id, path), reason)
                for root_id, path, reason in self._catalogue.failures()
            ]

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
            rows = self._rows(ids)
            roots = self._roots()
        return [_stored_image(rows[image_id], roots) for image_id in ids]

    def images_after(self, image_id: int, limit: int) -> list[StoredImage]:
        """The first ``limit`` images with greater ids, in order of id."""
        with self.snapshot():
            found = self._catalogue.after(image_id, limit)
            roots = self._roots()
        return [_stored_image(facts, roots) for facts in found]

    def global_descriptors(self) -> tuple[np.ndarray, np.ndarray]:
        """Ids (N,) int64, ascending, and global descriptors (N, D) float32 of all images."""
        with self.snapshot():
            return self._catalogue.descriptors()

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
            return self._index.search(query_descriptor.astype(np.float32), k)

    # -- checking ------------------------------------------------------------------------------

    def verify(self) -> list[str]:
        """Reads everything and returns all faults, one line each; empty if there are none."""
        try:
            with self.snapshot():
                return list(self._checks.problems())
        except FormatError as error:
            return [str(error)]

    def repair(self) -> list[str]:
        """Removes what belongs to no image, and images that lack a part; one line for each.

        Photos whose images were removed are indexed again by the next `delg index`.
        """
        with self.batch():
            return self._checks.repair()

    def digest(self) -> str:
        """Hex SHA-256 of the content; see `checking.ContentDigest` for what it covers."""
        with self.snapshot():
            return self._checks.digest()

    def info(self) -> CollectionInfo:
        """Numbers about the collection."""
        with self.snapshot():
            state = self._state()
            recipe = Recipe.from_json(state.recipe)
            totals = self._catalogue.totals()
            return CollectionInfo(
                location=self.location,
                weights_name=recipe.weights_name,
                weights_sha256=recipe.weights_sha256,
                precision=state.precision,
                num_images=totals.num_images,
                num_failures=totals.num_failures,
                num_local=totals.num_local,
                global_dimensions=state.global_dimensions,
                local_dimensions=state.local_dimensions,
                roots=tuple(Path(place) for place in self._roots().locations.values()),
                num_bytes=self._checks.num_bytes(),
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
            self._roots_now = Roots(self._folder, rows, self._catalogue.sample_paths)
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


def _keeper(location: Path | str) -> Keeper:
    """What keeps a collection there."""
    return Cluster(str(location)) if is_cluster(location) else Folder(Path(location))
