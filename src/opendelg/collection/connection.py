"""Connections to the catalogue's SQLite file, and its faults in words that say what to do.

Readers open without the right to write.  In a folder where SQLite cannot create its two
helper files (a read-only disk) the file is opened as immutable instead, which is right as long
as nobody writes; `is_immutable` tells the caller to look for changes itself.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from opendelg.errors import FormatError, OpenDelgError

_BUSY_TIMEOUT_S = 30.0  # a checkpoint or a recovery by another process takes far less
_LOCK_NAME = "writer.lock"

_CANNOT_WRITE = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}
_CANNOT_SHARE = {*_CANNOT_WRITE, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class WriterBusyError(OpenDelgError):
    """Another process writes to the collection."""


@dataclass(frozen=True)
class Connection:
    """An open connection, in autocommit mode: transactions are begun by hand."""

    sql: sqlite3.Connection
    is_immutable: bool  # SQLite neither locks nor looks for changes


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns faults of the disk and of the file at `path` into errors that a user can act on."""
    try:
        yield
    except sqlite3.Error as error:
        code = _primary_code(error)
        where = f"{str(path)!r}"
        if code == sqlite3.SQLITE_FULL:
            raise OpenDelgError(
                f"disk must have room for the collection, got a full one at {where}; free some "
                "space and run the command again, images added so far are kept"
            ) from error
        if code in _CANNOT_WRITE:
            raise OpenDelgError(
                f"collection must be in a folder that you may write, got {where} "
                f"({error}); change its permissions or copy the collection elsewhere"
            ) from error
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise OpenDelgError(
                f"catalogue must be free within {_BUSY_TIMEOUT_S:.0f} s, got {where} in use; "
                "wait until the other process is done"
            ) from error
        if code in _DAMAGED:
            raise FormatError(
                f"catalogue must be an intact SQLite file, got {where} ({error}); "
                "restore it from a copy or index the photos again"
            ) from error
        if code == sqlite3.SQLITE_IOERR:
            raise OpenDelgError(
                f"disk must accept reads and writes, got {error} at {where}; "
                "check the disk, its quota and its connection"
            ) from error
        raise


def connect_writer(path: Path) -> Connection:
    """A connection that may write; every commit is on the disk when it returns."""
    sql = _connect(path, "rw")
    try:
        with explained(path):
            sql.execute("PRAGMA foreign_keys = ON")
            sql.execute("PRAGMA synchronous = FULL")
            sql.execute(f"PRAGMA journal_size_limit = {64 << 20}")  # bytes kept of the WAL
            _read_schema(sql)
    except BaseException:
        sql.close()
        raise
    return Connection(sql, is_immutable=False)


def connect_reader(path: Path) -> Connection:
    """A connection that cannot write; sees other processes' commits wherever that is possible."""
    sql = _connect(path, "ro")
    is_immutable = False
    try:
        with explained(path):
            try:
                _read_schema(sql)
            except sqlite3.OperationalError as error:
                if _primary_code(error) not in _CANNOT_SHARE or _has_unmerged_commits(path):
                    raise
                sql.close()
                is_immutable = True
                sql = _connect(path, "ro&immutable=1")
                _read_schema(sql)
    except BaseException:
        sql.close()
        raise
    return Connection(sql, is_immutable)


def lock_for_writing(folder: Path) -> sqlite3.Connection:
    """Holds the right to write to the collection until the returned connection is closed.

    The lock is SQLite's own, on an empty file: it works on every system and goes with the
    process, however that ends.

    Raises:
        OpenDelgError: If another writer holds it, or the folder cannot be written.
    """
    path = folder / _LOCK_NAME
    lock = _connect(path, "rwc", timeout=0)
    try:
        with explained(path):
            try:
                lock.execute("PRAGMA journal_mode = MEMORY")  # no second file
                lock.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError as error:
                if _primary_code(error) != sqlite3.SQLITE_BUSY:
                    raise
                raise WriterBusyError(
                    f"collection must have one writer at a time, got a second one for "
                    f"{str(folder)!r}; wait until the other `delg index` or `delg remove` is done"
                ) from error
    except BaseException:
        lock.close()
        raise
    return lock


def file_state(path: Path) -> tuple[int, int, bool]:
    """Facts that change when somebody writes: size, mtime in ns, and whether a WAL is there."""
    try:
        stat = os.stat(path)
    except OSError as error:
        raise FormatError(f"collection must keep its catalogue, got {error}") from error
    return stat.st_size, stat.st_mtime_ns, _has_unmerged_commits(path)


def _connect(path: Path, mode: str, timeout: float = _BUSY_TIMEOUT_S) -> sqlite3.Connection:
    # As bytes in percent code, any name works: spaces, '?', and bytes that are not UTF-8.
    uri = f"file:{quote(os.fsencode(os.path.abspath(path)))}?mode={mode}"
    with explained(path):
        sql = sqlite3.connect(
            uri, uri=True, timeout=timeout, isolation_level=None, check_same_thread=False
        )
    # Damaged text is found by checksums, with the name of the image, not by its encoding.
    sql.text_factory = lambda text: text.decode("utf-8", "replace")
    return sql


def _read_schema(sql: sqlite3.Connection) -> None:
    """Makes SQLite open the file and parse its tables, which it otherwise puts off."""
    try:
        sql.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except UnicodeDecodeError as error:  # sqlite3 fails to quote damaged names in its message
        raise FormatError(
            f"catalogue must be an intact SQLite file, got damaged tables ({error}); "
            "restore it from a copy or index the photos again"
        ) from error


def _has_unmerged_commits(path: Path) -> bool:
    wal = path.with_name(path.name + "-wal")
    return wal.exists() and wal.stat().st_size > 0


def _primary_code(error: sqlite3.Error) -> int | None:
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF
