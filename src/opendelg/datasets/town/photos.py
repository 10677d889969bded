"""A town written to disk: photos to index, queries to search, and the table of what shows what."""

import csv
import io
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from opendelg.datasets.town.render import SIZE, render_view
from opendelg.datasets.town.scene import Place, make_place, make_street, place_name, street_name
from opendelg.errors import FormatError

_MARK = "town.json"  # lists the files of a town, so that the next one can replace them
_FORMAT = "opendelg-town"
_JPEG = 8  # tells the random numbers of the JPEG quality from others
_VIEWS_PER_STREET = 2
_MIN_SIDE = 64  # px


@dataclass(frozen=True)
class TownManifest:
    """The files of a town."""

    folder: Path
    groups: Path  # CSV with the columns image, group, role; images are relative to ``folder``
    database: tuple[Path, ...]  # photos of places and of streets without one, in folder / "photos"
    queries: tuple[Path, ...]  # in folder / "queries", one per place, each with positives
    unknown_queries: tuple[Path, ...]  # there too, of places that are not in the database


@dataclass(frozen=True)
class _Shot:
    """One photo that is to be taken."""

    index: int  # of the place, or of the street
    view: int
    name: str  # path below the town's folder, with forward slashes
    group: str
    role: str
    is_street: bool = False


def render_town(
    folder: Path,
    seed: int = 0,
    num_places: int = 24,
    views_per_place: int = 5,
    num_distractors: int = 30,
    size: tuple[int, int] = SIZE,
    progress: Callable[[int, int], None] | None = None,
) -> TownManifest:
    """Render a town into ``folder``; its files are the same for the same arguments on one machine.

    The last view of each place is its query, the others are database photos.  A sixth as many
    queries, at least one, show places that the database does not have.

    Args:
        folder: Where to; made if needed, must be empty or hold an earlier town, which is replaced.
        seed: Another seed is another town.
        num_places: Places with a query and database photos, at least 1.
        views_per_place: Photos of each place, the query included, at least 2.
        num_distractors: Database photos of ordinary streets, which answer no query.
        size: (width, height) of the photos in px.
        progress: Called with the number of photos written and of all photos.

    Raises:
        ValueError: If a number is too small.
        FormatError: If the folder holds something else.
    """
    _check(num_places, views_per_place, num_distractors, size)
    shots = _plan(num_places, views_per_place, num_distractors)
    _replace_town(folder, seed, [shot.name for shot in shots])
    place: Place | None = None
    for done, shot in enumerate(shots):
        make = make_street if shot.is_street else make_place
        if place is None or place.name != shot.group:
            place = make(seed, shot.index)
        pixels = render_view(place, shot.view, size)
        quality = np.random.default_rng((seed, _JPEG, place.index, shot.view)).integers(68, 93)
        _write_atomically(folder / shot.name, _jpeg(pixels, int(quality)))
        if progress is not None:
            progress(done + 1, len(shots))
    groups = folder / "groups.csv"
    _write_atomically(groups, _table(shots))
    known = {shot.group for shot in shots if shot.role == "database"}
    queries = [shot for shot in shots if shot.role == "query"]
    return TownManifest(
        folder=folder,
        groups=groups,
        database=tuple(folder / shot.name for shot in shots if shot.role == "database"),
        queries=tuple(folder / shot.name for shot in queries if shot.group in known),
        unknown_queries=tuple(folder / shot.name for shot in queries if shot.group not in known),
    )


def _check(
    num_places: int, views_per_place: int, num_distractors: int, size: tuple[int, int]
) -> None:
    for name, value, least in (
        ("num_places", num_places, 1),
        ("views_per_place", views_per_place, 2),
        ("num_distractors", num_distractors, 0),
        ("size", min(size), _MIN_SIDE),
    ):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")


def _plan(num_places: int, views_per_place: int, num_distractors: int) -> list[_Shot]:
    """All photos of a town, those of one place in a row."""
    shots = []
    for index in range(num_places):
        group = place_name(index)
        for view in range(views_per_place):
            role = "query" if view == views_per_place - 1 else "database"
            shots.append(_Shot(index, view, _file_name(group, view, role), group, role))
    for number in range(num_distractors):
        index, view = divmod(number, _VIEWS_PER_STREET)
        group = street_name(index)
        name = _file_name(group, view, "database")
        shots.append(_Shot(index, view, name, group, "database", is_street=True))
    for index in range(num_places, num_places + max(1, num_places // 6)):
        group = place_name(index)
        shots.append(_Shot(index, 0, _file_name(group, 0, "query"), group, "query"))
    return shots


def _file_name(group: str, view: int, role: str) -> str:
    folder = "queries" if role == "query" else "photos"
    return f"{folder}/{group}_view_{view + 1}.jpg"


def _replace_town(folder: Path, seed: int, names: list[str]) -> None:
    """Make the folders, remove photos of an earlier town, and note the names of the new one."""
    if folder.exists() and not (folder / _MARK).exists() and any(folder.iterdir()):
        raise FormatError(
            f"folder must be empty or hold an earlier town, got {str(folder)!r} with other files; "
            "choose another folder"
        )
    earlier = _earlier_names(folder / _MARK)
    folder.mkdir(parents=True, exist_ok=True)
    notes = {"format": _FORMAT, "seed": seed, "images": sorted({*names, *earlier})}
    _write_atomically(folder / _MARK, _as_json(notes))
    for below in ("photos", "queries"):
        (folder / below).mkdir(exist_ok=True)
    for name in set(earlier) - set(names):
        (folder / name).unlink(missing_ok=True)
    _write_atomically(folder / _MARK, _as_json({**notes, "images": sorted(names)}))


def _earlier_names(mark: Path) -> list[str]:
    """Photos that an earlier town noted; nothing outside its two folders."""
    if not mark.exists():
        return []
    try:
        notes = json.loads(mark.read_text(encoding="utf-8"))
        names = [str(name) for name in notes["images"]] if notes["format"] == _FORMAT else None
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{_MARK} must list a town's photos, got {str(mark)!r}") from error
    if names is None:
        raise FormatError(f"format must be {_FORMAT!r}, got {notes['format']!r} in {str(mark)!r}")
    allowed = {f"{below}/{Path(name).name}" for name in names for below in ("photos", "queries")}
    return [name for name in names if name in allowed and name.endswith(".jpg")]


def _as_json(value: object) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode()


def _table(shots: list[_Shot]) -> bytes:
    """The groups table; rows in the order of the names."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("image", "group", "role"))
    rows = sorted((shot.name, shot.group, shot.role) for shot in shots)
    writer.writerows(rows)
    return text.getvalue().encode()


def _jpeg(pixels: np.ndarray, quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that nobody ever sees half of it."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_bytes(data)
    os.replace(unfinished, path)
