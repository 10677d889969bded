"""Labelled photos in one table: images of a group show the same place.

The table is a CSV file in UTF-8 with the columns ``image`` (path below the folder of images,
with forward slashes), ``group`` (any text) and ``role``: ``query``, ``database`` or ``both``.
The positives of a query are the database images of its group other than itself.  An image with
role ``both`` is in the database too: whoever evaluates leaves it out of its own ranking.
"""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from opendelg.errors import FormatError

COLUMNS = ("image", "group", "role")
ROLES = ("query", "database", "both")


@dataclass(frozen=True)
class GroupsDataset:
    """Images of one table.  Ids are positions in ``names``."""

    images: Path  # folder that names are relative to
    names: tuple[str, ...]  # in the order of the table
    groups: tuple[str, ...]  # group of each image
    query_ids: np.ndarray  # (Q,) int64, ascending; may share ids with the database
    database_ids: np.ndarray  # (N,) int64, ascending
    positives: tuple[np.ndarray, ...]  # per query (P,) int64, ascending; P may be 0

    @property
    def num_without_positives(self) -> int:
        """Queries that can find nothing: legal, and left out of means."""
        return sum(len(p) == 0 for p in self.positives)

    def path(self, image_id: int) -> Path:
        """The file of an image."""
        return self.images / self.names[image_id]


@dataclass(frozen=True)
class _Row:
    line: int  # 1-based line of the file where the row ends
    name: str
    group: str
    role: str


def read_groups(table: Path, images: Path) -> GroupsDataset:
    """The dataset in a CSV table and its folder of images.

    Raises:
        FormatError: If the table is not as described above, if images are missing, or if there
            is no query or no database image; names the file and the line.
        FileNotFoundError: If the table or the folder does not exist.
    """
    if not images.is_dir():
        raise FileNotFoundError(f"images must be an existing folder, got {str(images)!r}")
    rows = list(_read_rows(table))
    _require_distinct(rows, table)
    _require_files(rows, images, table)
    roles = np.array([row.role for row in rows], dtype=str)
    query_ids = np.flatnonzero(np.isin(roles, ["query", "both"]))
    database_ids = np.flatnonzero(np.isin(roles, ["database", "both"]))
    for role, ids in (("query", query_ids), ("database", database_ids)):
        if len(ids) == 0:
            raise FormatError(f"table must have a {role} image, got none in {str(table)!r}")

    members: dict[str, list[int]] = {}  # group -> database ids
    for database_id in database_ids.tolist():
        members.setdefault(rows[database_id].group, []).append(database_id)
    positives = []
    for query_id in query_ids.tolist():
        group = members.get(rows[query_id].group, [])
        positives.append(np.array([i for i in group if i != query_id], dtype=np.int64))
    return GroupsDataset(
        images=images,
        names=tuple(row.name for row in rows),
        groups=tuple(row.group for row in rows),
        query_ids=query_ids.astype(np.int64),
        database_ids=database_ids.astype(np.int64),
        positives=tuple(positives),
    )


def _read_rows(table: Path) -> Iterator[_Row]:
    """The checked rows of a table, empty lines skipped."""
    reader = csv.reader(io.StringIO(_read_text(table), newline=""), strict=True)
    header: list[str] | None = None
    try:
        for fields in reader:
            where = f"line {reader.line_num} of {str(table)!r}"
            if not any(field.strip() for field in fields):
                continue
            if header is None:
                header = _header(fields, where)
                continue
            if len(fields) != len(header):
                raise FormatError(
                    f"row must have {len(header)} fields, got {len(fields)} in {where}"
                )
            yield _row(dict(zip(header, fields, strict=True)), reader.line_num, where)
    except csv.Error as error:
        where = f"line {reader.line_num} of {str(table)!r}"
        raise FormatError(f"table must be valid CSV, got {str(error)!r} in {where}") from error
    if header is None:
        raise FormatError(f"table must not be empty, got no header in {str(table)!r}")


def _read_text(table: Path) -> str:
    """The text of a table, without the byte order mark that spreadsheets write."""
    try:
        data = table.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise FormatError(
            f"table must be readable, got {error.strerror!r} in {str(table)!r}"
        ) from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise FormatError(
            f"table must be UTF-8 text, got byte {data[error.start]:#04x} in line {line} of "
            f"{str(table)!r}"
        ) from error


def _header(fields: list[str], where: str) -> list[str]:
    header = [field.strip() for field in fields]
    missing = [column for column in COLUMNS if column not in header]
    if missing:
        raise FormatError(f"table must have columns {', '.join(COLUMNS)}, got {header} in {where}")
    if len(set(header)) != len(header):
        raise FormatError(f"table must not repeat columns, got {header} in {where}")
    return header


def _row(fields: dict[str, str], line: int, where: str) -> _Row:
    """One row, its values checked by themselves."""
    name, group, role = (fields[column].strip() for column in COLUMNS)
    if not name or not group:
        raise FormatError(f"image and group must not be empty, got {name!r}, {group!r} in {where}")
    if role not in ROLES:
        raise FormatError(f"role must be one of {', '.join(ROLES)}, got {role!r} in {where}")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise FormatError(f"image must lie below the folder of images, got {name!r} in {where}")
    return _Row(line, str(path), group, role)


def _require_distinct(rows: list[_Row], table: Path) -> None:
    first_lines: dict[str, int] = {}
    for row in rows:
        first = first_lines.setdefault(row.name, row.line)
        if first != row.line:
            raise FormatError(
                f"image must appear once, got {row.name!r} in lines {first} and {row.line} of "
                f"{str(table)!r}; an image that is query and database has the role 'both'"
            )


def _require_files(rows: list[_Row], images: Path, table: Path) -> None:
    missing = [row for row in rows if not (images / row.name).is_file()]
    if missing:
        listed = ", ".join(f"{row.name!r} (line {row.line})" for row in missing[:3])
        more = ", ..." if len(missing) > 3 else ""
        raise FormatError(
            f"images of {str(table)!r} must exist in {str(images)!r}, "
            f"got {len(missing)} missing of {len(rows)}: {listed}{more}"
        )
