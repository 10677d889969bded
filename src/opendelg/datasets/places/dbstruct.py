"""Pittsburgh and Tokyo 24/7 as NetVLAD specifies them: ``pitts30k_test.mat``, ``tokyo247.mat``.

The file holds the struct ``dbStruct`` with the image names and UTM positions of the database and
of the queries (``dbImageFns``, ``utmDb`` (2, N), ``qImageFns``, ``utmQ`` (2, Q)), and the radius
(``posDistThr``, m).  Source: Relja/netvlad (MIT), datasets/dbBase.m.  Names are relative to two
folders that users choose; the usual ones are tried (``DATABASE_FOLDERS``, ``QUERY_FOLDERS``).

Tokyo 24/7 counts only the first result of each panorama, of which twelve consecutive database
images are views: datasets/dbTokyo247.m, "non-max suppression like in Torii et al. CVPR 2015".
Patch-NetVLAD's code does the same before it verifies (QVPR/Patch-NetVLAD, MIT, feature_match.py),
and so does this.  All queries count, those without a positive as failures (recallAtN.m).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from opendelg.datasets.matlab import Value, read_matlab
from opendelg.datasets.places.dataset import (
    NearRule,
    PlaceImages,
    PlacesDataset,
    require_files,
    with_positives,
)
from opendelg.errors import FormatError

LAYOUT = "dbstruct"
SPECIFICATIONS = {"pitts30k": "pitts30k_test.mat", "tokyo247": "tokyo247.mat"}
SPECIFICATION_FOLDERS = ("", "datasets")  # below the given folder; the archive has `datasets`
DATABASE_FOLDERS = ("", "images", "database")
QUERY_FOLDERS = ("queries_real", "queries", "query", "247query_subset_v2", "")
SUFFIXES = (".jpg", ".png", ".jpeg")  # copies of Tokyo 24/7 differ in them
VIEWS_PER_PANORAMA = 12  # of Tokyo 24/7


def find_specification(folder: Path, name: str) -> Path | None:
    """The specification of a dataset below its folder; None if there is none."""
    for below in SPECIFICATION_FOLDERS:
        path = folder / below / SPECIFICATIONS[name]
        if path.is_file():
            return path
    return None


def read_dbstruct(
    folder: Path,
    specification: Path,
    radius: float | None = None,
    one_per_panorama: bool = False,
) -> PlacesDataset:
    """The dataset that a specification describes.

    Args:
        folder: Where the images are.
        specification: The .mat file.
        radius: m; None: what the file says.
        one_per_panorama: Count only the first result of each twelve consecutive images.

    Raises:
        FileNotFoundError: If the specification does not exist.
        FormatError: If it is not as described above, or images are missing.
        OpenDelgError: If no query can find anything.
    """
    where = repr(str(specification))
    values = read_matlab(specification).get("dbStruct")
    if not isinstance(values, dict):
        raise FormatError(f"specification must hold the struct dbStruct, got none in {where}")
    database = _images(folder, values, ("dbImageFns", "utmDb"), DATABASE_FOLDERS, where)
    queries = _images(folder, values, ("qImageFns", "utmQ"), QUERY_FOLDERS, where)
    if radius is None:
        threshold = values.get("posDistThr")
        if not isinstance(threshold, np.ndarray) or threshold.size != 1 or not threshold > 0:
            raise FormatError(f"posDistThr must be a number above 0, got {threshold!r} in {where}")
        radius = float(threshold.item())
    panoramas = np.arange(len(database)) // VIEWS_PER_PANORAMA if one_per_panorama else None
    return with_positives(
        PlacesDataset(
            layout=LAYOUT,
            folder=folder,
            database=database,
            queries=queries,
            rule=NearRule(radius),
            positives=None,
            panoramas=panoramas,
        )
    )


def _images(
    folder: Path,
    values: dict[str, Value],
    fields: tuple[str, str],
    folders: Sequence[str],
    where: str,
) -> PlaceImages:
    names, positions = (values.get(field) for field in fields)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise FormatError(f"{fields[0]} must be a cell of texts, got something else in {where}")
    if not isinstance(positions, np.ndarray) or positions.shape != (2, len(names)):
        shape = getattr(positions, "shape", None)
        raise FormatError(f"{fields[1]} must be (2, {len(names)}), got {shape} in {where}")
    texts = [_safe(str(name), where) for name in names]
    found = _located(folder, texts, folders)
    require_files(folder, found, where)
    return PlaceImages(
        names=tuple(found),
        positions=positions.T.astype(np.float64),
        regions=np.zeros(len(names), np.int64),
        headings=np.full(len(names), np.nan),
    )


def _safe(name: str, where: str) -> str:
    path = Path(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
        raise FormatError(f"image must lie below the folder, got {name!r} in {where}")
    return path.as_posix()


def _located(folder: Path, names: Sequence[str], folders: Sequence[str]) -> list[str]:
    """The names with the folder and the suffix that the first of them has on disk."""
    for below in folders:
        for suffix in ("", *SUFFIXES) if names else ():  # "": as it is written
            if (folder / _moved(names[0], below, suffix)).is_file():
                return [_moved(name, below, suffix) for name in names]
    return list(names)  # the caller says that they are missing


def _moved(name: str, below: str, suffix: str) -> str:
    path = Path(below, name)
    return (path.with_suffix(suffix) if suffix else path).as_posix()
