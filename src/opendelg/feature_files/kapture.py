"""Features in a kapture folder (format 1.1), a binary file per image and kind.

    reconstruction/keypoints/TYPE/keypoints.txt, IMAGE.kpt
    reconstruction/descriptors/TYPE/descriptors.txt, IMAGE.desc
    reconstruction/global_features/TYPE/global_features.txt, IMAGE.gfeat

The text files name the type and size of the numbers, little-endian rows that fill the others.
A row of keypoints begins with (x, y) px; kapture's origin is the upper left corner, as COLMAP's,
so the centre of the first pixel is (0.5, 0.5) there.  Ours go on with 1 / pyramid scale,
orientation (0) and attention score: five numbers, which kapture cuts to (x, y) for COLMAP.

Source: naver/kapture, kapture_format.adoc (1.1) and kapture/converter/colmap.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from opendelg.errors import FormatError
from opendelg.feature_files.checking import checked_global, checked_local
from opendelg.feature_files.writing import replacing
from opendelg.features import LocalFeatures

NAME = "delg"  # of the detector, in the text files; it tells what our columns mean
COLUMNS = 5  # x, y, 1 / pyramid scale, orientation, score
ORIGIN = 0.5  # px, kapture's coordinate of the first pixel's centre
MAX_BYTES = 1 << 30  # of a file

_FOLDERS = {".kpt": "keypoints", ".desc": "descriptors", ".gfeat": "global_features"}
_HEADERS = {
    ".kpt": "name, dtype, dsize",
    ".desc": "name, dtype, dsize, keypoints_type, metric_type",
    ".gfeat": "name, dtype, dsize, metric_type",
}


class _Rows(NamedTuple):
    """What a text file says of the binary files beside it."""

    name: str
    dtype: np.dtype
    size: int  # numbers in a row


def write_kapture_local(root: Path, image: str, local: LocalFeatures, kind: str = NAME) -> None:
    """Write an image's keypoints and descriptors, and what describes them if it is not there.

    Args:
        root: The kapture folder.
        image: Path of the image below ``sensors/records_data``.
        local: Its features.
        kind: Name of the folders of this kind of features.

    Raises:
        FormatError: If the folders hold features of another shape.
        OpenDelgError: If a file cannot be written.
    """
    rows = np.zeros((len(local), COLUMNS), np.float32)
    rows[:, :2] = local.keypoints + ORIGIN
    rows[:, 2] = 1 / local.scales
    rows[:, 4] = local.scores
    _write(root, ".kpt", kind, image, rows, [])
    _write(root, ".desc", kind, image, local.descriptors, [kind, "L2"])


def write_kapture_global(root: Path, image: str, descriptor: np.ndarray, kind: str = NAME) -> None:
    """Write an image's global descriptor (D,); as `write_kapture_local`."""
    _write(root, ".gfeat", kind, image, descriptor[None], ["L2"])


def read_kapture_local(root: Path, image: str, kind: str = NAME) -> LocalFeatures:
    """An image's local features; scales and scores are 1 in features of another detector.

    Raises:
        FormatError: If the files do not hold them.
    """
    where = str(kapture_path(root, ".kpt", kind, image))
    name, rows = _read(root, ".kpt", kind, image)
    if rows.shape[1] < 2:
        raise FormatError(f"keypoints must begin with x and y, got {rows.shape} in {where!r}")
    sizes, scores = np.ones((2, len(rows)))
    if name == NAME and rows.shape[1] == COLUMNS:
        sizes, scores = rows[:, 2].astype(np.float64), rows[:, 4]
    if not (sizes > 0).all():  # also NaN
        raise FormatError(f"scales must be positive, got other numbers in {where!r}")
    descriptors = _read(root, ".desc", kind, image)[1]
    return checked_local(rows[:, :2] - ORIGIN, descriptors, scores, 1 / sizes, where)


def read_kapture_global(root: Path, image: str, kind: str = NAME) -> np.ndarray:
    """An image's global descriptor (D,) float32.

    Raises:
        FormatError: If the files do not hold it.
    """
    rows = _read(root, ".gfeat", kind, image)[1]
    where = str(kapture_path(root, ".gfeat", kind, image))
    if len(rows) != 1:
        raise FormatError(f"global feature must be one row, got {len(rows)} in {where!r}")
    return checked_global(rows[0], where)


def kapture_path(root: Path, suffix: str, kind: str, image: str) -> Path:
    """The binary file of an image; ``suffix`` is .kpt, .desc or .gfeat."""
    return root / "reconstruction" / _FOLDERS[suffix] / kind / f"{image}{suffix}"


def _description_path(root: Path, suffix: str, kind: str) -> Path:
    return root / "reconstruction" / _FOLDERS[suffix] / kind / f"{_FOLDERS[suffix]}.txt"


def _write(
    root: Path, suffix: str, kind: str, image: str, rows: np.ndarray, more: Sequence[str]
) -> None:
    """Write rows in float32, described first; ``more`` ends the description."""
    path = _description_path(root, suffix, kind)
    if path.exists():
        known = _describe(path, suffix)
        if known != (NAME, np.dtype("<f4"), rows.shape[1]):
            raise FormatError(
                f"features must be {NAME}, float32, {rows.shape[1]} as these are, got "
                f"{known.name}, {known.dtype}, {known.size} in {str(path)!r}; "
                "write into another folder"
            )
    else:
        line = ", ".join([NAME, "float32", str(rows.shape[1]), *more])
        with replacing(path) as part:
            part.write_text(f"# kapture format: 1.1\n# {_HEADERS[suffix]}\n{line}\n")
    with replacing(kapture_path(root, suffix, kind, image)) as part:
        part.write_bytes(rows.astype("<f4").tobytes())


def _read(root: Path, suffix: str, kind: str, image: str) -> tuple[str, np.ndarray]:
    """Name of the detector, and the rows of an image."""
    described = _describe(_description_path(root, suffix, kind), suffix)
    path = kapture_path(root, suffix, kind, image)
    row_bytes = described.size * described.dtype.itemsize
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES or len(data) % row_bytes:
        raise FormatError(
            f"feature file must have whole rows of {row_bytes} bytes, {MAX_BYTES} in all at most, "
            f"got {len(data)} in {str(path)!r}"
        )
    return described.name, np.frombuffer(data, described.dtype).reshape(-1, described.size)


def _describe(path: Path, suffix: str) -> _Rows:
    """The one line of a text file."""
    try:
        lines = [line.strip() for line in path.read_text("utf-8").splitlines()]
        (line,) = [line for line in lines if line and not line.startswith("#")]
        name, dtype, size, *_ = (word.strip() for word in line.split(","))
        if not re.fullmatch("(float|u?int)[0-9]*", dtype):
            raise ValueError(f"dtype must be of numbers, got {dtype!r}")
        described = _Rows(name, np.dtype(dtype).newbyteorder("<"), int(size))
        if not 0 < described.size <= 1 << 16:
            raise ValueError(f"dsize must be from 1 to 65536, got {described.size}")
    except (ValueError, TypeError) as error:
        raise FormatError(
            f"kapture description must be {_HEADERS[suffix]!r}, got {str(path)!r} ({error})"
        ) from error
    return described
