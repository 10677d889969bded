"""The catalogue: one SQLite file that holds everything a collection knows.

Only SQL lives here.  Paths are bytes below a root (`os.fsencode`, separators '/'), so every file
name survives and sorts the same everywhere.  Ids count up in order of adding and are never used
again.  `revision` grows with each change; `rewritten_at` is the last revision that changed or
removed a global descriptor: whatever was derived since then lacks later rows at most.
"""

import json
import sqlite3
import threading
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from opendelg.collection.connection import (
    Connection,
    connect_reader,
    connect_writer,
    explained,
    file_state,
)
from opendelg.collection.packing import Precision
from opendelg.collection.records import FileStat
from opendelg.collection.schema import check_format, upgrade
from opendelg.errors import FormatError, OpenDelgError

MAX_ID = 2**63 - 1  # SQLite's integers; a user may ask for any number


@dataclass(frozen=True)
class State:
    """The one row about the whole collection."""

    identity: str  # 32 hex digits, drawn when the collection was made
    recipe: str  # JSON
    precision: Precision
    revision: int
    rewritten_at: int  # revision
    global_dimensions: int | None  # None until the first image is added
    local_dimensions: int | None


@dataclass(frozen=True)
class RootRow:
    """A folder of photos, as it was found from the collection's folder at that time."""

    id: int
    absolute: bytes
    relative: bytes | None  # from the collection's folder; None on another drive
    seen_from: bytes  # the collection's folder, absolute


@dataclass(frozen=True)
class ImageRow:
    """What is written for one image, apart from where it lies."""

    stat: FileStat
    size: tuple[int, int]  # (width, height) px
    num_local: int
    descriptor: bytes  # (D,) float32, little-endian
    record: bytes  # packed local features


class Totals(NamedTuple):
    """Numbers of all that is kept."""

    num_images: int
    num_local: int  # local features of all images
    num_failures: int


class ImageFacts(NamedTuple):
    """What is stored about one image, apart from features; a tuple, as there may be millions."""

    id: int
    root_id: int
    path: bytes
    file_size: int
    mtime_ns: int
    sha256: str | None
    width: int
    height: int
    num_local: int

    def checksum(self) -> int:
        """crc32 of all values."""
        return zlib.crc32(repr(tuple(self)).encode())


class Catalogue:
    """An open catalogue.  Threads may share it: transactions and snapshots take turns."""

    def __init__(self, path: Path, connection: Connection, is_read_only: bool) -> None:
        self.path = path
        self.is_read_only = is_read_only
        self._connection = connection
        self._seen = file_state(path)
        self._lock = threading.RLock()
        self._is_writing = False

    @classmethod
    def open(cls, path: Path, read_only: bool) -> "Catalogue":
        """The catalogue at `path`; a writer holds the writer's lock already."""
        connection = connect_reader(path) if read_only else connect_writer(path)
        try:
            with explained(path):
                check_format(connection.sql, path)
                if not read_only:
                    upgrade(connection.sql)
            return cls(path, connection, read_only)
        except BaseException:
            connection.sql.close()
            raise

    def close(self) -> None:
        """Ends the connection; an open transaction is rolled back."""
        with self._lock, explained(self.path):
            self._connection.sql.close()

    @property
    def is_writing(self) -> bool:
        """Whether a transaction is open: what is read then may never be committed."""
        return self._is_writing

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """All reads inside see the same state, whatever other processes commit meanwhile."""
        with self._lock, explained(self.path):
            if self._connection.sql.in_transaction:
                yield
                return
            self._reopen_if_changed()
            self._connection.sql.execute("BEGIN")
            try:
                self.state()  # the first read is what fixes the snapshot
                yield
            finally:
                self._rollback()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All writes inside are committed together, or none; may be nested."""
        with self._lock, explained(self.path):
            if self.is_read_only:
                raise OpenDelgError(
                    "collection must be open for writing to change it, got a read-only one at "
                    f"{str(self.path.parent)!r}"
                )
            if self._is_writing and not self._connection.sql.in_transaction:
                raise OpenDelgError(
                    "batch must end after a failed write, got another change; run the command again"
                )
            if self._is_writing:
                with self._savepoint():
                    yield
                return
            if self._connection.sql.in_transaction:
                raise RuntimeError("collection must not be changed inside a snapshot")
            self._connection.sql.execute("BEGIN IMMEDIATE")
            self._is_writing = True
            try:
                yield
                self._connection.sql.execute("COMMIT")
            except BaseException:
                self._rollback()
                raise
            finally:
                self._is_writing = False

    @contextmanager
    def _savepoint(self) -> Iterator[None]:
        sql = self._connection.sql
        sql.execute("SAVEPOINT part")
        try:
            yield
        except BaseException:
            if sql.in_transaction:  # a full disk has ended it already
                sql.execute("ROLLBACK TO part")
                sql.execute("RELEASE part")
            raise
        sql.execute("RELEASE part")

    def _rollback(self) -> None:
        if self._connection.sql.in_transaction:
            self._connection.sql.execute("ROLLBACK")

    def _reopen_if_changed(self) -> None:
        """An immutable connection would not notice that somebody writes after all."""
        if self._connection.is_immutable and self._seen != (now := file_state(self.path)):
            self._connection.sql.close()
            self._connection = connect_reader(self.path)
            self._seen = now

    def query(self, statement: str, parameters: Iterable[Any] = ()) -> sqlite3.Cursor:
        """Runs one statement inside the current snapshot or transaction."""
        return self._connection.sql.execute(statement, tuple(parameters))

    # -- the whole ---------------------------------------------------------------------------

    def state(self) -> State:
        """The row about the whole collection."""
        row = self.query(
            "SELECT identity, recipe, precision, revision, rewritten_at, global_dimensions, "
            "local_dimensions FROM collection"
        ).fetchone()
        if row is None or [type(value) for value in row[:5]] != [str, str, str, int, int]:
            raise self._damage("row about the whole")
        return State(*row)

    def count(self, after: int = 0, up_to: int = MAX_ID) -> int:
        """Number of images, or of those with ids in (after, up_to]."""
        (count,) = self.query(
            "SELECT count(*) FROM images WHERE id > ? AND id <= ?", (after, up_to)
        ).fetchone()
        return int(count)

    def dropped_since(self, revision: int) -> np.ndarray | None:
        """Ids (K,) int64, ascending, whose descriptors were removed or replaced after a revision.

        None if nobody knows: then whatever was made at that revision must be made anew.
        """
        state = self.state()
        if state.rewritten_at <= revision:
            return np.zeros(0, np.int64)
        if not self._has_table("dropped"):
            return None
        rows = self.query("SELECT DISTINCT image_id FROM dropped WHERE revision > ?", (revision,))
        ids = np.sort(np.array([image_id for (image_id,) in rows], np.int64))
        return None if 0 in ids else ids

    def fix_dimensions(self, global_dimensions: int, local_dimensions: int) -> None:
        """Sets the lengths of descriptors, once, when the first image is added."""
        self.query(
            "UPDATE collection SET global_dimensions = ?, local_dimensions = ?",
            (global_dimensions, local_dimensions),
        )

    def _count_change(self, dropped: int | None = None) -> None:
        """Counts a change; `dropped` is the image whose descriptor it removed or replaced."""
        self.query("UPDATE collection SET revision = revision + 1")
        if dropped is not None:
            self.query("UPDATE collection SET rewritten_at = revision")
            self.query("INSERT INTO dropped SELECT revision, ? FROM collection", (dropped,))

    def totals(self) -> Totals:
        """Numbers of all that is kept."""
        (num_local,) = self.query("SELECT coalesce(sum(num_local), 0) FROM images").fetchone()
        (num_failures,) = self.query("SELECT count(*) FROM failures").fetchone()
        return Totals(self.count(), num_local, num_failures)

    # -- roots -------------------------------------------------------------------------------

    def roots(self) -> list[RootRow]:
        """All roots in order of adding."""
        rows = self.query("SELECT id, absolute, relative, seen_from FROM roots ORDER BY id")
        roots = [RootRow(*row) for row in rows]
        if not all(isinstance(root.absolute, bytes) for root in roots):
            raise self._damage("list of roots")
        return roots

    def put_root(self, root: RootRow) -> None:
        """Adds a root, or replaces the one of the same id."""
        self.query(
            "INSERT INTO roots VALUES (?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
            "absolute = excluded.absolute, relative = excluded.relative, "
            "seen_from = excluded.seen_from",
            (root.id, root.absolute, root.relative, root.seen_from),
        )

    # -- images ------------------------------------------------------------------------------

    def ids(self) -> np.ndarray:
        """(N,) int64, ascending."""
        rows = self.query("SELECT id FROM images ORDER BY id").fetchall()
        return np.array(rows, np.int64).reshape(-1)

    def find_image(self, root_id: int, path: bytes) -> int | None:
        """Id of the image at `path`, None if there is none."""
        row = self.query(
            "SELECT id FROM images WHERE root_id = ? AND path = ?", (root_id, path)
        ).fetchone()
        return None if row is None else int(row[0])

    def put_image(self, root_id: int, path: bytes, image: ImageRow) -> int:
        """Adds an image, or replaces the one at the same path and keeps its id."""
        image_id = self.find_image(root_id, path)
        rewrites = image_id is not None and self.descriptor(image_id) != image.descriptor
        stat = image.stat
        facts = (stat.size, stat.mtime_ns, stat.sha256, *image.size, image.num_local)
        if image_id is None:
            image_id = self.query(
                "INSERT INTO images (root_id, path, file_size, mtime_ns, sha256, width, height, "
                "num_local, checksum) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0)",
                (root_id, path, *facts),
            ).lastrowid
            assert image_id is not None
        else:
            self.query(
                "UPDATE images SET file_size = ?, mtime_ns = ?, sha256 = ?, width = ?, "
                "height = ?, num_local = ? WHERE id = ?",
                (*facts, image_id),
            )
        self.query(
            "INSERT OR REPLACE INTO global_descriptors VALUES (?, ?, ?)",
            (image_id, zlib.crc32(image.descriptor), image.descriptor),
        )
        self.query("INSERT OR REPLACE INTO local_features VALUES (?, ?)", (image_id, image.record))
        self._seal(image_id)
        self.delete_failure(root_id, path)
        self._count_change(image_id if rewrites else None)
        return image_id

    def put_stat(self, image_id: int, stat: FileStat) -> None:
        """Replaces the facts of an image's file; its features stay."""
        self.query(
            "UPDATE images SET file_size = ?, mtime_ns = ?, sha256 = ? WHERE id = ?",
            (stat.size, stat.mtime_ns, stat.sha256, image_id),
        )
        self._seal(image_id)
        self._count_change()

    def delete_image(self, image_id: int) -> bool:
        """Removes an image and its features; whether there was one."""
        if image_id > MAX_ID:
            return False
        if self.query("DELETE FROM images WHERE id = ?", (image_id,)).rowcount == 0:
            return False
        self._count_change(image_id)
        return True

    def put_failure(self, root_id: int, path: bytes, stat: FileStat, reason: str) -> None:
        """Records that the file at `path` could not be read; an image there is removed."""
        image_id = self.find_image(root_id, path)
        if image_id is not None:
            self.delete_image(image_id)
        self.query(
            "INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?, ?, ?)",
            (root_id, path, stat.size, stat.mtime_ns, stat.sha256, reason),
        )
        self._count_change()

    def delete_failure(self, root_id: int, path: bytes) -> bool:
        """Forgets a failure; whether there was one."""
        found = self.query("DELETE FROM failures WHERE root_id = ? AND path = ?", (root_id, path))
        return found.rowcount > 0

    def failures(self) -> list[tuple[int, bytes, str]]:
        """(root id, path, reason) of files that could not be read, in order of path."""
        return self.query(
            "SELECT root_id, path, reason FROM failures ORDER BY path, root_id"
        ).fetchall()

    def knows(self, root_id: int, path: bytes) -> bool:
        """Whether there is an image or a failure at `path`."""
        failure = self.query(
            "SELECT 1 FROM failures WHERE root_id = ? AND path = ?", (root_id, path)
        ).fetchone()
        return failure is not None or self.find_image(root_id, path) is not None

    def files(self, root_id: int, below: bytes) -> Iterator[tuple[Any, ...]]:
        """(path, id, file size, mtime_ns, sha256, failure) of all files whose path starts so."""
        where = "WHERE root_id = ? AND substr(path, 1, ?) = ?"
        bounds = (root_id, len(below), below)
        for facts in self._facts(where, bounds):
            yield facts.path, facts.id, facts.file_size, facts.mtime_ns, facts.sha256, None
        yield from self.query(
            f"SELECT path, NULL, file_size, mtime_ns, sha256, reason FROM failures {where}", bounds
        )

    def sample_paths(self, root_id: int) -> list[bytes]:
        """A few paths of images below a root."""
        rows = self.query("SELECT path FROM images WHERE root_id = ? LIMIT 8", (root_id,))
        return [path for (path,) in rows]

    def images(self, image_ids: list[int]) -> dict[int, "ImageFacts"]:
        """Facts by id; ids that are not in the catalogue are left out."""
        where = "WHERE id IN (SELECT value FROM json_each(?))"
        return {facts.id: facts for facts in self._facts(where, (json.dumps(image_ids),))}

    def after(self, image_id: int, limit: int) -> list["ImageFacts"]:
        """Facts of the first ``limit`` images with greater ids, in order of id."""
        bounds = (min(image_id, MAX_ID), limit)
        return list(self._facts("WHERE id > ? ORDER BY id LIMIT ?", bounds))

    def _facts(self, where: str, parameters: tuple[Any, ...]) -> Iterator["ImageFacts"]:
        for *values, checksum in self.query(
            "SELECT id, root_id, path, file_size, mtime_ns, sha256, width, height, num_local, "
            f"checksum FROM images {where}",
            parameters,
        ):
            facts = ImageFacts(*values)
            if facts.checksum() != checksum:
                raise self._damage(f"row of image {facts.id}")
            yield facts

    def _seal(self, image_id: int) -> None:
        """Writes the checksum of an image's row, after all else in it."""
        row = self.query(
            "SELECT id, root_id, path, file_size, mtime_ns, sha256, width, height, num_local "
            "FROM images WHERE id = ?",
            (image_id,),
        ).fetchone()
        checksum = ImageFacts(*row).checksum()
        self.query("UPDATE images SET checksum = ? WHERE id = ?", (checksum, image_id))

    def _damage(self, what: str) -> FormatError:
        return FormatError(
            f"{what} must be intact, got a damaged one in {str(self.path)!r}; `delg verify` lists "
            "all damage, index these photos again"
        )

    # -- features ----------------------------------------------------------------------------

    def descriptor(self, image_id: int) -> bytes | None:
        """Global descriptor of one image as stored, None if there is none."""
        if image_id > MAX_ID:
            return None
        row = self.query(
            "SELECT descriptor FROM global_descriptors WHERE image_id = ?", (image_id,)
        ).fetchone()
        return None if row is None else row[0]

    def descriptors(self) -> tuple[np.ndarray, np.ndarray]:
        """Ids (N,) int64, ascending, and global descriptors (N, D) float32 of all images."""
        count = self.count()
        ids = np.zeros(count, np.int64)
        descriptors = np.zeros((count, self.state().global_dimensions or 0), np.float32)
        for row, (image_id, _, found) in enumerate(self.descriptors_after(0)):
            ids[row] = image_id
            descriptors[row] = found
        return ids, descriptors

    def descriptors_after(
        self, image_id: int, up_to: int = MAX_ID
    ) -> Iterator[tuple[int, int, np.ndarray]]:
        """(id, checksum, descriptor (D,) float32) for ids in (image_id, up_to], ascending."""
        num_bytes = 4 * (self.state().global_dimensions or 0)
        for found_id, checksum, content in self.query(
            "SELECT image_id, checksum, descriptor FROM global_descriptors "
            "WHERE image_id > ? AND image_id <= ? ORDER BY image_id",
            (image_id, up_to),
        ):
            if not is_intact(content, checksum) or len(content) != num_bytes:
                raise self._damage(f"global descriptor of image {found_id}")
            yield found_id, checksum, np.frombuffer(content, "<f4")

    def descriptor_checksum(self, image_id: int) -> int | None:
        """crc32 of one image's global descriptor as stored, None if there is none."""
        row = self.query(
            "SELECT checksum FROM global_descriptors WHERE image_id = ?", (image_id,)
        ).fetchone()
        return None if row is None else int(row[0])

    def records(self, image_ids: list[int]) -> dict[int, bytes]:
        """Packed local features by id; ids that are not in the catalogue are left out."""
        rows = self.query(
            "SELECT image_id, record FROM local_features "
            "WHERE image_id IN (SELECT value FROM json_each(?))",
            (json.dumps(image_ids),),
        )
        records = dict(rows.fetchall())
        for image_id, record in records.items():
            if not isinstance(record, bytes):
                raise self._damage(f"local features of image {image_id}")
        return records

    def codebook(self) -> bytes | None:
        """What product quantisation learnt, None if nothing yet."""
        if not self._has_table("codebook"):
            return None
        row = self.query("SELECT content FROM codebook").fetchone()
        return None if row is None else row[0]

    def put_codebook(self, content: bytes, records: dict[int, bytes]) -> None:
        """Keeps what was learnt, with the local features packed by it, all at once."""
        self.query("INSERT INTO codebook VALUES (1, ?)", (content,))
        for image_id, record in records.items():
            self.query(
                "UPDATE local_features SET record = ? WHERE image_id = ?", (record, image_id)
            )
        self._count_change()

    def _has_table(self, name: str) -> bool:
        """Whether a table is there: catalogues of earlier versions that are only read lack some."""
        found = self.query("SELECT 1 FROM sqlite_master WHERE name = ?", (name,))
        return found.fetchone() is not None


def is_intact(content: object, checksum: int) -> bool:
    """Whether a value read is what was written: a damaged row may even hold other types."""
    return isinstance(content, bytes) and zlib.crc32(content) == checksum
