"""Local features of one image as one checksummed record of bytes, and back.

A record is a 20-byte header and arrays without gaps, all little-endian:

    magic "DLF1", precision (uint8: 1 int8, 2 float16), 3 zero bytes,
    N keypoints (uint32), D columns (uint32), crc32 of everything else (uint32);
    keypoints (N, 2) float32, scores (N,) float32, scales (N,) float32,
    [int8 only: row factors (N,) float32], descriptors (N, D) int8 or float16.

Only descriptors are rounded.  An int8 row uses the whole range -127..127, and its factor is
chosen so that the row read back has the length of the row that was packed: unit rows stay unit.
"""

import struct
import zlib
from typing import Literal, get_args

import numpy as np

from opendelg.errors import FormatError
from opendelg.features import LocalFeatures

Precision = Literal["int8", "float16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

_HEADER = struct.Struct("<4sB3xIII")
_MAGIC = b"DLF1"
_CODES: dict[Precision, int] = {"int8": 1, "float16": 2}
_PER_KEYPOINT = 16  # bytes: x, y, score, scale as float32
_LARGEST = 127  # of int8, symmetric


def record_bytes(num_keypoints: int, num_dimensions: int, precision: Precision) -> int:
    """Bytes of a record of `pack_local`."""
    row_bytes = {"int8": 4 + num_dimensions, "float16": 2 * num_dimensions}[precision]
    return _HEADER.size + num_keypoints * (_PER_KEYPOINT + row_bytes)


def pack_local(local: LocalFeatures, precision: Precision) -> bytes:
    """One record that holds `local`, about N * (20 + D) bytes in int8.

    Args:
        local: Finite features; descriptors of float16 must lie within +-65504.
        precision: How descriptors are kept.

    Raises:
        ValueError: If shapes disagree, a value is not finite, or the precision is unknown.
    """
    if precision not in _CODES:
        raise ValueError(f"precision must be one of {PRECISIONS}, got {precision!r}")
    _check(local)
    arrays = [
        local.keypoints.astype("<f4"),
        local.scores.astype("<f4"),
        local.scales.astype("<f4"),
    ]
    if precision == "int8":
        arrays += _quantise(local.descriptors)
    else:
        arrays.append(local.descriptors.astype("<f2"))
    payload = b"".join(array.tobytes() for array in arrays)
    dimensions = (len(local), local.descriptors.shape[1])
    start = _HEADER.pack(_MAGIC, _CODES[precision], *dimensions, 0)
    checksum = zlib.crc32(payload, zlib.crc32(start[:-4]))
    return _HEADER.pack(_MAGIC, _CODES[precision], *dimensions, checksum) + payload


def unpack_local(record: bytes) -> LocalFeatures:
    """The features in a record of `pack_local`, as float32 arrays of their own.

    Raises:
        FormatError: If the record is cut off, changed, or of another version.
    """
    if len(record) < _HEADER.size or record[:4] != _MAGIC:
        raise FormatError(f"record must start with a header {_MAGIC!r}, got {bytes(record[:4])!r}")
    _, code, num_keypoints, num_dimensions, checksum = _HEADER.unpack_from(record)
    found = zlib.crc32(memoryview(record)[_HEADER.size :], zlib.crc32(record[: _HEADER.size - 4]))
    if found != checksum:
        raise FormatError(f"record must have checksum {checksum:08x}, got {found:08x}")

    row_bytes = {1: 4 + num_dimensions, 2: 2 * num_dimensions}.get(code)
    if row_bytes is None:
        raise FormatError(f"record must have a known precision, got code {code}")
    expected = _HEADER.size + num_keypoints * (_PER_KEYPOINT + row_bytes)
    if len(record) != expected:
        raise FormatError(f"record must have {expected} bytes, got {len(record)}")

    floats = np.frombuffer(record, "<f4", 4 * num_keypoints, _HEADER.size).astype(np.float32)
    descriptors = _read_descriptors(record, code, num_keypoints, num_dimensions)
    return LocalFeatures(
        keypoints=floats[: 2 * num_keypoints].reshape(num_keypoints, 2),
        descriptors=descriptors,
        scores=floats[2 * num_keypoints : 3 * num_keypoints],
        scales=floats[3 * num_keypoints :],
    )


def _check(local: LocalFeatures) -> None:
    num_keypoints = len(local.keypoints)
    shapes = {
        "keypoints": (num_keypoints, 2),
        "scores": (num_keypoints,),
        "scales": (num_keypoints,),
        "descriptors": (num_keypoints, local.descriptors.shape[-1]),
    }
    for name, shape in shapes.items():
        array = getattr(local, name)
        if array.shape != shape:
            raise ValueError(f"{name} must have shape {shape}, got {array.shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} must be finite, got NaN or infinity")


def _quantise(descriptors: np.ndarray) -> list[np.ndarray]:
    """Row factors (N,) float32 and rows (N, D) int8; a row of zeros has factor 0."""
    peaks = np.abs(descriptors).max(axis=1, initial=0.0)[:, None]
    rows = np.rint(descriptors * (_LARGEST / np.where(peaks > 0, peaks, 1.0)))
    lengths = np.linalg.norm(rows, axis=1)
    factors = np.linalg.norm(descriptors, axis=1) / np.where(lengths > 0, lengths, 1.0)
    return [factors.astype("<f4"), rows.astype(np.int8)]


def _read_descriptors(
    record: bytes, code: int, num_keypoints: int, num_dimensions: int
) -> np.ndarray:
    """(N, D) float32 descriptors of a checked record."""
    offset = _HEADER.size + num_keypoints * _PER_KEYPOINT
    shape = (num_keypoints, num_dimensions)
    count = num_keypoints * num_dimensions
    if code == _CODES["float16"]:
        return np.frombuffer(record, "<f2", count, offset).reshape(shape).astype(np.float32)
    factors = np.frombuffer(record, "<f4", num_keypoints, offset)
    rows = np.frombuffer(record, np.int8, count, offset + 4 * num_keypoints).reshape(shape)
    descriptors: np.ndarray = np.multiply(rows, factors[:, None], dtype=np.float32)
    return descriptors
