"""The files in a tar, found by walking its headers, then read in place.

Nothing is unpacked and a file is taken by its position, so the names in a tar cannot lead anywhere.
Of a damaged tar the files before the damage are found; one with more after its end counts as
damaged, since what comes there is not known to be gone.  Long names are read as GNU tar (``L``) and
POSIX.1-2001 (pax, ``x``) write them.
"""

import os
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

BLOCK = 512  # bytes; POSIX.1-1988, ustar
MAX_CACHED = 1_000_000  # files of all listings in memory, about 250 bytes each
_OCTAL = re.compile(rb"[0-7]+")
_MAX_DIGITS = 20  # of decimal numbers: a size needs no more
_MAX_EXTENSION = 2**20  # bytes of a long name or of a pax header; a path has 4096
_CHUNK = 2**20  # bytes read at a time
_MAX_PATH, _MAX_PART = 4095, 255  # bytes; what Linux allows in a folder
_REGULAR = b"07\0"
_EXTENSIONS = b"xLK"  # of pax; long names and long links of GNU tar
_EMPTY = b"123456"  # links, devices, folders and pipes, whatever size the header says
_SILENT = b"5DVMNg"  # folders, names of volumes, parts of a file on another tape
_FLAWS = {
    b"1": "a link",
    b"2": "a link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a pipe",
    b"S": "a sparse file",
}


class Member(NamedTuple):
    """A member of a tar, folders excepted."""

    name: bytes  # as the tar has it
    offset: int  # bytes, of its content
    size: int  # bytes
    flaw: str  # what it is instead of a plain file, empty if it is one


def members(file: BinaryIO, end: int) -> Iterator[Member]:
    """The members of a tar of ``end`` bytes, in its order.

    Raises:
        ValueError: Where the tar is damaged or cut off, or has more after its end.
    """
    position = 0
    told: dict[bytes, bytes] = {}  # by extended headers, of the member that follows
    while any(header := _block(file, position)):
        kind = header[156:157]
        is_extension = kind in _EXTENSIONS
        size = 0 if kind in _EMPTY else _number(header[124:136])
        if told and b"size" in told and not is_extension:
            size = _decimal(told[b"size"])
        checksum = sum(header) - sum(header[148:156]) + 8 * ord(" ")
        if size < 0 or _number(header[148:156]) != checksum:
            raise ValueError(f"damaged header at byte {position}")
        offset = position + BLOCK if kind != b"S" else _after_map(file, header, position)
        if offset + size > end:
            raise ValueError(f"cut off within the member at byte {position}")
        if is_extension:
            told |= _extension(file, kind, offset, size)
        else:
            name = _name(header, told)
            if kind not in _SILENT and not name.endswith(b"/"):
                yield Member(name, offset, size, _flaw(kind, told))
            if told:
                told = {}
        position = offset + -(-size // BLOCK) * BLOCK
    _require_end(file, position)


def _require_end(file: BinaryIO, position: int) -> None:
    """Refuse what follows the zeros that end a tar: a hole of a download, or another tar."""
    file.seek(position)
    while chunk := file.read(_CHUNK):
        rest = chunk.lstrip(b"\0")
        if rest:
            raise ValueError(f"more after its end at byte {file.tell() - len(rest)}")


def _block(file: BinaryIO, position: int) -> bytes:
    file.seek(position)
    block = file.read(BLOCK)
    if len(block) < BLOCK:
        raise ValueError(f"cut off at byte {position}")
    return block


def _number(text: bytes) -> int:
    """A number of a header: octal digits, or binary as GNU tar writes large ones; else -1."""
    if text[0] == 0x80:
        return int.from_bytes(text[1:], "big")
    digits = text.strip(b" \0")
    return int(digits, 8) if _OCTAL.fullmatch(digits) else -1


def _decimal(text: bytes) -> int:
    return int(text) if text.isdigit() and len(text) <= _MAX_DIGITS else -1


def _name(header: bytes, told: dict[bytes, bytes]) -> bytes:
    long_name = told and (told.get(b"GNU.sparse.name") or told.get(b"path"))
    if long_name:
        return long_name
    name = header[:100].partition(b"\0")[0]
    if header[257:263] == b"ustar\0" and header[345]:
        return header[345:500].partition(b"\0")[0] + b"/" + name
    return name


def _flaw(kind: bytes, told: dict[bytes, bytes]) -> str:
    if kind not in _REGULAR:
        return _FLAWS.get(kind, "a member of an unknown kind")
    is_sparse = told and any(key.startswith(b"GNU.sparse.") for key in told)
    return _FLAWS[b"S"] if is_sparse else ""


def _after_map(file: BinaryIO, header: bytes, position: int) -> int:
    """Where the content of a sparse file begins: its map may go on after the header."""
    position += BLOCK
    has_more = header[482]
    while has_more:
        has_more = _block(file, position)[504]
        position += BLOCK
    return position


def _extension(file: BinaryIO, kind: bytes, offset: int, size: int) -> dict[bytes, bytes]:
    """What an extended header tells, in the words of pax."""
    if kind == b"K":  # the long name that a link leads to
        return {}
    if size > _MAX_EXTENSION:
        raise ValueError(f"extended header of {size} bytes at byte {offset}")
    file.seek(offset)
    data = file.read(size)
    if kind == b"L":
        return {b"path": data.partition(b"\0")[0]}
    data = data.rstrip(b"\0")
    records, start = {}, 0
    while start < len(data):
        # "<length> <key>=<value>\n", the length being that of the whole record
        digits = data[start : start + _MAX_DIGITS].partition(b" ")[0]
        end = start + max(0, _decimal(digits))
        key, sign, value = data[start + len(digits) + 1 : end - 1].partition(b"=")
        if not sign or data[end - 1 : end] != b"\n":
            raise ValueError(f"damaged extended header at byte {offset}")
        records[key] = value
        start = end
    return records


@dataclass(frozen=True)
class TarListing:
    """What is in one tar, by path inside it."""

    files: dict[str, tuple[int, int]] = field(default_factory=dict)  # offset and size, bytes
    refused: dict[str, str] = field(default_factory=dict)  # with the reason
    fault: str = ""  # what stopped the walk; empty if nothing did

    @property
    def num_members(self) -> int:
        """What it takes of memory, in members; an empty tar takes some as well."""
        return len(self.files) + len(self.refused) + 1

    def has_folder(self, inner: str) -> bool:
        """Whether files lie below a path; the empty one is the tar itself."""
        return not inner or any(name.startswith(f"{inner}/") for name in self.files)


def list_tar(file: BinaryIO) -> TarListing:
    """Walk a tar.  Of members of one name the last counts, as if they were unpacked.

    Raises:
        OSError: If the disk or the network fails: the same tar may be readable later.
    """
    listing, fault = TarListing(), ""
    try:
        for member in members(file, os.fstat(file.fileno()).st_size):
            name, reason = _path_inside(member.name)
            if member.flaw:
                reason = f"photo must be a plain file in its tar, got {member.flaw}"
            listing.files.pop(name, None)
            listing.refused.pop(name, None)
            if reason:
                listing.refused[name] = reason
            elif name:
                listing.files[name] = member.offset, member.size
    except ValueError as error:
        fault = str(error)
    return TarListing(listing.files, listing.refused, fault)


def _path_inside(raw: bytes) -> tuple[str, str]:
    """The path of a member below its tar, and why it cannot be one (empty if it can).

    Absolute names count from the tar, as they are unpacked.
    """
    parts = [part for part in os.fsdecode(raw).split("/") if part not in ("", ".")]
    name = "/".join(parts)
    if ".." in parts:
        return name, "name of a photo in a tar must not lead out of it, got '..'"
    if "\0" in name:
        return name.replace("\0", "\\0"), "name of a photo must have no null byte, got one"
    if len(raw) > _MAX_PART and (
        len(raw) > _MAX_PATH or any(len(os.fsencode(part)) > _MAX_PART for part in parts)
    ):
        reason = f"name of a photo must be short enough for a folder, got {len(raw)} bytes"
        return name, reason
    return name, ""


class TarListings:
    """The listings of the tars used last; for several threads, each tar walked by one of them.

    A tar is known by its inode, size and time, so one that was replaced is walked anew.
    """

    def __init__(self, max_files: int = MAX_CACHED) -> None:
        self.max_files = max_files
        self._num_files = 0
        self._kept: OrderedDict[_Key, TarListing] = OrderedDict()
        self._walking: dict[_Key, threading.Lock] = {}
        self._lock = threading.Lock()

    def at(self, tar: Path) -> TarListing:
        """The listing of a tar; raises OSError if it cannot be read now."""
        listing = self._known(_key(os.stat(tar)))
        if listing is None:
            with open_regular(tar) as file:
                listing = self.of(file)
        return listing

    def of(self, file: BinaryIO) -> TarListing:
        """The listing of an open tar; raises OSError if it cannot be read now."""
        key = _key(os.fstat(file.fileno()))
        with self._lock:
            turn = self._walking.setdefault(key, threading.Lock())
        with turn:
            listing = self._known(key)
            if listing is None:
                listing = list_tar(file)
                self._keep(key, listing)
        return listing

    def _known(self, key: "_Key") -> TarListing | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def _keep(self, key: "_Key", listing: TarListing) -> None:
        with self._lock:
            self._walking.pop(key, None)
            self._kept[key] = listing
            self._num_files += listing.num_members
            while self._num_files > self.max_files and len(self._kept) > 1:
                _, forgotten = self._kept.popitem(last=False)
                self._num_files -= forgotten.num_members


_Key = tuple[int, int, int, int]


def _key(status: os.stat_result) -> _Key:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def open_regular(path: Path) -> BinaryIO:
    """A file to be read; a pipe in its place is opened without waiting for its other end."""
    # Windows has no O_NONBLOCK, others have no O_BINARY.
    more = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    return open(path, "rb", opener=lambda name, flags: os.open(name, flags | more))
