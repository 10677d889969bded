"""Files that are written whole or not at all."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from opendelg.errors import OpenDelgError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the file to write, which takes the place of ``path`` at the end; makes folders.

    Raises:
        OpenDelgError: If the file cannot be written; nothing of it is left then.
    """
    # Short, as photos may have the longest names; no process id, as containers share those.
    part = path.with_name(f".{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        part.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):  # the first error says what is wrong
            part.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        # Not strerror: HDF5 puts a paragraph of its own there.
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise OpenDelgError(
            f"feature file must be writable, got {reason!r} for {str(path)!r}"
        ) from error
