"""Local features of one image as one checksummed record of bytes, and back.

A record is a 20-byte header and arrays without gaps, all little-endian:

    magic "DLF1", precision (uint8: 1 int8, 2 float16, 3 pq, 4 1bit), 3 zero bytes,
    N keypoints (uint32), D columns (uint32), crc32 of everything else (uint32);
    int8, float16: keypoints (N, 2), scores (N,), scales (N,), all float32,
        [int8 only: row factors (N,) float32], descriptors (N, D) int8 or float16;
    pq, 1bit: least and step (4, 2) float32 of the columns x, y, score and scale,
        columns (N, 4) uint16, descriptors (N, D / 4) or (N, D / 8) uint8.

int8 and float16 round descriptors only.  An int8 row uses the whole range -127..127, and its
factor is chosen so that the row read back has the length of the row that was packed: unit rows
stay unit.  pq is product quantisation with the collection's codebook, 1bit keeps signs.  Rows of
both are read back shorter than unit, as the means of what they stand for: products with them are
off least.  The rest is kept in steps of a 65535th of its range in the image: 0.06 px of 4000.
"""

import math
import struct
import zlib
from typing import Literal, get_args

import numpy as np

from opendelg.collection.codebook import PART, Codebook
from opendelg.errors import FormatError
from opendelg.features import LocalFeatures

Precision = Literal["int8", "float16", "pq", "1bit"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

_HEADER = struct.Struct("<4sB3xIII")
_MAGIC = b"DLF1"
_CODES: dict[Precision, int] = {"int8": 1, "float16": 2, "pq": 3, "1bit": 4}
_NAMES = {code: name for name, code in _CODES.items()}
_LARGEST = 127  # of int8, symmetric
_STEPS = 65535  # of uint16
_RANGES = 32  # bytes: least and step of four columns
# Of a row of signs: the mean size of a normal variable, as columns of a unit row are by and large.
_SIGN_LENGTH = math.sqrt(2 / math.pi)


def record_bytes(num_keypoints: int, num_dimensions: int, precision: Precision) -> int:
    """Bytes of a record of `pack_local`."""
    ranges = 0 if precision in ("int8", "float16") else _RANGES
    return _HEADER.size + ranges + num_keypoints * keypoint_bytes(num_dimensions, precision)


def keypoint_bytes(num_dimensions: int, precision: Precision) -> int:
    """Bytes of a record for each keypoint, its descriptor included."""
    match precision:
        case "float16":
            return 16 + 2 * num_dimensions
        case "int8":
            return 16 + 4 + num_dimensions
        case "pq":
            return 8 + num_dimensions // PART
        case "1bit":
            return 8 + -(-num_dimensions // 8)


def pack_local(
    local: LocalFeatures, precision: Precision, codebook: Codebook | None = None
) -> bytes:
    """One record that holds `local`.

    Args:
        local: Finite features; descriptors of float16 must lie within +-65504.
        precision: How descriptors are kept.
        codebook: Of pq, learnt on such descriptors.

    Raises:
        ValueError: If shapes disagree, a value is not finite, the precision is unknown, or the
            codebook is missing or does not fit.
    """
    if precision not in _CODES:
        raise ValueError(f"precision must be one of {PRECISIONS}, got {precision!r}")
    _check(local)
    descriptors = local.descriptors
    if precision in ("int8", "float16"):
        arrays = [local.keypoints.astype("<f4"), local.scores.astype("<f4")]
        arrays.append(local.scales.astype("<f4"))
    else:
        arrays = _quantise_columns(local)
    match precision:
        case "int8":
            arrays += _quantise(descriptors)
        case "float16":
            arrays.append(descriptors.astype("<f2"))
        case "pq":
            if codebook is None or codebook.num_dimensions != descriptors.shape[1]:
                raise ValueError(
                    f"codebook must be one of {descriptors.shape[1]} columns, got "
                    f"{'none' if codebook is None else codebook.num_dimensions}"
                )
            arrays.append(codebook.encode(descriptors))
        case "1bit":
            arrays.append(np.packbits(descriptors > 0, axis=1))
    payload = b"".join(array.tobytes() for array in arrays)
    dimensions = (len(local), descriptors.shape[1])
    start = _HEADER.pack(_MAGIC, _CODES[precision], *dimensions, 0)
    checksum = zlib.crc32(payload, zlib.crc32(start[:-4]))
    return _HEADER.pack(_MAGIC, _CODES[precision], *dimensions, checksum) + payload


def unpack_local(record: bytes, codebook: Codebook | None = None) -> LocalFeatures:
    """The features in a record of `pack_local`, as float32 arrays of their own.

    Args:
        record: Of any precision.
        codebook: That a record of pq was packed with.

    Raises:
        FormatError: If the record is cut off, changed, of another version, or needs another
            codebook.
    """
    if len(record) < _HEADER.size or record[:4] != _MAGIC:
        raise FormatError(f"record must start with a header {_MAGIC!r}, got {bytes(record[:4])!r}")
    _, code, num_keypoints, num_dimensions, checksum = _HEADER.unpack_from(record)
    found = zlib.crc32(memoryview(record)[_HEADER.size :], zlib.crc32(record[: _HEADER.size - 4]))
    if found != checksum:
        raise FormatError(f"record must have checksum {checksum:08x}, got {found:08x}")
    precision = _NAMES.get(code)
    if precision is None:
        raise FormatError(f"record must have a known precision, got code {code}")
    expected = record_bytes(num_keypoints, num_dimensions, precision)
    if len(record) != expected:
        raise FormatError(f"record must have {expected} bytes, got {len(record)}")

    size = num_keypoints * keypoint_bytes(num_dimensions, precision)
    if precision in ("int8", "float16"):
        floats = np.frombuffer(record, "<f4", 4 * num_keypoints, _HEADER.size).astype(np.float32)
        keypoints = floats[: 2 * num_keypoints].reshape(num_keypoints, 2)
        scores, scales = floats[2 * num_keypoints :].reshape(2, num_keypoints)
        size -= 16 * num_keypoints
    else:
        columns = _read_columns(record, num_keypoints)
        keypoints, scores, scales = (
            columns[:, :2].copy(),
            columns[:, 2].copy(),
            columns[:, 3].copy(),
        )
        size -= 8 * num_keypoints
    content = np.frombuffer(record, np.uint8, size, len(record) - size)
    descriptors = _read_descriptors(content, precision, num_keypoints, num_dimensions, codebook)
    return LocalFeatures(keypoints, descriptors, scores, scales)


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


def _quantise_columns(local: LocalFeatures) -> list[np.ndarray]:
    """Least and step (4, 2) float32 of x, y, score and scale, and the steps (N, 4) uint16."""
    columns = np.column_stack([local.keypoints, local.scores, local.scales]).astype(np.float64)
    ranges = np.zeros((4, 2), "<f4")
    if len(columns):
        least = columns.min(axis=0)
        ranges = np.stack([least, (columns.max(axis=0) - least) / _STEPS], axis=1).astype("<f4")
    least, step = ranges.astype(np.float64).T
    steps = np.rint((columns - least) / np.where(step > 0, step, 1.0))
    return [ranges, np.clip(steps, 0, _STEPS).astype("<u2")]


def _read_columns(record: bytes, num_keypoints: int) -> np.ndarray:
    """Columns x, y, score and scale (N, 4) float32 of a checked record."""
    least, step = np.frombuffer(record, "<f4", 8, _HEADER.size).reshape(4, 2).astype(np.float64).T
    steps = np.frombuffer(record, "<u2", 4 * num_keypoints, _HEADER.size + _RANGES)
    return np.asarray(least + step * steps.reshape(num_keypoints, 4), np.float32)


def _read_descriptors(
    content: np.ndarray,
    precision: Precision,
    num_keypoints: int,
    num_dimensions: int,
    codebook: Codebook | None,
) -> np.ndarray:
    """(N, D) float32 descriptors of what follows the rest (B,) uint8 in a checked record."""
    shape = num_keypoints, num_dimensions
    match precision:
        case "float16":
            return content.view("<f2").reshape(shape).astype(np.float32)
        case "int8":
            factors = content[: 4 * num_keypoints].view("<f4")
            rows = content[4 * num_keypoints :].view(np.int8).reshape(shape)
            return np.asarray(rows * factors[:, None], np.float32)
        case "pq":
            if codebook is None or codebook.num_dimensions != num_dimensions:
                raise FormatError(
                    f"codebook must be there for records of {num_dimensions} columns, got "
                    f"{'none' if codebook is None else codebook.num_dimensions}"
                )
            return codebook.decode(content.reshape(num_keypoints, num_dimensions // PART))
        case "1bit":
            bits = np.unpackbits(
                content.reshape(num_keypoints, -(-num_dimensions // 8)),
                axis=1,
                count=num_dimensions,
            )
            length = np.float32(_SIGN_LENGTH / math.sqrt(num_dimensions))
            return np.where(bits, length, -length)
