"""Images whose names say where they were taken: ``@east@north@zone@letter@...@.jpg``.

The format in which most place recognition datasets are passed around.  Fields between ``@``, from
the front: UTM east and north in metres, zone number, zone letter, latitude, longitude, panorama,
tile, heading, pitch, roll, height, time, note, extension.  All but the first two may be empty.
Source: README of gmberton/VPR-datasets-downloader at 13831aa.

The folders are ``database`` and ``queries``, or those in ``images/test``, as that tool makes them.
Published results on datasets in this format count every database image, those of Tokyo 24/7 too
(Berton et al., "Deep Visual Geo-localization Benchmark", CVPR 2022; by its printed counts and not
by its code, which was not read): see `dbstruct` for the original rule.
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
    examples,
    with_positives,
)
from opendelg.datasets.places.near import region_numbers
from opendelg.errors import FormatError, OpenDelgError
from opendelg.image import find_images

LAYOUT = "utm"
FOLDERS = ("", "images/test")  # where `database` and `queries` may lie below the given folder
_EAST, _NORTH, _ZONE = 1, 2, 3  # fields; before the first @ nothing is read
_PANORAMA, _HEADING = 7, 9


@dataclass(frozen=True)
class _Fields:
    """What the name of one image says."""

    position: tuple[float, float]
    zone: str  # its number, as bands of one zone share their metres; "" if the name has none
    panorama: str
    heading: float


def find_folder(folder: Path) -> Path | None:
    """The folder that holds ``database`` and ``queries``; None if there is none."""
    for below in FOLDERS:
        place = folder / below
        if (place / "database").is_dir() and (place / "queries").is_dir():
            return place
    return None


def require_folder(folder: Path) -> Path:
    """The folder that holds ``database`` and ``queries``.

    Raises:
        FileNotFoundError: If there is none.
    """
    place = find_folder(folder)
    if place is None:
        raise FileNotFoundError(
            "dataset must have the folders database and queries, or these in images/test, got "
            f"neither in {str(folder)!r}"
        )
    return place


def read_utm_names(folder: Path, rule: NearRule, one_per_panorama: bool = False) -> PlacesDataset:
    """The dataset in two folders of images with positions in their names.

    Args:
        folder: Holds ``database`` and ``queries``, or ``images/test`` with them.
        rule: What is near.
        one_per_panorama: Count only the first result of each panorama; images of a panorama have
            equal panorama fields, or without that field equal positions.

    Raises:
        FileNotFoundError: If the folders do not exist.
        FormatError: If a name does not have a position, or only some names have a zone (images of
            different zones are never near).
        OpenDelgError: If no query can find anything.
    """
    place = require_folder(folder)
    names = {role: list_images(place, role) for role in ("database", "queries")}
    fields = {role: [_fields(name, place) for name in names[role]] for role in names}
    zones = {role: [one.zone for one in fields[role]] for role in fields}
    _require_zones(zones, names, place)
    database_regions, query_regions = region_numbers(zones["database"], zones["queries"])
    panoramas = None
    if one_per_panorama:
        labels = [one.panorama or repr(one.position) for one in fields["database"]]
        (panoramas,) = region_numbers(labels)
    return with_positives(
        PlacesDataset(
            layout=LAYOUT,
            folder=place,
            database=_images(names["database"], fields["database"], database_regions),
            queries=_images(names["queries"], fields["queries"], query_regions),
            rule=rule,
            positives=None,
            panoramas=panoramas,
        )
    )


def list_images(folder: Path, role: str) -> list[str]:
    """Names of the images below ``folder / role``, sorted, relative to ``folder``.

    Raises:
        OpenDelgError: If a folder cannot be listed: figures without its images would be wrong.
    """

    def refuse(error: OSError) -> None:
        raise OpenDelgError(f"folder must be readable, got {str(error.filename)!r}") from error

    found = find_images([folder / role], refuse)
    return [path.relative_to(folder).as_posix() for path in found]


def _images(names: Sequence[str], fields: Sequence[_Fields], regions: np.ndarray) -> PlaceImages:
    return PlaceImages(
        names=tuple(names),
        positions=np.array([one.position for one in fields], np.float64).reshape(-1, 2),
        regions=regions,
        headings=np.array([one.heading for one in fields], np.float64),
    )


def _fields(name: str, folder: Path) -> _Fields:
    fields = Path(name).name.split("@")
    if len(fields) < _NORTH + 2:  # something follows the last @, if only the extension
        raise FormatError(
            f"name of an image must be like '@east@north@...@.jpg', got {name!r} in {str(folder)!r}"
        )
    east, north = (_number(fields[number], name, folder) for number in (_EAST, _NORTH))
    heading = _field(fields, _HEADING)
    return _Fields(
        position=(east, north),
        zone=_zone(_field(fields, _ZONE), name, folder),
        panorama=_field(fields, _PANORAMA),
        heading=_number(heading, name, folder) if heading else float("nan"),
    )


def _field(fields: Sequence[str], number: int) -> str:
    """A field that may be absent; the last one is the extension."""
    return fields[number].strip() if number < len(fields) - 1 else ""


def _zone(text: str, name: str, folder: Path) -> str:
    if text and not (text.isdecimal() and 1 <= int(text) <= 60):
        raise FormatError(
            f"UTM zone must be a number from 1 to 60, got {text!r} in {name!r} in {str(folder)!r}"
        )
    return text and str(int(text))


def _number(text: str, name: str, folder: Path) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not math.isfinite(value):
        raise FormatError(
            f"fields of a name must be finite numbers, got {text!r} in {name!r} in {str(folder)!r}"
        )
    return value


def _require_zones(zones: dict[str, list[str]], names: dict[str, list[str]], folder: Path) -> None:
    """Refuse zones that only some names have: nobody knows which are near which."""
    pairs = [
        (name, zone) for role in zones for name, zone in zip(names[role], zones[role], strict=True)
    ]
    without = [name for name, zone in pairs if not zone]
    if without and len(without) < len(pairs):
        raise FormatError(
            f"all names must have a UTM zone or none, got {len(without)} of {len(pairs)} without "
            f"in {str(folder)!r}: {examples(without)}"
        )
