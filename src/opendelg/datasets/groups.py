"""Labelled photos in one table: images of a group show the same place.

The table is a CSV file in UTF-8 with the columns ``image`` (path below the folder of images,
with forward slashes), ``group`` (any text) and ``role``: ``query``, ``database`` or ``both``.
The positives of a query are the database images of its group other than itself.  An image with
role ``both`` is in the database too: whoever evaluates leaves it out of its own ranking.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from opendelg.datasets.table import TableRow, image_name, read_table
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
    rows = [_row(row) for row in read_table(table, COLUMNS)]
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


def _row(row: TableRow) -> _Row:
    """One row, its values checked by themselves."""
    values, where = row.values(), row.where
    name, group, role = (values[column] for column in COLUMNS)
    if not name or not group:
        raise FormatError(f"image and group must not be empty, got {name!r}, {group!r} in {where}")
    if role not in ROLES:
        raise FormatError(f"role must be one of {', '.join(ROLES)}, got {role!r} in {where}")
    return _Row(row.line, image_name(name, where), group, role)


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
