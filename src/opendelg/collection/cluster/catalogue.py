"""What is known about the images of a collection on a cluster: rows in Milvus, features in S3.

Milvus has no transactions: changes are gathered and written at the end, in an order that leaves
every image whole or absent whenever the process dies.  Only the holder of the lease writes here;
what it has read of the files stays true meanwhile and is not read again.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np

from opendelg.collection.catalogue import ImageFacts, ImageRow, RootRow, State, Totals
from opendelg.collection.cluster.address import Address
from opendelg.collection.cluster.lease import Lease
from opendelg.collection.cluster.packs import FeaturePacks
from opendelg.collection.cluster.place import parse_place, place_of
from opendelg.collection.cluster.rows import (
    ALL_BUT_DESCRIPTOR,
    NewImage,
    Slot,
    descriptor_of,
    facts_of,
    is_sound,
    position_of,
    row_of,
    write_images,
)
from opendelg.collection.cluster.tables import Row, Tables
from opendelg.collection.packing import Precision
from opendelg.collection.records import FileStat
from opendelg.errors import FormatError, OpenDelgError

VERSION = 1  # of the tables
_FAILURE = "failure/"  # beginning of a note's key
_ROOT = "root/"
_HEADS_SECONDS = 5.0  # for which a reader takes state and roots as they were
_WINDOW = 4096  # ids looked at together


@dataclass(frozen=True)
class Heads:
    """What is written about the whole, apart from images and failures."""

    identity: str
    recipe: str
    precision: Precision
    revision: int
    next_id: int
    global_dimensions: int | None
    local_dimensions: int | None
    features: str  # s3:// address that it was made with
    roots: dict[int, RootRow] = field(default_factory=dict)

    @classmethod
    def from_notes(cls, notes: dict[str, Any], location: str) -> "Heads":
        """The heads of an opened collection; FormatError if they are not ours."""
        try:
            values = dict(notes["state"])
            version = values.pop("version")
            if version != VERSION:
                raise FormatError(
                    f"collection must have version {VERSION}, got {version} at {location!r}; "
                    "it was made by another opendelg"
                )
            roots = {
                int(key.removeprefix(_ROOT)): RootRow(
                    int(key.removeprefix(_ROOT)), parse_place(f"0/{value}")[1], None, b""
                )
                for key, value in sorted(notes.items())
                if key.startswith(_ROOT)
            }
            return cls(**values, roots=roots)
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(
                f"collection must be one made by `delg index`, got another at {location!r}"
            ) from error

    def notes(self) -> dict[str, Any]:
        """The notes that say so."""
        values = {name: value for name, value in vars(self).items() if name != "roots"}
        roots = {
            f"{_ROOT}{root.id:06}": place_of(0, root.absolute).removeprefix("0/")
            for root in self.roots.values()
        }
        return {**roots, "state": {"version": VERSION, **values}}


@dataclass
class _Changes:
    """What a transaction will write, by place."""

    heads: Heads
    images: dict[str, NewImage | None] = field(default_factory=dict)  # None: to be removed
    replaced: list[str] = field(default_factory=list)  # by tasks, from now on
    stats: dict[str, FileStat] = field(default_factory=dict)  # of images that stay
    failures: dict[str, dict[str, Any] | None] = field(default_factory=dict)  # None: forgotten

    def copy(self) -> "_Changes":
        return _Changes(
            self.heads,
            dict(self.images),
            list(self.replaced),
            dict(self.stats),
            dict(self.failures),
        )


class ClusterCatalogue:
    """An open catalogue on a cluster.  Threads may share it: transactions take turns."""

    def __init__(
        self, address: Address, tables: Tables, packs: FeaturePacks, lease: Lease | None
    ) -> None:
        self._address = address
        self._tables = tables
        self._packs = packs
        self._lease = lease
        self._mutex = threading.RLock()
        self._changes: _Changes | None = None
        self._files: dict[str, int | None] = {}  # id by place, None: a failure
        self._places: dict[int, str] = {}  # by id, of images in `_files`
        self._asked_for: set[str] = set()  # places that are in `_files` or nowhere
        self._complete: list[str] = []  # beginnings of places that are all in `_files`
        self._dropped_packs: set[str] = set()
        self._thread = threading.local()
        self._heads: Heads | None = None
        self._heads_read_at = 0.0

    def close(self) -> None:
        """Ends the connections."""
        self._packs.close()
        self._tables.close()

    # -- transactions --------------------------------------------------------------------------

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Rows that are read inside are kept: what was found is what is shown and compared."""
        if self._kept() is not None:
            yield
            return
        self._thread.rows = {}
        try:
            yield
        finally:
            self._thread.rows = None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All writes inside happen at the end, or none after an error; may be nested."""
        if self._lease is None:
            raise OpenDelgError(
                "collection must be open for writing to change it, got a read-only one at "
                f"{self._address.location!r}"
            )
        with self._mutex:
            before = None if self._changes is None else self._changes.copy()
            if before is None:
                self._changes = _Changes(self._read_heads())
            try:
                yield
                if before is None:
                    self._commit()
            except BaseException:
                self._changes = before
                raise
            finally:
                if before is None:
                    self._changes = None

    def _commit(self) -> None:
        """Writes features, then rows, then what refers to neither."""
        changes = self._changed()
        new = [image for image in changes.images.values() if image is not None]
        stale = [place for place, image in changes.images.items() if image is None]
        before = self._heads
        assert before is not None
        rewritten = [image.place for image in new if image.id < before.next_id]
        rewritten += stale + changes.replaced
        touched = [place for place in changes.stats if place not in changes.images]
        if not (rewritten or new or touched or changes.failures or changes.heads != before):
            return
        self.require_lease()
        old = self._tables.images_among("place", rewritten, ["pack"]) if rewritten else []
        if changes.heads.global_dimensions is not None:
            self._tables.create_images(changes.heads.global_dimensions)
        heads = replace(changes.heads, revision=changes.heads.revision + 1)
        self._tables.put_notes(heads.notes())
        self._heads = heads
        write_images(self._tables, self._packs, new)
        self._touch({place: changes.stats[place] for place in touched})
        self._tables.delete_images(stale)
        failures = {_FAILURE + place: value for place, value in changes.failures.items()}
        self._tables.put_notes({key: value for key, value in failures.items() if value is not None})
        self._tables.delete_notes([key for key, value in failures.items() if value is None])
        self._dropped_packs |= {row["pack"] for row in old}
        self._remember(changes)

    def require_lease(self) -> None:
        """Raises OpenDelgError unless this process still has the right to write."""
        assert self._lease is not None
        self._lease.require()

    def _remember(self, changes: _Changes) -> None:
        for place, value in changes.failures.items():
            if value is None:
                self._files.pop(place, None)
            else:
                self._files[place] = None
        for place, image in changes.images.items():
            gone = self._files.get(place)
            if image is not None:
                self._files[place] = image.id
                self._places[image.id] = place
                continue
            if gone is not None:
                self._places.pop(gone, None)
            if changes.failures.get(place) is None:
                self._files.pop(place, None)

    def _touch(self, stats: dict[str, FileStat]) -> None:
        rows = self._tables.images_among("place", list(stats), [*ALL_BUT_DESCRIPTOR, "descriptor"])
        self._tables.put_images(
            [
                row_of(
                    facts_of(row)._replace(**_stat_facts(stats[row["place"]])),
                    position_of(row),
                    descriptor_of(row),
                )
                for row in rows
            ]
        )

    def _changed(self) -> _Changes:
        if self._changes is None:
            raise RuntimeError("collection must be changed inside a transaction")
        return self._changes

    def drop_unused_packs(self) -> None:
        """Removes the packs whose images this process has all removed or replaced."""
        for pack in sorted(self._dropped_packs):
            if self._tables.count_images(f'pack == "{pack}"') == 0:
                self._packs.delete(pack)
        self._dropped_packs.clear()

    def forget_files(self) -> None:
        """Tasks have written: what was known of the files is to be read again."""
        for known in (self._files, self._places, self._complete, self._asked_for):
            known.clear()

    # -- the whole -----------------------------------------------------------------------------

    def _read_heads(self) -> Heads:
        """State and roots: a writer's own, or those of a moment ago."""
        if self._changes is not None:
            return self._changes.heads
        is_old = time.monotonic() - self._heads_read_at > _HEADS_SECONDS
        if self._heads is None or (self._lease is None and is_old):
            self._heads = Heads.from_notes(self._tables.heads(), self._address.location)
            self._heads_read_at = time.monotonic()
        return self._heads

    def state(self) -> State:
        """What is known about the whole."""
        heads = self._read_heads()
        return State(
            heads.identity,
            heads.recipe,
            heads.precision,
            heads.revision,
            0,
            heads.global_dimensions,
            heads.local_dimensions,
        )

    def totals(self) -> Totals:
        """Numbers of all that is kept; reads a column of every row."""
        num_local = sum(row["num_local"] for row in self._tables.scan_images("", ["num_local"]))
        return Totals(self.count(), num_local, self._tables.count_notes(_FAILURE))

    def fix_dimensions(self, global_dimensions: int, local_dimensions: int) -> None:
        """Sets the lengths of descriptors, once, when the first image is added."""
        changes = self._changed()
        changes.heads = replace(
            changes.heads, global_dimensions=global_dimensions, local_dimensions=local_dimensions
        )

    def roots(self) -> list[RootRow]:
        """All roots in order of adding."""
        return list(self._read_heads().roots.values())

    def put_root(self, root: RootRow) -> None:
        """Adds a root, or replaces the one of the same id."""
        changes = self._changed()
        if root.id not in changes.heads.roots:
            self._complete.append(place_of(root.id, b""))  # nothing is below it yet
        changes.heads = replace(changes.heads, roots={**changes.heads.roots, root.id: root})

    def sample_paths(self, root_id: int) -> list[bytes]:
        """None: roots are absolute here, and looked for nowhere else."""
        return []

    def reserve(self, files: list[tuple[int, bytes]]) -> list[Slot]:
        """Where tasks may write the images of files: with the ids they have, or new ones."""
        if self._address.is_file:
            raise OpenDelgError(
                "collection must be on a Milvus server for tasks to write to it, got the file "
                f"{self._address.server!r}; index without --ray"
            )
        slots = []
        for root_id, path in files:
            known = self.find_image(root_id, path)
            slots.append(Slot(self.reserve_ids(1) if known is None else known, root_id, path))
            if known is not None:
                self._changed().replaced.append(place_of(root_id, path))
        return slots

    def reserve_ids(self, count: int) -> int:
        """The first of so many ids that nobody else will give; inside a transaction."""
        changes = self._changed()
        first = changes.heads.next_id
        changes.heads = replace(changes.heads, next_id=first + count)
        return first

    # -- files ---------------------------------------------------------------------------------

    def count(self) -> int:
        """Number of images."""
        return self._tables.count_images()

    def ids(self) -> np.ndarray:
        """(N,) int64, ascending."""
        return np.sort(np.array([r["id"] for r in self._tables.scan_images("", ["id"])], np.int64))

    def find_image(self, root_id: int, path: bytes) -> int | None:
        """Id of the image at `path`, None if there is none."""
        return self._find(place_of(root_id, path))[0]

    def knows(self, root_id: int, path: bytes) -> bool:
        """Whether there is an image or a failure at `path`."""
        image_id, has_failure = self._find(place_of(root_id, path))
        return image_id is not None or has_failure

    def _find(self, place: str) -> tuple[int | None, bool]:
        """Id of the image at a place, and whether there is a failure instead."""
        changes = self._changes
        if changes is not None and (place in changes.images or place in changes.failures):
            image = changes.images.get(place)
            return (image.id if image else None), changes.failures.get(place) is not None
        if place in self._asked_for or any(place.startswith(below) for below in self._complete):
            image_id = self._files.get(place)
            return image_id, image_id is None and place in self._files
        rows = self._tables.images(f'place == "{place}"', ["id"])
        image_id = int(rows[0]["id"]) if rows else None
        has_failure = image_id is None and self._tables.has_note(_FAILURE + place)
        if self._lease is not None:
            self._asked_for.add(place)
            if rows or has_failure:
                self._files[place] = image_id
            if image_id is not None:
                self._places[image_id] = place
        return image_id, has_failure

    def files(self, root_id: int, below: bytes) -> Iterator[tuple[Any, ...]]:
        """(path, id, file size, mtime_ns, sha256, failure) of all files whose path starts so."""
        start = place_of(root_id, below)
        fields = ["place", "id", "file_size", "mtime_ns", "sha256"]
        files: dict[str, tuple[Any, ...]] = {}
        for key, value in self._tables.notes(_FAILURE + start).items():
            place = key.removeprefix(_FAILURE)
            files[place] = (
                None,
                value["file_size"],
                value["mtime_ns"],
                value["sha256"],
                value["reason"],
            )
        for row in self._tables.scan_images(f'place like "{start}%"', fields):
            # A failure of before, left by a crash, counts no more.
            sha256 = row["sha256"] or None
            files[row["place"]] = (row["id"], row["file_size"], row["mtime_ns"], sha256, None)
        if self._lease is not None:
            self._files |= {place: facts[0] for place, facts in files.items()}
            self._places |= {facts[0]: place for place, facts in files.items() if facts[0]}
            self._complete.append(start)
        for place, facts in sorted(files.items()):
            yield (parse_place(place)[1], *facts)

    def failures(self) -> list[tuple[int, bytes, str]]:
        """(root id, path, reason) of files that could not be read, in order of path."""
        found = [
            (*parse_place(key.removeprefix(_FAILURE)), value["reason"])
            for key, value in self._tables.notes(_FAILURE).items()
        ]
        return sorted(found, key=lambda failure: (failure[1], failure[0]))

    # -- images --------------------------------------------------------------------------------

    def put_image(self, root_id: int, path: bytes, image: ImageRow) -> int:
        """Adds an image, or replaces the one at the same path and keeps its id."""
        changes = self._changed()
        known, had_failure = self._find(place_of(root_id, path))
        image_id = self.reserve_ids(1) if known is None else known
        new = NewImage(image_id, root_id, path, image)
        changes.images[new.place] = new
        changes.stats.pop(new.place, None)
        if had_failure:
            changes.failures[new.place] = None
        return image_id

    def put_stat(self, image_id: int, stat: FileStat) -> None:
        """Replaces the facts of an image's file; its features stay."""
        place = self._place_of_image(image_id)
        if place is None:
            return
        changes = self._changed()
        image = changes.images.get(place)
        if image is None:
            changes.stats[place] = stat
        else:
            changes.images[place] = replace(image, row=replace(image.row, stat=stat))

    def delete_image(self, image_id: int) -> bool:
        """Removes an image and its features; whether there was one."""
        place = self._place_of_image(image_id)
        if place is None:
            return False
        self._changed().images[place] = None
        return True

    def put_failure(self, root_id: int, path: bytes, stat: FileStat, reason: str) -> None:
        """Records that the file at `path` could not be read; an image there is removed."""
        changes = self._changed()
        place = place_of(root_id, path)
        if self.find_image(root_id, path) is not None:
            changes.images[place] = None
        changes.failures[place] = {
            "file_size": stat.size,
            "mtime_ns": stat.mtime_ns,
            "sha256": stat.sha256,
            "reason": reason,
        }

    def delete_failure(self, root_id: int, path: bytes) -> bool:
        """Forgets a failure; whether there was one."""
        changes = self._changed()
        place = place_of(root_id, path)
        _, is_there = self._find(place)
        if is_there:
            changes.failures[place] = None
        return is_there

    def _place_of_image(self, image_id: int) -> str | None:
        changed = self._changed().images
        place = self._places.get(image_id) or next(
            (p for p, image in changed.items() if image is not None and image.id == image_id), None
        )
        if place is None:
            rows = self._tables.images(f"id == {image_id}", ["place"])
            place = rows[0]["place"] if rows else None
        if place in changed:
            image = changed[place]
            return place if image is not None and image.id == image_id else None
        return place

    def images(self, image_ids: list[int]) -> dict[int, ImageFacts]:
        """Facts by id; ids that are not there are left out."""
        rows = self._rows(image_ids).values()
        return {row["id"]: facts_of(row) for row in rows}

    def after(self, image_id: int, limit: int) -> list[ImageFacts]:
        """Facts of the first ``limit`` images with greater ids, in order of id."""
        found: list[Row] = []
        end = self._read_heads().next_id
        while len(found) < limit and image_id + 1 < end:
            window = f"id > {image_id} and id <= {image_id + _WINDOW}"
            found += self._tables.images(window, ALL_BUT_DESCRIPTOR, is_exact=not found)
            image_id += _WINDOW
        rows = sorted(found, key=lambda row: row["id"])[:limit]
        return [facts_of(self._sound(row)) for row in rows]

    # -- features ------------------------------------------------------------------------------

    def keep(self, rows: list[Row]) -> None:
        """Rows that were found inside a snapshot, descriptors included."""
        kept = self._kept()
        if kept is not None:
            kept.update({row["id"]: self._sound(row) for row in rows})

    def descriptor(self, image_id: int) -> bytes | None:
        """Global descriptor of one image, (D,) float32 little-endian; None without the image."""
        row = (self._kept() or {}).get(image_id)
        if row is None or "descriptor" not in row:
            rows = self._tables.images(f"id == {image_id}", [*ALL_BUT_DESCRIPTOR, "descriptor"])
            if not rows:
                return None
            row = rows[0]
        return descriptor_of(row)

    def descriptors(self) -> tuple[np.ndarray, np.ndarray]:
        """Ids (N,) int64, ascending, and global descriptors (N, D) float32 of all images."""
        num_dimensions = self._read_heads().global_dimensions or 0
        rows = list(self._tables.scan_images("", ["id", "descriptor"]))
        rows.sort(key=lambda row: row["id"])
        ids = np.array([row["id"] for row in rows], np.int64)
        descriptors = np.zeros((len(rows), num_dimensions), np.float32)
        for number, row in enumerate(rows):
            descriptors[number] = row["descriptor"]
        return ids, descriptors

    def records(self, image_ids: list[int]) -> dict[int, bytes]:
        """Packed local features by id; ids that are not there are left out."""
        positions = {i: position_of(row) for i, row in self._rows(image_ids).items()}
        found = self._packs.read(list(positions.values()))
        missing = [i for i, position in positions.items() if position not in found]
        if missing:
            raise FormatError(
                f"local features must be in {self._address.features}, got none of the images "
                f"{missing[:10]}; search again if they were changed just now, else "
                "`delg verify --repair` removes these images, index their photos again"
            )
        return {image_id: found[position] for image_id, position in positions.items()}

    # -- inside --------------------------------------------------------------------------------

    def _rows(self, image_ids: list[int]) -> dict[int, Row]:
        """Rows by id, from the snapshot as far as they were read in it."""
        if self._changes is not None and any(
            image is not None and image.id in image_ids for image in self._changes.images.values()
        ):
            raise RuntimeError("collection must be read before or after a transaction")
        kept = self._kept()
        rows = {i: kept[i] for i in image_ids if i in kept} if kept else {}
        missing = sorted({i for i in image_ids if i not in rows})
        if missing:
            for row in self._tables.images_among("id", missing, ALL_BUT_DESCRIPTOR):
                rows[row["id"]] = self._sound(row)
        if kept is not None:
            kept.update(rows)
        return rows

    def _sound(self, row: Row) -> Row:
        if not is_sound(row):
            raise FormatError(
                f"row of image {row['id']} must be intact, got a damaged one in Milvus; "
                "`delg verify` lists all damage, index these photos again"
            )
        if facts_of(row).root_id not in self._read_heads().roots and self._lease is None:
            self._heads = None  # added since they were read
        return row

    def _kept(self) -> dict[int, Row] | None:
        return cast("dict[int, Row] | None", getattr(self._thread, "rows", None))


def _stat_facts(stat: FileStat) -> dict[str, Any]:
    return {"file_size": stat.size, "mtime_ns": stat.mtime_ns, "sha256": stat.sha256}
