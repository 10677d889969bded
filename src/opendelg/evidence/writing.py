"""Files that appear whole or not at all."""

import errno
import os
import re
from pathlib import Path

from opendelg.errors import OpenDelgError

_OUR_PAGE = b'<header class="answer">'  # in every page of `write_page`
_OUR_PICTURE = re.compile(r"\d{3,}_[A-Za-z0-9_-]+\.png")


def make_folder(folder: Path) -> None:
    """Create ``folder`` with its parents; an existing folder is fine.

    Raises:
        OpenDelgError: If it cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_writable(folder, error) from error


def write_whole(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``; whatever goes wrong, the old file stays as it was.

    Raises:
        OpenDelgError: If the disk is full or the folder is not writable.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        raise _not_writable(path, error) from error
    finally:
        _remove(unfinished)


def remove_earlier_evidence(folder: Path) -> None:
    """Remove the pictures of an earlier search (see `png_name`) beside its page, nothing else."""
    try:
        page = (folder / "index.html").read_bytes()
    except OSError:
        return
    if _OUR_PAGE in page:
        for path in folder.iterdir():
            if _OUR_PICTURE.fullmatch(path.name):
                _remove(path)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return  # the folder itself is out of reach, and the first error says so


def _not_writable(path: Path, error: OSError) -> OpenDelgError:
    reason = error.strerror or str(error)
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    remedy = "free some space or choose another folder" if is_full else "choose another folder"
    return OpenDelgError(f"output must be writable, got {reason!r} for {str(path)!r}; {remedy}")
