"""Images and their positions in one table, for datasets that come in no other layout.

A CSV file in UTF-8 with the columns ``image`` (path below the folder), ``role`` (``query`` or
``database``), and ``east`` and ``north`` (m, of one map projection) or ``frame`` (number along a
line that was driven twice).  Three columns may be added: ``region`` (any text; images of
different regions are never near), ``heading`` (degrees from north, clockwise; may be empty) and
``panorama`` (any text; of images with equal text only the first result counts; empty: its own).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from opendelg.datasets.places.dataset import (
    NearRule,
    PlaceImages,
    PlacesDataset,
    require_files,
    with_positives,
)
from opendelg.datasets.places.near import region_numbers
from opendelg.datasets.table import TableRow, image_name, read_table
from opendelg.errors import FormatError

LAYOUT = "csv"
COLUMNS = ("image", "role")
POSITION_COLUMNS = {"m": ("east", "north"), "frames": ("frame",)}  # by the unit of the radius
ROLES = ("query", "database")


@dataclass(frozen=True)
class _Row:
    name: str
    role: str
    position: tuple[float, float]
    region: str
    heading: float
    panorama: str


def read_places_table(
    table: Path, folder: Path, rule: NearRule, one_per_panorama: bool = False
) -> PlacesDataset:
    """The dataset in a CSV table and its folder of images.

    Args:
        table: As described above.
        folder: What its paths start from.
        rule: What is near; its unit says which columns hold the positions.
        one_per_panorama: Count only the first result of each panorama.

    Raises:
        FormatError: If the table is not as described above, or images are missing or repeated.
        FileNotFoundError: If the table or the folder does not exist.
        OpenDelgError: If no query can find anything.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"images must be an existing folder, got {str(folder)!r}")
    columns = (*COLUMNS, *POSITION_COLUMNS[rule.unit], *(["panorama"] * one_per_panorama))
    rows = [_row(row, rule) for row in read_table(table, columns)]
    require_files(folder, [row.name for row in rows], repr(str(table)))
    _require_distinct(rows, table)
    database, queries = ([row for row in rows if row.role == role] for role in ROLES[::-1])
    regions = region_numbers([row.region for row in database], [row.region for row in queries])
    panoramas = None
    if one_per_panorama:
        # A name cannot be another image's panorama: panoramas are marked.
        labels = [f"={row.panorama}" if row.panorama else row.name for row in database]
        (panoramas,) = region_numbers(labels)
    return with_positives(
        PlacesDataset(
            layout=LAYOUT,
            folder=folder,
            database=_images(database, regions[0]),
            queries=_images(queries, regions[1]),
            rule=rule,
            positives=None,
            panoramas=panoramas,
        )
    )


def _images(rows: Sequence[_Row], regions: np.ndarray) -> PlaceImages:
    return PlaceImages(
        names=tuple(row.name for row in rows),
        positions=np.array([row.position for row in rows], np.float64).reshape(-1, 2),
        regions=regions,
        headings=np.array([row.heading for row in rows], np.float64),
    )


def _row(row: TableRow, rule: NearRule) -> _Row:
    values = row.values()
    if not values["image"]:
        raise FormatError(f"image must not be empty in {row.where}")
    if values["role"] not in ROLES:
        raise FormatError(
            f"role must be one of {', '.join(ROLES)}, got {values['role']!r} in {row.where}"
        )
    coordinates = [
        number(values[column], column, row.where) for column in POSITION_COLUMNS[rule.unit]
    ]
    heading = values.get("heading", "")
    return _Row(
        name=image_name(values["image"], row.where),
        role=values["role"],
        position=(coordinates[0], coordinates[1] if len(coordinates) > 1 else 0.0),
        region=values.get("region", ""),
        heading=number(heading, "heading", row.where) if heading else float("nan"),
        panorama=values.get("panorama", ""),
    )


def number(text: str, column: str, where: str) -> float:
    """A finite number of a table.

    Raises:
        FormatError: If it is none.
    """
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not math.isfinite(value):
        raise FormatError(f"{column} must be a finite number, got {text!r} in {where}")
    return value


def _require_distinct(rows: Sequence[_Row], table: Path) -> None:
    seen: set[str] = set()
    for row in rows:
        if row.name in seen:
            raise FormatError(f"image must appear once, got {row.name!r} twice in {str(table)!r}")
        seen.add(row.name)
