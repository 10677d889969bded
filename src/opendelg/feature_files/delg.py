"""The feature files of the official DELF and DELG code: protobuf messages.

``.delg_global`` holds the global descriptor, ``.delg_local`` and ``.delf`` the local features,
``.datum`` any array or a pair of them.  A feature's ``x`` and ``y`` are the
keypoint in our coordinates (the official arrays are (y, x)), its ``scale`` is 1 / pyramid scale,
``strength`` the attention score, ``orientation`` always 0.  An empty file has no features.

Source: SPEC 6.1; tensorflow/models, research/delf/delf/python: feature_io.py and datum_io.py.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from opendelg.delf_messages import new_message
from opendelg.errors import FormatError
from opendelg.feature_files.checking import checked_global, checked_local
from opendelg.feature_files.writing import replacing
from opendelg.features import LocalFeatures

DELG_DIMENSIONS = 128  # of a released model's local descriptors; SPEC 3.4
# A file of 1000 features of 128 numbers has 0.6 MB, a PCA matrix of 2048 x 2048 has 17 MB.  The
# worst files of these sizes take 1 GB when they are parsed.
MAX_FEATURE_BYTES = 32 << 20
MAX_DATUM_BYTES = 64 << 20
MAX_RANK = 8  # dimensions of an array


def write_delg_global(path: Path, descriptor: np.ndarray) -> None:
    """Write a global descriptor (D,) as ``.delg_global``.

    Raises:
        OpenDelgError: If the file cannot be written.
    """
    if descriptor.ndim != 1:
        raise ValueError(f"descriptor must be (D,), got {descriptor.shape}")
    write_datum(path, descriptor)


def read_delg_global(path: Path) -> np.ndarray:
    """The global descriptor (D,) float32 of a ``.delg_global`` file; D is 0 in an empty one.

    Raises:
        FormatError: If the file is not one.
    """
    return checked_global(read_datum(path), str(path))


def write_delg_local(path: Path, local: LocalFeatures) -> None:
    """Write local features as ``.delg_local`` or ``.delf``.

    Raises:
        OpenDelgError: If the file cannot be written.
    """
    with replacing(path) as part:
        part.write_bytes(encode_features(local))


def read_delg_local(path: Path, num_dimensions: int = DELG_DIMENSIONS) -> LocalFeatures:
    """The local features of a ``.delg_local`` or ``.delf`` file.

    Args:
        path: The file.
        num_dimensions: Columns of the descriptors if there are no features: the file does not
            say how many there would be.

    Raises:
        FormatError: If the file is not one.
    """
    return decode_features(_read(path, MAX_FEATURE_BYTES), str(path), num_dimensions)


def write_datum(path: Path, array: np.ndarray) -> None:
    """Write an array of floats (as float32) or unsigned integers up to 32 bits.

    Raises:
        OpenDelgError: If the file cannot be written.
    """
    with replacing(path) as part:
        part.write_bytes(encode_datum(array))


def read_datum(path: Path) -> np.ndarray:
    """The array of a ``.datum`` file, float32 or uint32; an empty file is a (0,) float32.

    Raises:
        FormatError: If the file is not one.
    """
    return decode_datum(_read(path, MAX_DATUM_BYTES), str(path))


def write_datum_pair(path: Path, first: np.ndarray, second: np.ndarray) -> None:
    """Write two arrays, each as `write_datum` does.

    Raises:
        OpenDelgError: If the file cannot be written.
    """
    pair = new_message("DatumPairProto")
    _fill_datum(pair.first, first)
    _fill_datum(pair.second, second)
    with replacing(path) as part:
        part.write_bytes(pair.SerializeToString())


def read_datum_pair(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The two arrays of a pair file, each as `read_datum` gives them.

    Raises:
        FormatError: If the file is not one.
    """
    pair = _parse("DatumPairProto", _read(path, MAX_DATUM_BYTES), str(path))
    return _datum_array(pair.first, str(path)), _datum_array(pair.second, str(path))


def encode_features(local: LocalFeatures) -> bytes:
    """The bytes of a DelfFeatures message."""
    message = new_message("DelfFeatures")
    sizes = 1 / local.scales.astype(np.float64)
    columns = zip(local.keypoints.tolist(), sizes.tolist(), local.scores.tolist(), strict=True)
    for ((x, y), size, score), row in zip(columns, local.descriptors.tolist(), strict=True):
        feature = message.feature.add(x=x, y=y, scale=size, orientation=0.0, strength=score)
        feature.descriptor.shape.dim.append(len(row))
        feature.descriptor.float_list.value.extend(row)
    data: bytes = message.SerializeToString()
    return data


def decode_features(
    data: bytes, where: str, num_dimensions: int = DELG_DIMENSIONS
) -> LocalFeatures:
    """Local features from the bytes of a DelfFeatures message; as `read_delg_local`."""
    features = _parse("DelfFeatures", data, where).feature
    if not features:
        return LocalFeatures.empty(num_dimensions)
    descriptors: list[np.ndarray] = []
    for number, feature in enumerate(features):
        descriptor = _datum_array(feature.descriptor, f"{where}, feature {number}")
        if descriptor.ndim != 1 or descriptor.dtype != np.float32 or not len(descriptor):
            raise FormatError(
                f"descriptor must be (D,) float32, got {descriptor.shape} {descriptor.dtype} "
                f"of feature {number} in {where!r}"
            )
        if descriptors and descriptor.shape != descriptors[0].shape:
            raise FormatError(
                f"descriptors must have one size, got {descriptors[0].shape} and "
                f"{descriptor.shape} of feature {number} in {where!r}"
            )
        descriptors.append(descriptor)
    values = np.array([(f.x, f.y, f.scale, f.strength) for f in features], np.float64)
    sizes = values[:, 2]
    if not sizes.min() > 0:  # also NaN
        raise FormatError(f"scale must be positive, got {sizes.min()} in {where!r}")
    return checked_local(values[:, :2], np.stack(descriptors), values[:, 3], 1 / sizes, where)


def encode_datum(array: np.ndarray) -> bytes:
    """The bytes of a DatumProto message; as `write_datum`."""
    datum = new_message("DatumProto")
    _fill_datum(datum, array)
    data: bytes = datum.SerializeToString()
    return data


def decode_datum(data: bytes, where: str) -> np.ndarray:
    """An array from the bytes of a DatumProto message; as `read_datum`."""
    return _datum_array(_parse("DatumProto", data, where), where)


def _fill_datum(datum: Any, array: np.ndarray) -> None:
    if array.dtype.kind == "f":
        values = datum.float_list
        with np.errstate(over="ignore"):  # told below
            array = array.astype(np.float32)
        if not np.isfinite(array).all():
            raise ValueError("array must be finite in float32, got other numbers")
    elif array.dtype.kind == "u" and array.dtype.itemsize <= 4:
        values = datum.uint32_list
    else:
        raise ValueError(f"array must be of floats or uint8 to uint32, got {array.dtype}")
    datum.shape.dim.extend(array.shape)
    values.SetInParent()  # an empty array still says of what
    values.value.extend(array.ravel().tolist())


def _datum_array(datum: Any, where: str) -> np.ndarray:
    """The array in a DatumProto, float32 or uint32."""
    is_integer = datum.WhichOneof("kind_oneof") == "uint32_list"
    values = datum.uint32_list.value if is_integer else datum.float_list.value
    rank = len(datum.shape.dim)
    if rank > MAX_RANK:
        raise FormatError(f"datum must have at most {MAX_RANK} dimensions, got {rank} in {where!r}")
    shape = tuple(datum.shape.dim) if rank or values else (0,)
    if min(shape, default=1) < 0 or math.prod(shape) != len(values):
        raise FormatError(
            f"datum shape must fit its {len(values)} values, got {shape} in {where!r}"
        )
    array = np.asarray(values, np.uint32 if is_integer else np.float32)
    if not np.isfinite(array).all():
        raise FormatError(f"datum must be finite, got other numbers in {where!r}")
    return array.reshape(shape)


def _parse(name: str, data: bytes, where: str) -> Any:
    message = new_message(name)
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise FormatError(
            f"feature file must be a {name} message, got {where!r} ({error})"
        ) from error
    return message


def _read(path: Path, max_bytes: int) -> bytes:
    """The bytes of a file that may be parsed.

    Raises:
        FileNotFoundError: If it is absent.
        FormatError: If it is too large.
    """
    with path.open("rb") as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise FormatError(
            f"feature file must have at most {max_bytes} bytes, got more in {str(path)!r}"
        )
    return data
