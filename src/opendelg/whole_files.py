"""Files that are written whole or not at all."""

import contextlib
import errno
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

from opendelg.errors import OpenDelgError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the file to write, which takes the place of ``path`` at the end; makes folders.

    Whatever goes wrong, the old file stays as it was and nothing of the new one is left.

    Raises:
        OSError: If the file cannot be written.
    """
    # Short, as photos may have the longest names; no process id, as containers share those.
    part = path.with_name(f".{secrets.token_hex(4)}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield part
        part.replace(path)
    finally:
        with contextlib.suppress(OSError):  # the first error says what is wrong
            part.unlink(missing_ok=True)


def require_writable(path: Path) -> None:
    """Try whether a file can be written, before hours of work that it is to keep; makes folders.

    Raises:
        OpenDelgError: If it cannot.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OpenDelgError(
            f"output must be a file that can be written, got {(error.strerror or '').lower()!r} "
            f"for {str(path)!r}; choose another"
        ) from error


def remove_parts(folder: Path) -> None:
    """Remove what `replacing` left in a folder when its process was killed.

    Whoever is writing there meanwhile gets an OSError.
    """
    for part in folder.glob(".*.part"):
        with contextlib.suppress(OSError):  # it is in nobody's way
            part.unlink()
