"""The benchmarks that lie below a data folder, known by the files that their makers publish.

Folders may have any name and lie up to two folders deep; a dataset is looked for no further below
another one.  Each is read by the published rules: cropped queries, re-ranking as published, and of
what is not all there the part that is, which its run then says.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from opendelg.datasets.groups import COLUMNS, read_groups
from opendelg.datasets.places import PlacesOptions, read_places
from opendelg.datasets.places.dbstruct import SPECIFICATIONS, find_specification
from opendelg.datasets.places.msls import VALIDATION_CITIES
from opendelg.datasets.places.utm_names import find_folder
from opendelg.datasets.revisited import OFFICIAL, RevisitedName
from opendelg.errors import OpenDelgError
from opendelg.evaluation.landmark_data import (
    RECOGNITION_SOLUTION,
    RETRIEVAL_SOLUTION,
    find_table,
    open_recognition,
    open_retrieval,
)
from opendelg.evaluation.landmark_recognition import VoteConfig
from opendelg.evaluation.places import require_truth
from opendelg.evaluation.preparation import PreparationConfig
from opendelg.evaluation.protocols import (
    Groups,
    LandmarkRecognition,
    LandmarkRetrieval,
    Places,
    ReadProtocol,
    Revisited,
)
from opendelg.search import SearchConfig
from opendelg.verification import VerificationSettings

MAX_DEPTH = 2  # folders below the data folder
R1M_FOLDER = "revisitop1m"  # beside the dataset, as the makers' code keeps it
_R1M = "+r1m"
_REVISITOP = "http://cmp.felk.cvut.cz/revisitop/"
_LANDMARKS = "https://github.com/cvdfoundation/google-landmark"
_TARS = f"{R1M_FOLDER}/revisitop1m.1.tar.gz to revisitop1m.100.tar.gz ({_REVISITOP})"

# What each benchmark needs below the data folder, and whose it is; the long ones last.
NEEDS = {
    "roxford5k": f"roxford5k/gnd_roxford5k.pkl ({_REVISITOP}), and in roxford5k/jpg/ the photos "
    "of oxbuild_images.tgz (Oxford Buildings)",
    "rparis6k": f"rparis6k/gnd_rparis6k.pkl ({_REVISITOP}), and in rparis6k/jpg/ the photos of "
    "paris_1.tgz and paris_2.tgz (Paris Buildings)",
    "pitts30k": "pitts30k/pitts30k_test.mat (NetVLAD), and below it the photos that it names",
    "tokyo247": "tokyo247/tokyo247.mat (NetVLAD), and below it the photos that it names",
    "msls": "msls/train_val/cph and sf (Mapillary Street-Level Sequences)",
    "nordland": "nordland/database/ and nordland/queries/, frames by number",
    "gldv2-retrieval": f"gldv2/index/ and gldv2/test/ with their tars, index.csv, test.csv and "
    f"{RETRIEVAL_SOLUTION} ({_LANDMARKS})",
    "gldv2-recognition": f"gldv2/train/ and gldv2/test/ with their tars, train_clean.csv, "
    f"test.csv and {RECOGNITION_SOLUTION} ({_LANDMARKS})",
    f"roxford5k{_R1M}": f"roxford5k, and beside it {_TARS}",
    f"rparis6k{_R1M}": f"rparis6k, and beside it {_TARS}",
}

_PUBLISHED = SearchConfig(verification=VerificationSettings(mode="paper"))
_NEIGHBOURS = replace(_PUBLISHED, rerank=10)  # that are verified in recognition, as its command


@dataclass(frozen=True)
class Found:
    """A benchmark that is there."""

    name: str  # of `NEEDS`, or places-FOLDER, or groups-TABLE
    place: Path  # its folder or table
    # Its argument is a folder that may keep what reading found out.
    read: Callable[[Path], ReadProtocol]
    others: tuple[Path, ...] = ()  # further places, which are not looked at


def find_benchmarks(data: Path) -> list[Found]:
    """The benchmarks in a folder and in those below it, in the order of `NEEDS`, others first.

    Raises:
        FileNotFoundError: If there is no such folder.
    """
    if not data.is_dir():
        raise FileNotFoundError(f"data must be an existing folder, got {str(data)!r}")
    found: dict[str, list[Found]] = {}
    level = [data.absolute()]
    for depth in range(MAX_DEPTH + 1):
        below: list[Path] = []
        for folder in level:
            datasets = list(_datasets_in(folder))
            for one in [*datasets, *_tables_in(folder)]:
                found.setdefault(one.name, []).append(one)
            if not datasets and depth < MAX_DEPTH:
                below += (path for path in folder.iterdir() if _is_open(path))
        level = sorted(below)
    order = list(NEEDS)
    return [
        _chosen(found[name])
        for name in sorted(found, key=lambda n: (order.index(n) if n in order else -1, n))
    ]


def _is_open(path: Path) -> bool:
    """Whether a folder is looked into: not if it is hidden, or one of the system's own."""
    return path.is_dir() and not path.name.startswith(".") and os.access(path, os.R_OK | os.X_OK)


def _chosen(candidates: list[Found]) -> Found:
    """The one whose folder has the name of the benchmark, else the first."""
    named = [one for one in candidates if one.place.name == one.name.removesuffix(_R1M)]
    chosen = (named or candidates)[0]
    return replace(chosen, others=tuple(c.place for c in candidates if c is not chosen))


def _datasets_in(folder: Path) -> Iterator[Found]:
    """What this folder is."""
    for name in OFFICIAL:
        if any((folder / f"gnd_{name}{ending}").is_file() for ending in (".pkl", ".mat")):
            yield Found(name, folder, partial(_read_revisited, folder, name, None))
            million = folder.parent / R1M_FOLDER
            if million.is_dir():
                yield Found(name + _R1M, folder, partial(_read_revisited, folder, name, million))
    if _has_table(folder, RETRIEVAL_SOLUTION):
        yield Found("gldv2-retrieval", folder, partial(_read_retrieval, folder))
    if _has_table(folder, RECOGNITION_SOLUTION):
        yield Found("gldv2-recognition", folder, partial(_read_recognition, folder))
    for place in _places_in(folder):
        options = PlacesOptions(place if place in NEEDS else None)
        yield Found(place, folder, partial(_read_places, folder, options))


def _tables_in(folder: Path) -> Iterator[Found]:
    """Tables of photos labelled by groups; the photos lie in a folder of the table's name."""
    for table in sorted(path for path in folder.glob("*.csv") if path.is_file()):
        with table.open(encoding="utf-8-sig", errors="replace") as file:
            columns = file.readline(200).strip().split(",")
        if set(COLUMNS) <= set(columns):
            yield Found(f"groups-{table.stem}", table, partial(_read_groups, table))


def _has_table(folder: Path, name: str) -> bool:
    try:
        find_table(folder, name, "test")
    except OpenDelgError:
        return False
    return True


def _places_in(folder: Path) -> list[str]:
    names = [name for name in SPECIFICATIONS if find_specification(folder, name) is not None]
    if any((folder / "train_val" / city).is_dir() for city in VALIDATION_CITIES):
        names.append("msls")
    if not names and find_folder(folder) is not None:
        names.append(folder.name if folder.name in NEEDS else f"places-{folder.name}")
    return names


def _read_groups(table: Path, _kept: Path) -> Groups:
    images = table.with_suffix("")
    dataset = read_groups(table, images if images.is_dir() else table.parent)
    return Groups(dataset, SearchConfig(), PreparationConfig())


def _read_revisited(
    folder: Path, name: RevisitedName, distractors: Path | None, _kept: Path
) -> Revisited:
    return Revisited.read(folder, name, SearchConfig(), distractors, subset=True)


def _read_places(folder: Path, options: PlacesOptions, _kept: Path) -> Places:
    dataset = read_places(folder, options)
    require_truth(dataset)
    return Places(dataset, _PUBLISHED)


def _read_retrieval(folder: Path, kept: Path) -> LandmarkRetrieval:
    return LandmarkRetrieval(open_retrieval(folder, subset=True, cache=kept), _PUBLISHED)


def _read_recognition(folder: Path, kept: Path) -> LandmarkRecognition:
    benchmark = open_recognition(folder, subset=True, cache=kept)
    return LandmarkRecognition(benchmark, _NEIGHBOURS, VoteConfig())
