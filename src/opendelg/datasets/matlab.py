"""MATLAB files of version 5 to 7, as far as datasets use them: numbers, text, cells and structs.

Only plain values are read.  Objects, functions and sparse matrices are refused, and so are files
of version 7.3, which are HDF5.  Sizes in the file are believed only as far as its bytes go.

Source: MathWorks, "MAT-File Format" (R2021b); tests compare with what SciPy writes.
"""

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np

from opendelg.errors import FormatError

Value: TypeAlias = "np.ndarray | str | list[Value] | dict[str, Value]"

MAX_BYTES = 1 << 30  # of one variable when decompressed; the largest dataset has 20 MB
MAX_DEPTH = 16  # of values in values

_HEADER = 128  # bytes
_MATRIX, _COMPRESSED = 14, 15  # types of elements
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8"} | {
    12: "i8",
    13: "u8",
}
_TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_CELL, _STRUCT, _TEXT = 1, 2, 4  # classes of matrices
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4"} | {
    14: "i8",
    15: "u8",
}
_IS_COMPLEX = 0x0800


def read_matlab(path: Path) -> dict[str, Value]:
    """The variables of a file by name.

    Numbers are arrays of the file's shape, text of one row is a str, a cell is the list of its
    values in column order, a struct is the dict of its fields, and an array of structs is the list
    of these in column order.

    Raises:
        FileNotFoundError: If there is no such file.
        FormatError: If it is no such file, damaged, or holds something else.
    """
    data = path.read_bytes()
    try:
        order = _byte_order(data)
        return dict(_variables(memoryview(data)[_HEADER:], order))
    except FormatError as error:
        raise FormatError(f"{error} in {str(path)!r}") from None
    except (struct.error, ValueError, IndexError, KeyError, OverflowError, zlib.error) as error:
        raise FormatError(
            f"MATLAB file must be undamaged, got {str(error)!r} in {str(path)!r}"
        ) from error


def _byte_order(data: bytes) -> str:
    if data[:10] == b"MATLAB 7.3" or data.startswith(b"\x89HDF"):
        raise FormatError(
            "MATLAB file must be of version 5 to 7, got 7.3; write it with `save -v7`"
        )
    orders = {b"IM": "<", b"MI": ">"}
    if len(data) < _HEADER or data[126:128] not in orders:
        raise FormatError("file must be a MATLAB file of version 5 to 7, got something else")
    return orders[data[126:128]]


def _variables(data: memoryview, order: str) -> Iterator[tuple[str, Value]]:
    for kind, content in _elements(data, order):
        if kind == _COMPRESSED:
            yield from _variables(memoryview(_decompressed(content)), order)
        elif kind == _MATRIX:
            yield _matrix(content, order, 0)
        else:
            raise FormatError(f"variable must be a matrix, got an element of type {kind}")


def _decompressed(content: memoryview) -> bytes:
    stream = zlib.decompressobj()
    data = stream.decompress(content, MAX_BYTES)
    if not stream.eof:
        raise FormatError(f"variable must have at most {MAX_BYTES} bytes and an end, got neither")
    return data


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Type and content of the elements that follow each other."""
    place = 0
    while place < len(data):
        (first,) = struct.unpack_from(f"{order}I", data, place)
        if first >> 16:  # a small element: size and type in one word, then up to 4 bytes
            kind, size, start = first & 0xFFFF, first >> 16, place + 4
            place += 8
            if size > 4:
                raise ValueError(f"small element of {size} bytes")
        else:
            kind, (size,), start = (
                first,
                struct.unpack_from(f"{order}I", data, place + 4),
                place + 8,
            )
            # Compressed elements are not padded to 8 bytes.
            place = start + (size if kind == _COMPRESSED else -(-size // 8) * 8)
        if start + size > len(data):
            raise ValueError(f"element of {size} bytes with {len(data) - start} left")
        yield kind, data[start : start + size]


def _matrix(content: memoryview, order: str, depth: int) -> tuple[str, Value]:
    """Name and value of a matrix element."""
    if len(content) == 0:  # how an empty cell is written
        return "", np.zeros((0, 0))
    if depth > MAX_DEPTH:
        raise FormatError(f"values must be nested at most {MAX_DEPTH} deep, got more")
    parts = list(_elements(content, order))
    flags = int(_numbers(*parts[0], order)[0])
    shape = tuple(int(size) for size in _numbers(*parts[1], order))
    if min(shape) < 0:
        raise ValueError(f"shape {shape}")
    name = bytes(parts[2][1]).decode("latin-1")
    return name, _value(flags, shape, parts[3:], order, depth)


def _value(
    flags: int,
    shape: tuple[int, ...],
    parts: list[tuple[int, memoryview]],
    order: str,
    depth: int,
) -> Value:
    kind = flags & 0xFF
    if kind == _CELL:
        return _values(parts, order, depth)
    if kind == _STRUCT:
        return _struct(shape, parts, order, depth)
    if kind == _TEXT:
        return _text(shape, *parts[0], order)
    if kind not in _CLASSES or flags & _IS_COMPLEX:
        raise FormatError(f"values must be real numbers, text, cells or structs, got class {kind}")
    numbers = _numbers(*parts[0], order) if parts else np.zeros(0)
    return numbers.astype(_CLASSES[kind]).reshape(shape, order="F")


def _values(parts: list[tuple[int, memoryview]], order: str, depth: int) -> list[Value]:
    if any(kind != _MATRIX for kind, _ in parts):
        raise ValueError("cell with something else than matrices")
    return [_matrix(content, order, depth + 1)[1] for _, content in parts]


def _struct(
    shape: tuple[int, ...], parts: list[tuple[int, memoryview]], order: str, depth: int
) -> Value:
    length = int(_numbers(*parts[0], order)[0])
    if length < 1:
        raise ValueError(f"field names of {length} bytes")
    block = bytes(parts[1][1])
    names = [
        block[start : start + length].split(b"\0")[0].decode("latin-1")
        for start in range(0, len(block), length)
    ]
    values, count = _values(parts[2:], order, depth), math.prod(shape)
    if len(values) != count * len(names) or not names:  # a shape alone takes no memory
        raise ValueError(f"{len(values)} values for {count} structs of {len(names)} fields")
    structs: list[Value] = [
        dict(zip(names, values[start : start + len(names)], strict=True))
        for start in range(0, len(values), len(names))
    ]
    return structs[0] if shape == (1, 1) else structs


def _text(shape: tuple[int, ...], kind: int, content: memoryview, order: str) -> Value:
    encoding = _TEXTS[kind]
    if encoding.startswith(("utf-16", "utf-32")):
        encoding += "-le" if order == "<" else "-be"
    text = bytes(content).decode(encoding)
    rows = shape[0]
    if rows <= 1:
        return text
    if rows > len(text):  # a shape alone takes no memory
        raise ValueError(f"{len(text)} characters in {rows} rows")
    return [text[row::rows] for row in range(rows)]  # characters are in column order


def _numbers(kind: int, content: memoryview, order: str) -> np.ndarray:
    return np.frombuffer(content, np.dtype(order + _NUMBERS[kind]))
