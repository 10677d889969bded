"""Pickles of plain data, read without ever calling what they name.

A pickle is a program.  This machine knows the instructions that build lists, tuples, dicts,
numbers and text, and the few calls by which NumPy pickles an array, which it carries out itself;
whatever else a file asks for is refused by name.  Memory and time are bounded by the file's size:
no instruction takes more of them than its bytes deserve.
"""

import pickletools
import re
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import numpy as np

from opendelg.errors import FormatError

MAX_BYTES = 1 << 22  # fifteen times the larger ground truth; a byte of a pickle takes up to 80
_MARK = object()
_NUMBERS = re.compile("[<>|]?(b1|[iu][1248]|f[248])")


class _Call(Enum):
    """A function that a pickle may name."""

    ARRAY = "multiarray _reconstruct"
    SCALAR = "multiarray scalar"
    BUFFER = "numeric _frombuffer"
    DTYPE = "numpy dtype"
    NDARRAY = "numpy ndarray"  # only ever an argument of the first
    ENCODE = "_codecs encode"  # of bytes in old protocols
    NO_BYTES = "__builtin__ bytes"  # of none, in old protocols


# As all versions of NumPy name them.
_CALLS = {
    f"{package}.{call.value}": call
    for package in ("numpy.core", "numpy._core")
    for call in (_Call.ARRAY, _Call.SCALAR, _Call.BUFFER)
} | {call.value: call for call in (_Call.DTYPE, _Call.NDARRAY, _Call.ENCODE, _Call.NO_BYTES)}


class _Unfinished:
    """What a call made and a later instruction fills."""

    def __init__(self, dtype: str | None) -> None:
        self.dtype = dtype  # None: an array
        self.memo_keys: list[int] = []


def read_plain_pickle(path: Path) -> Any:
    """The lists, tuples, dicts, text, numbers and arrays in a pickle.

    Raises:
        FormatError: If the file is damaged, larger than any ground truth, or holds anything else.
        FileNotFoundError: If there is none.
    """
    where = f" in {str(path)!r}"
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise FormatError(f"pickle must have at most {MAX_BYTES} bytes, got more{where}")
    try:
        return _Machine().run(data)
    except FormatError as error:
        raise FormatError(f"{error}{where}") from None
    # What pickletools and the machine raise for damaged or malformed content.
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise FormatError(f"pickle must be intact, got {str(error)!r}{where}") from error


class _Machine:
    """Interprets one pickle."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._num_encoded = 0  # bytes

    def run(self, data: bytes) -> Any:
        """The object that the instructions leave."""
        for opcode, argument, _ in pickletools.genops(data):
            name = opcode.name
            if name == "STOP":
                result = self.pop()
                if self._stack:
                    raise ValueError("more than one object")
                return result
            if name in _IGNORED:
                continue
            if name in _LITERALS:
                self._stack.append(argument)
            elif name in _STEPS:
                _STEPS[name](self, argument)
            else:
                raise FormatError(f"pickle must hold plain containers and arrays, got {name}")
        raise ValueError("no end")

    def pop(self) -> Any:
        """The topmost object."""
        value = self._stack.pop()
        if value is _MARK:
            raise ValueError("a mark in an object's place")
        return value

    def pop_to_mark(self) -> list[Any]:
        """All objects above the last mark, which goes too."""
        values = []
        while (value := self._stack.pop()) is not _MARK:
            values.append(value)
        return values[::-1]

    def push(self, value: Any) -> None:
        """Put an object on top."""
        self._stack.append(value)

    def top(self, kind: type) -> Any:
        """The topmost object, which stays and must be of a kind."""
        if type(self._stack[-1]) is not kind:
            raise ValueError(f"{type(self._stack[-1]).__name__} where a {kind.__name__} must be")
        return self._stack[-1]

    def put(self, key: int | None) -> None:
        """Remember the topmost object."""
        key = len(self._memo) if key is None else key
        value = self._stack[-1]
        if value is _MARK:
            raise ValueError("a mark in an object's place")
        if isinstance(value, _Unfinished):
            value.memo_keys.append(key)
        self._memo[key] = value

    def get(self, key: int) -> None:
        """Put a remembered object on top."""
        self.push(self._memo[key])

    def set_items(self, values: list[Any]) -> None:
        """Fill the topmost dict from keys and values in turn."""
        mapping = self.top(dict)
        for key, value in zip(values[::2], values[1::2], strict=True):
            if type(key) not in (str, int, bytes):  # others may take long to hash
                raise ValueError(f"a key of type {type(key).__name__}")
            mapping[key] = value

    def push_dict(self, values: list[Any]) -> None:
        """Put a dict of keys and values in turn on top."""
        self.push({})
        self.set_items(values)

    def name_call(self, module: Any, name: Any) -> None:
        """Admit one of NumPy's own functions."""
        if type(module) is not str or type(name) is not str:
            raise ValueError("a name that is no text")
        call = _CALLS.get(f"{module} {name}")
        if call is None:
            raise FormatError(
                f"pickle must hold plain containers and arrays, got {f'{module}.{name}'!r}"
            )
        self.push(call)

    def reduce(self) -> None:
        """Do what NumPy's function would do."""
        arguments, call = self.pop(), self.pop()
        if type(arguments) is not tuple:
            raise ValueError("a call without arguments")
        match call:
            case _Call.ARRAY:
                self.push(_Unfinished(None))
            case _Call.DTYPE:
                self.push(_Unfinished(_text(arguments[0])))
            case _Call.SCALAR:
                dtype, buffer = arguments
                self.push(self.array(buffer, _dtype(dtype), (), False).item())
            case _Call.BUFFER:
                buffer, dtype, shape, order = arguments
                self.push(self.array(buffer, _dtype(dtype), shape, order == "F"))
            case _Call.ENCODE:
                text, encoding = arguments
                if encoding != "latin1":
                    raise ValueError("bytes in another encoding than latin1")
                self.push(self.encode(_text(text)))
            case _Call.NO_BYTES if arguments == ():
                self.push(b"")
            case _:
                raise ValueError("a call of something that is no function")

    def build(self) -> None:
        """Fill what a call made; wherever it is remembered the result takes its place."""
        state, target = self.pop(), self.pop()
        if not isinstance(target, _Unfinished) or type(state) is not tuple:
            raise ValueError("a state of something that has none")
        if target.dtype is not None:
            order = state[1] if state[1] in ("<", ">") else ""
            finished: Any = np.dtype(order + _dtype(target).str[1:])
        else:
            _, shape, dtype, is_fortran, buffer = state
            finished = self.array(buffer, _dtype(dtype), shape, bool(is_fortran))
        for key in target.memo_keys:
            self._memo[key] = finished
        self.push(finished)

    def encode(self, text: str) -> bytes:
        """Bytes that were written as text: once each, as the same text may be named often."""
        self._num_encoded += len(text)
        if self._num_encoded > MAX_BYTES:
            raise ValueError("more bytes than the file has")
        return text.encode("latin1")

    def array(self, buffer: Any, dtype: np.dtype[Any], shape: Any, is_fortran: bool) -> np.ndarray:
        """An array over bytes that are there: a shape alone takes no memory."""
        if type(buffer) is str:  # bytes as Python 2 wrote them
            buffer = self.encode(buffer)
        if type(buffer) not in (bytes, bytearray):
            raise ValueError("an array without its bytes")
        if type(shape) is not tuple or any(type(side) is not int or side < 0 for side in shape):
            raise ValueError("an array of no shape")
        order: Literal["F", "C"] = "F" if is_fortran else "C"
        array: np.ndarray = np.frombuffer(buffer, dtype).reshape(shape, order=order)
        return array


def _text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError(f"{type(value).__name__} where text must be")
    return value


def _dtype(value: Any) -> np.dtype[Any]:
    """A type of numbers."""
    if isinstance(value, np.dtype):
        return value
    if not isinstance(value, _Unfinished) or value.dtype is None:
        raise ValueError("a dtype that is none")
    if not _NUMBERS.fullmatch(value.dtype):
        raise FormatError(f"pickle must hold arrays of numbers, got dtype {value.dtype[:20]!r}")
    return np.dtype(value.dtype)


_IGNORED = {"PROTO", "FRAME"}
_LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE"),
    *("BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "NONE": lambda m, _: m.push(None),
    "NEWTRUE": lambda m, _: m.push(True),
    "NEWFALSE": lambda m, _: m.push(False),
    "MARK": lambda m, _: m.push(_MARK),
    "POP": lambda m, _: (m.pop(), None)[1],
    "EMPTY_LIST": lambda m, _: m.push([]),
    "EMPTY_TUPLE": lambda m, _: m.push(()),
    "EMPTY_DICT": lambda m, _: m.push({}),
    "LIST": lambda m, _: m.push(m.pop_to_mark()),
    "TUPLE": lambda m, _: m.push(tuple(m.pop_to_mark())),
    "TUPLE1": lambda m, _: m.push((m.pop(),)),
    "TUPLE2": lambda m, _: m.push((m.pop(), m.pop())[::-1]),
    "TUPLE3": lambda m, _: m.push((m.pop(), m.pop(), m.pop())[::-1]),
    "APPEND": lambda m, _: (lambda value: m.top(list).append(value))(m.pop()),
    "APPENDS": lambda m, _: (lambda values: m.top(list).extend(values))(m.pop_to_mark()),
    "DICT": lambda m, _: m.push_dict(m.pop_to_mark()),
    "SETITEM": lambda m, _: (lambda value, key: m.set_items([key, value]))(m.pop(), m.pop()),
    "SETITEMS": lambda m, _: m.set_items(m.pop_to_mark()),
    "PUT": lambda m, key: m.put(key),
    "BINPUT": lambda m, key: m.put(key),
    "LONG_BINPUT": lambda m, key: m.put(key),
    "MEMOIZE": lambda m, _: m.put(None),
    "GET": lambda m, key: m.get(key),
    "BINGET": lambda m, key: m.get(key),
    "LONG_BINGET": lambda m, key: m.get(key),
    "GLOBAL": lambda m, name: m.name_call(*name.split(" ", 1)),
    "STACK_GLOBAL": lambda m, _: (lambda name, module: m.name_call(module, name))(m.pop(), m.pop()),
    "REDUCE": lambda m, _: m.reduce(),
    "BUILD": lambda m, _: m.build(),
}
