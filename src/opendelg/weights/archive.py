"""Unpacking the few files of a model from a ``.tar.gz`` that may be hostile.

Nothing is written where the archive says: of each member only the last folders and the name are
taken, and only those of a model.  What is unpacked is bounded in size, number and ratio.
"""

import errno
import io
import re
import tarfile
import zlib
from gzip import BadGzipFile, GzipFile
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from opendelg.errors import WeightsError

_MAX_BYTES = 4 * 2**30  # unpacked; the largest released model has about 0.3 GiB
_MAX_RATIO = 100  # unpacked to packed; weights hardly shrink
_FREE_BYTES = 64 * 2**20  # below which any ratio is allowed: graphs shrink well
_MAX_MEMBERS = 10_000
_MAX_READ = 2**20  # bytes of one read: a member's header of a gigabyte would be read at once
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_WANTED = re.compile(r"saved_model\.pb|[^/]+\.index|[^/]+\.data-\d{5}-of-\d{5}")


_SUFFIXES = (".tar.gz", ".tgz", ".tar")


def is_archive(path: Path) -> bool:
    """Whether a path's name is that of a tar archive."""
    return path.name.endswith(_SUFFIXES)


def archive_title(path: Path) -> str:
    """An archive's name without its ending."""
    return next(path.name.removesuffix(end) for end in _SUFFIXES if path.name.endswith(end))


def unpack_model(archive: Path, folder: Path) -> None:
    """Unpack the files of a model, each below ``folder`` in the folder it lies in.

    Raises:
        WeightsError: If the archive is damaged, too large, or holds links, devices or paths that
            lead out of it.
    """
    where = repr(str(archive))
    try:
        with open(folder / "archive.tar", "w+b", buffering=0) as plain:
            with open(archive, "rb") as packed:
                _unpack(packed, plain, archive.stat().st_size, where)
            plain.seek(0)
            _extract(_BoundedFile(plain), folder, where)
        (folder / "archive.tar").unlink()
    except (tarfile.TarError, BadGzipFile, EOFError, zlib.error, ValueError) as error:
        raise WeightsError(
            f"archive must be a whole .tar.gz file, got {where} ({error}); download it again"
        ) from error
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise WeightsError(
                f"temporary folder must have room for the unpacked archive, got "
                f"{error.strerror!r} in {str(folder)!r}; TMPDIR names another one"
            ) from error
        raise WeightsError(f"archive must be readable, got {where} ({error})") from error


class _BoundedFile(io.BufferedIOBase):
    """A file that refuses to read much at once."""

    def __init__(self, file: BinaryIO | io.FileIO) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= _MAX_READ:
            raise tarfile.ReadError(f"header of {size} bytes")
        return self._file.read(size) or b""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def _unpack(packed: BinaryIO, plain: io.FileIO, packed_bytes: int, where: str) -> None:
    """Decompress into ``plain``; a file that is not compressed is copied."""
    is_gzip = packed.read(2) == b"\x1f\x8b"
    packed.seek(0)
    stream = GzipFile(fileobj=packed) if is_gzip else packed
    limit = min(_MAX_BYTES, max(_FREE_BYTES, _MAX_RATIO * packed_bytes))
    total = 0
    while chunk := stream.read(_MAX_READ):
        total += len(chunk)
        if total > limit:
            raise WeightsError(f"archive must unpack to at most {limit} bytes, got more in {where}")
        rest = memoryview(chunk)
        while rest:  # an unbuffered file takes what fits on the disk, and then fails
            rest = rest[plain.write(rest) :]


def _extract(plain: _BoundedFile, folder: Path, where: str) -> None:
    with tarfile.open(fileobj=plain, mode="r:") as tar:
        for number, member in enumerate(tar, start=1):
            path = PurePosixPath(member.name)
            if number > _MAX_MEMBERS:
                raise WeightsError(f"archive must have at most {_MAX_MEMBERS} members, in {where}")
            if path.is_absolute() or ".." in path.parts or "\\" in member.name:
                raise WeightsError(f"paths must stay inside, got {member.name!r} in {where}")
            if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE):
                raise WeightsError(
                    f"members must be files and folders, got {member.name!r} in {where}, "
                    "a link, device or other kind"
                )
            if member.isfile() and _WANTED.fullmatch(path.name) and path.name[0] != ".":
                _write_member(tar, member, _target(folder, path), where)


def _target(folder: Path, path: PurePosixPath) -> Path:
    """Where a member goes: ``model/variables/x`` and ``model/x``, whatever is above."""
    parents = [part for part in path.parent.parts if part != "."]
    keep = 2 if parents[-1:] == ["variables"] else 1
    # Folders are one level deep: what lies deeper is told apart by its whole path.
    model = "-".join(parents[:-1] if keep == 2 else parents) or "model"
    place = folder / model[-200:]
    return (place / "variables" if keep == 2 else place) / path.name


def _write_member(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path, where: str) -> None:
    if target.exists():
        raise WeightsError(f"members must be distinct, got {member.name!r} twice in {where}")
    target.parent.mkdir(parents=True, exist_ok=True)
    content = tar.extractfile(member)
    assert content is not None  # a regular file
    written = 0
    with open(target, "wb") as file:
        while written < member.size and (chunk := content.read(min(_MAX_READ, member.size))):
            written += file.write(chunk)
    if written != member.size:
        raise WeightsError(f"members must be whole, got {member.name!r} cut off in {where}")
