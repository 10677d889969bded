"""Mapillary Street-Level Sequences (MSLS) in its official layout, image against image.

``train_val/CITY/{query,database}`` hold ``images/KEY.jpg`` and four tables with one row per
image, in the same order: ``seq_info.csv`` (key, sequence, frame), ``subtask_index.csv`` (one
column of True and False per subtask), ``raw.csv`` (compass angle ``ca``, ``pano``) and
``postprocessed.csv`` (``easting``, ``northing``).  The challenge's cities lie in ``test``, with
the first two tables only.

Rules, as in the official code (mapillary/mapillary_sls, MIT, at 1b604e1: evaluate.py,
mapillary_sls/datasets/msls.py and utils/eval.py, task im2im):

- validation cities are cph and sf; 25 m, the radius included; only images of one city are near;
- panoramas leave the database and the queries, and so does what is not of the subtask;
- queries without a positive are taken out.  What remains of `all` is 740 queries and 18,871
  database images (issue 31 there; counts of others, not checked here);
- headings are not compared.  Some papers ask for at most 40 degrees besides; that is an option
  here, and its figures are not those of the official code;
- the challenge has no ground truth and keeps all images of the subtask.

All cities are searched at once, as in the official class; Patch-NetVLAD searched each city by
itself (its issue 26).  Tables of the challenge's ground truth, which was published in 2026 (issue
43), are read if they are as those of the other cities; whether they are was not checked.
Sequences (tasks im2seq, seq2im, seq2seq) are not evaluated.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from opendelg.datasets.places.dataset import (
    NearRule,
    PlaceImages,
    PlacesDataset,
    require_files,
    with_positives,
)
from opendelg.datasets.places.table import number
from opendelg.datasets.table import TableRow, read_table
from opendelg.errors import FormatError, OpenDelgError

LAYOUT = "msls"
VALIDATION_CITIES = ("cph", "sf")
CHALLENGE_CITIES = ("miami", "athens", "buenosaires", "stockholm", "bengaluru", "kampala")
SUBTASKS = ("all", "s2w", "w2s", "o2n", "n2o", "d2n", "n2d")  # summer, winter, old, new, day, night


@dataclass(frozen=True)
class _Side:
    """Images of one role in one city."""

    names: list[str]
    keys: list[str]
    positions: np.ndarray  # (N, 2); NaN in the challenge
    headings: np.ndarray  # (N,); NaN where not known


def read_msls(
    folder: Path,
    rule: NearRule,
    cities: Sequence[str] = VALIDATION_CITIES,
    subtask: str = "all",
) -> PlacesDataset:
    """Cities of the dataset, with the positives of their queries if these are known.

    Args:
        folder: Holds ``train_val`` or ``test``.
        rule: What is near.
        cities: Of ``train_val``, or of the challenge; not of both.
        subtask: One of ``SUBTASKS``.

    Raises:
        FileNotFoundError: If a city or a table does not exist.
        FormatError: If tables are not as described above, or images are missing.
        OpenDelgError: If no query can find anything, there is no city, or no such subtask.
    """
    if subtask not in SUBTASKS:
        raise OpenDelgError(f"subtask must be one of {', '.join(SUBTASKS)}, got {subtask!r}")
    if not cities or len(set(cities)) != len(cities):
        raise OpenDelgError(f"cities must be distinct and at least one, got {list(cities)}")
    is_known = [_has_positions(_city_folder(folder, city)) for city in cities]
    if any(is_known) and not all(is_known):
        known = [city for city, known in zip(cities, is_known, strict=True) if known]
        raise FormatError(
            f"cities must all have postprocessed.csv and raw.csv or none, got only {known} of "
            f"{list(cities)} in {str(folder)!r}"
        )
    sides = {
        role: [_side(folder, city, role, subtask, all(is_known)) for city in cities]
        for role in ("database", "query")
    }
    dataset = PlacesDataset(
        layout=LAYOUT,
        folder=folder,
        database=_joined(sides["database"]),
        queries=_joined(sides["query"]),
        rule=rule,
        positives=None,
    )
    for images in (dataset.database, dataset.queries):
        require_files(folder, images.names, f"the tables of {', '.join(cities)}")
    if all(is_known):
        return with_positives(dataset, removes_queries=True)
    if not len(dataset.database) or not len(dataset.queries):
        raise FormatError(
            f"subtask {subtask!r} must have images of both roles, got {len(dataset.database)} and "
            f"{len(dataset.queries)} in {str(folder)!r}"
        )
    return replace(dataset, notes=("these cities have no ground truth here: no figures",))


def _city_folder(folder: Path, city: str) -> Path:
    split = "test" if city in CHALLENGE_CITIES else "train_val"
    place = folder / split / city
    if not city or Path(city).name != city or not place.is_dir():
        raise FileNotFoundError(f"city must be a folder in {str(folder / split)!r}, got {city!r}")
    return place


def _has_positions(city: Path) -> bool:
    """Whether the positions of a city's images are there: not for the challenge."""
    if city.parent.name == "train_val":
        return True  # a missing table is an error there
    tables = ("postprocessed.csv", "raw.csv")
    return all((city / role / name).is_file() for role in ("database", "query") for name in tables)


def _side(folder: Path, city: str, role: str, subtask: str, is_known: bool) -> _Side:
    """Images of a role that belong to the subtask, without panoramas if these are known."""
    place = _city_folder(folder, city) / role
    rows = _rows(place / "seq_info.csv", ("key",))
    keys = [_key(row) for row in rows]
    indexed = _aligned(place / "subtask_index.csv", (subtask,), keys)
    kept = np.array([_truth(row, subtask) for row in indexed], bool)
    positions = np.full((len(keys), 2), np.nan)
    headings = np.full(len(keys), np.nan)
    if is_known:
        placed = _aligned(place / "postprocessed.csv", ("easting", "northing"), keys)
        raw = _aligned(place / "raw.csv", ("pano",), keys)
        for line, (here, there) in enumerate(zip(placed, raw, strict=True)):
            values = here.values()
            positions[line] = [number(values[c], c, here.where) for c in ("easting", "northing")]
            angle = there.values().get("ca", "")
            headings[line] = number(angle, "ca", there.where) if angle else np.nan
            kept[line] &= not _truth(there, "pano")
    rows_kept = np.flatnonzero(kept)
    images = place.relative_to(folder) / "images"
    return _Side(
        names=[(images / f"{keys[row]}.jpg").as_posix() for row in rows_kept],
        keys=[keys[row] for row in rows_kept],
        positions=positions[rows_kept],
        headings=headings[rows_kept],
    )


def _joined(sides: Sequence[_Side]) -> PlaceImages:
    """All cities in a row; each is a region of its own, as UTM zones repeat."""
    return PlaceImages(
        names=tuple(name for side in sides for name in side.names),
        positions=np.concatenate([side.positions for side in sides]),
        regions=np.repeat(np.arange(len(sides)), [len(side.names) for side in sides]),
        headings=np.concatenate([side.headings for side in sides]),
        keys=tuple(key for side in sides for key in side.keys),
    )


def _rows(table: Path, columns: tuple[str, ...]) -> list[TableRow]:
    if not table.is_file():
        raise FileNotFoundError(f"table must exist, got {str(table)!r}")
    return list(read_table(table, columns))


def _aligned(table: Path, columns: tuple[str, ...], keys: Sequence[str]) -> list[TableRow]:
    """Rows of a table that has one row per key, in their order."""
    rows = _rows(table, columns)
    if len(rows) != len(keys):
        raise FormatError(
            f"table must have one row for each of the {len(keys)} rows of seq_info.csv, got "
            f"{len(rows)} in {str(table)!r}"
        )
    for row, key in zip(rows, keys, strict=True):
        found = row.values().get("key", key)
        if found != key:
            raise FormatError(
                f"key must be {key!r} as in seq_info.csv, got {found!r} in {row.where}"
            )
    return rows


def _key(row: TableRow) -> str:
    key = row.values()["key"]
    if not key or Path(key).name != key or any(c.isspace() for c in key) or key[0] == "#":
        raise FormatError(f"key must name an image file, got {key!r} in {row.where}")
    return key


def _truth(row: TableRow, column: str) -> bool:
    text = row.values()[column].lower()
    if text not in ("true", "false", "1", "0"):
        raise FormatError(f"{column} must be True or False, got {text!r} in {row.where}")
    return text in ("true", "1")
