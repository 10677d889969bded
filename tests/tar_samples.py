"""Tars as tests need them, the broken and hostile ones included."""

import io
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

FORMATS = {"gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT, "ustar": tarfile.USTAR_FORMAT}
END = bytes(1024)


def pack(tar: Path, folder: Path) -> Path:
    """A tar of what is in a folder, as `tar -C folder -cf tar .` makes it."""
    with tarfile.open(tar, "w") as opened:
        opened.add(folder, ".")
    return tar


def write_files(
    tar: Path, files: Mapping[str, bytes], format: str = "gnu", mtime: float = 0
) -> Path:
    """A tar of files by name."""
    with tarfile.open(
        tar, "w", format=FORMATS[format], encoding="utf-8", errors="surrogateescape"
    ) as opened:
        for name, data in files.items():
            info = header(name, len(data))
            info.mtime = mtime
            opened.addfile(info, io.BytesIO(data))
    return tar


def header(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info


def blocks(data: bytes) -> bytes:
    """Content as it lies in a tar."""
    return data + bytes(-len(data) % 512)


def raw_member(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE) -> bytes:
    """One member, whatever its name and kind."""
    info = header(name, len(data), kind)
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape") + blocks(data)


def pax_member(records: Mapping[str, str | bytes], name: str, data: bytes = b"") -> bytes:
    """One member with an extended header of these records."""
    return raw_member("pax", pax_records(records), tarfile.XHDTYPE) + raw_member(name, data)


def pax_records(records: Mapping[str, str | bytes]) -> bytes:
    lines = []
    for key, value in records.items():
        rest = f" {key}=".encode() + (value.encode() if isinstance(value, str) else value) + b"\n"
        length = len(rest) + 1
        while len(str(length)) + len(rest) != length:
            length = len(str(length)) + len(rest)
        lines.append(str(length).encode() + rest)
    return b"".join(lines)


def write_raw(tar: Path, parts: Iterable[bytes], end: bytes = END) -> Path:
    tar.write_bytes(b"".join(parts) + end)
    return tar
