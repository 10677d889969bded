"""The tables of a catalogue, and how an empty one is made."""

import os
import sqlite3
import uuid
from contextlib import closing
from pathlib import Path

from opendelg.collection.connection import explained
from opendelg.errors import FormatError

_APPLICATION_ID = 0x44454C47  # "DELG": marks the SQLite file as a catalogue
_VERSION = 3  # of the tables, kept in user_version
_COMPANIONS = ("-wal", "-shm", "-journal")  # files that SQLite keeps beside a database

# Global descriptors that were removed or replaced, with the revision that did it; an index made
# before leaves them out.  A row with image 0 says that the list begins at its revision.
_DROPPED = "CREATE TABLE dropped (revision INTEGER NOT NULL, image_id INTEGER NOT NULL)"

# What the bytes of product-quantised descriptors stand for; no row until it is learnt.
_CODEBOOK = "CREATE TABLE codebook (one INTEGER PRIMARY KEY CHECK (one = 1), content BLOB NOT NULL)"

_ADDED_IN = {2: ("dropped", _DROPPED), 3: ("codebook", _CODEBOOK)}  # by version

# 2048 float32 and packed features fit with 4 % waste (16 KiB: 26 %), and are read in fewer pieces
# than with 4 KiB.
PAGE_BYTES = 8192

_SCHEMA = f"""
PRAGMA page_size = {PAGE_BYTES};
PRAGMA journal_mode = MEMORY;
PRAGMA synchronous = OFF;
BEGIN;
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_VERSION};
CREATE TABLE collection (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    identity TEXT NOT NULL,
    recipe TEXT NOT NULL,
    precision TEXT NOT NULL,
    revision INTEGER NOT NULL,
    rewritten_at INTEGER NOT NULL,
    global_dimensions INTEGER,
    local_dimensions INTEGER
);
CREATE TABLE roots (
    id INTEGER PRIMARY KEY,
    absolute BLOB NOT NULL,
    relative BLOB,
    seen_from BLOB NOT NULL
);
CREATE TABLE images (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    root_id INTEGER NOT NULL REFERENCES roots (id),
    path BLOB NOT NULL,
    file_size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    sha256 TEXT,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    num_local INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    UNIQUE (root_id, path)
);
CREATE TABLE global_descriptors (
    image_id INTEGER PRIMARY KEY REFERENCES images (id) ON DELETE CASCADE,
    checksum INTEGER NOT NULL,
    descriptor BLOB NOT NULL
);
CREATE TABLE local_features (
    image_id INTEGER PRIMARY KEY REFERENCES images (id) ON DELETE CASCADE,
    record BLOB NOT NULL
);
{_DROPPED};
{_CODEBOOK};
CREATE TABLE failures (
    root_id INTEGER NOT NULL REFERENCES roots (id),
    path BLOB NOT NULL,
    file_size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    sha256 TEXT,
    reason TEXT NOT NULL,
    PRIMARY KEY (root_id, path)
) WITHOUT ROWID;
"""


def create_catalogue(path: Path, recipe: str, precision: str) -> None:
    """Writes an empty catalogue to `path`, all at once: a crash leaves none, not half of one.

    The caller holds the writer's lock and knows that `path` is free.
    """
    draft = path.with_name(path.name + ".new")
    with explained(path):
        draft.unlink(missing_ok=True)
        for name in (draft.name, path.name):  # SQLite would replay what an earlier file left
            for suffix in _COMPANIONS:
                path.with_name(name + suffix).unlink(missing_ok=True)
        with closing(sqlite3.connect(draft, isolation_level=None)) as sql:
            sql.executescript(_SCHEMA)
            sql.execute(
                "INSERT INTO collection VALUES (1, ?, ?, ?, 0, 0, NULL, NULL)",
                (uuid.uuid4().hex, recipe, precision),
            )
            sql.execute("COMMIT")
            sql.execute("PRAGMA journal_mode = WAL")  # kept in the file from here on
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        draft.replace(path)


def check_format(sql: sqlite3.Connection, path: Path) -> None:
    """Raises FormatError unless the file is a catalogue of this version."""
    (application_id,) = sql.execute("PRAGMA application_id").fetchone()
    (version,) = sql.execute("PRAGMA user_version").fetchone()
    if application_id != _APPLICATION_ID:
        raise FormatError(
            f"catalogue must be a file made by `delg index`, got {str(path)!r} of another program"
        )
    if version > _VERSION:
        raise FormatError(
            f"catalogue must have version {_VERSION} or older, got {version} in {str(path)!r}; "
            "it was made by a newer opendelg, upgrade this one"
        )
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as model:
        model.executescript(_SCHEMA)
        missing = _tables(model) - _tables(sql)
        missing -= {table for added, table in _ADDED_IN.items() if version < added}
    if missing:
        raise FormatError(
            f"catalogue must have the tables of version {_VERSION}, got others for "
            f"{sorted(name for name, _ in missing)} in {str(path)!r}; "
            "restore it from a copy or index the photos again"
        )


def upgrade(sql: sqlite3.Connection) -> None:
    """Gives a catalogue of an earlier version the tables that it lacks."""
    sql.execute("BEGIN IMMEDIATE")
    (version,) = sql.execute("PRAGMA user_version").fetchone()
    if version < _VERSION:
        for added, (_, definition) in _ADDED_IN.items():
            if version < added:
                sql.execute(definition)
        if version < 2:
            sql.execute("INSERT INTO dropped SELECT revision, 0 FROM collection")
        sql.execute(f"PRAGMA user_version = {_VERSION}")
    sql.execute("COMMIT")


def _tables(sql: sqlite3.Connection) -> set[tuple[str, str]]:
    """Name and definition of each table."""
    return set(sql.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'"))
