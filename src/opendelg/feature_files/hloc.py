"""HDF5 files as hloc (Hierarchical-Localization) reads and writes them.

One group per image, named as the image lies below the image folder, slashes and extension
included.  A file of local features holds ``keypoints`` (N, 2), ``descriptors`` (D, N), a column
per keypoint, ``scores`` (N,) and ``image_size`` (width, height); a file of global descriptors
``global_descriptor`` (D,).  Keypoints are (x, y) px of the original image with the centre of the
first pixel at (0, 0), as ours are: hloc adds 0.5 when it hands them to COLMAP.  ``scales`` (N,)
is optional and grows with the size of a keypoint; here it is 1 / pyramid scale.

Source: cvg/Hierarchical-Localization, hloc/extract_features.py and triangulation.py.
"""

import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from opendelg.errors import FormatError, OpenDelgError
from opendelg.feature_files.checking import checked_global, checked_local
from opendelg.feature_files.writing import replacing
from opendelg.features import ImageFeatures, LocalFeatures

MAX_VALUES = 1 << 28  # of one array: 1 GB in float32; a file may declare more than it holds
_ARRAYS_OF_IMAGES = ("keypoints", "global_descriptor")  # what makes a group one
TIME = "time_ns"  # attribute of an image's group: when its features were made, ns


def write_hloc_local(
    path: Path,
    images: Iterable[tuple[str, ImageFeatures]],
    times: Mapping[str, int] | None = None,
    half: bool = False,
) -> None:
    """Write local features into an HDF5 file, beside the images it has already.

    Args:
        path: The file; it is replaced whole or stays as it was.
        images: (name, features); an image that the file has already is written anew.
        times: When the features were made, ns, by name; `hloc_images` returns it.
        half: Descriptors in float16 as hloc's own, half as large; keypoints never are, because
            float16 knows no odd pixel beyond 2048.

    Raises:
        OpenDelgError: If the file cannot be written, or h5py is not installed.
    """
    precision = np.float16 if half else np.float32
    with _appending(path) as file:
        for name, features in images:
            group, local = _new_group(file, name, features, times), features.local
            group["keypoints"] = local.keypoints
            group["descriptors"] = local.descriptors.T.astype(precision)
            group["scores"] = local.scores
            group["scales"] = 1 / local.scales


def write_hloc_global(
    path: Path,
    images: Iterable[tuple[str, ImageFeatures]],
    times: Mapping[str, int] | None = None,
) -> None:
    """Write global descriptors; as `write_hloc_local`, in float32."""
    with _appending(path) as file:
        for name, features in images:
            group = _new_group(file, name, features, times)
            group["global_descriptor"] = features.global_descriptor


def read_hloc_local(path: Path, name: str) -> tuple[LocalFeatures, tuple[int, int]]:
    """Local features and size (width, height) of an image; its scales are 1 if none are given.

    Raises:
        FormatError: If the file does not hold them.
        OpenDelgError: If h5py is not installed.
    """
    where = f"{path}, {name}"
    with _reading(path) as file:
        group = _group(file, name, path)
        keypoints = _array(group, "keypoints", where)
        sizes = _array(group, "scales", where) if "scales" in group else np.ones(len(keypoints))
        if not (sizes > 0).all():  # also NaN
            raise FormatError(f"scales must be positive, got other numbers in {where!r}")
        local = checked_local(
            keypoints,
            _array(group, "descriptors", where).T,
            _array(group, "scores", where),
            1 / sizes,
            where,
        )
        size = _array(group, "image_size", where)
    if size.shape != (2,) or not (np.isfinite(size).all() and (size > 0).all()):
        raise FormatError(f"image_size must be (width, height), got {size.tolist()} in {where!r}")
    return local, (int(size[0]), int(size[1]))


def read_hloc_global(path: Path, name: str) -> np.ndarray:
    """The global descriptor (D,) float32 of an image.

    Raises:
        FormatError: If the file does not hold it.
        OpenDelgError: If h5py is not installed.
    """
    where = f"{path}, {name}"
    with _reading(path) as file:
        return checked_global(_array(_group(file, name, path), "global_descriptor", where), where)


def hloc_images(path: Path) -> dict[str, int | None]:
    """The images of a file by name, with the time (ns) their features were made, if known.

    Raises:
        FormatError: If the file is not HDF5.
        OpenDelgError: If h5py is not installed.
    """
    with _reading(path) as file:
        found: list[str] = []
        file.visit(found.append)  # names only: opening every array would take four times as long
        arrays = (name.rpartition("/") for name in found)
        images = {group for group, _, array in arrays if array in _ARRAYS_OF_IMAGES and group}
        return {name: _time(file[name]) for name in sorted(images)}


def require_h5py() -> ModuleType:
    """The module, which only this format needs.

    Raises:
        OpenDelgError: If it is not installed.
    """
    try:
        import h5py  # type: ignore[import-untyped]
    except ImportError as error:
        raise OpenDelgError(
            "h5py must be installed for HDF5 files, got none; pip install 'opendelg[h5]'"
        ) from error
    module: ModuleType = h5py
    return module


@contextmanager
def _appending(path: Path) -> Iterator[Any]:
    """A copy of the file, open for writing, that takes its place at the end.

    HDF5 loses a file whose writer is killed, so the one that is there is never written to.
    """
    h5py = require_h5py()
    with replacing(path) as part:
        if path.exists():
            shutil.copyfile(path, part)
        try:
            with h5py.File(part, "a") as file:
                yield file
        except RuntimeError as error:  # what HDF5 says when closing fails on a full disk
            raise OSError(str(error)) from error


def _new_group(
    file: Any, name: str, features: ImageFeatures, times: Mapping[str, int] | None
) -> Any:
    if name in file:
        del file[name]
    group = file.create_group(name)
    if times is not None:
        group.attrs[TIME] = np.int64(times[name])
    group["image_size"] = np.array(features.size, np.int64)
    return group


def _time(group: Any) -> int | None:
    """When the features of an image were made, ns, if this project wrote them."""
    time = group.attrs.get(TIME)
    return int(time) if isinstance(time, np.integer) else None


@contextmanager
def _reading(path: Path) -> Iterator[Any]:
    h5py = require_h5py()
    if not path.is_file():
        raise FileNotFoundError(f"feature file must be a file, got {str(path)!r}")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:  # HDF5's own
        raise FormatError(
            f"feature file must be HDF5 as hloc writes it, got {str(path)!r} ({error})"
        ) from error


def _group(file: Any, name: str, path: Path) -> Any:
    """The group of an image."""
    group = file.get(name) if name else None
    if not hasattr(group, "keys"):
        raise FormatError(f"image must be in the feature file, got no {name!r} in {str(path)!r}")
    return group


def _array(group: Any, name: str, where: str) -> np.ndarray:
    """A data set of numbers that is not larger than memory should bear."""
    data = group.get(name)
    if data is None or not hasattr(data, "shape"):
        raise FormatError(f"image must have {name}, got {sorted(group)} in {where!r}")
    if data.shape is None or data.dtype.kind not in "fiu" or data.size > MAX_VALUES:
        raise FormatError(
            f"{name} must be numbers, at most {MAX_VALUES}, got {data.shape} {data.dtype} "
            f"in {where!r}"
        )
    return np.asarray(data[()])
