"""Feature files that are written whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from opendelg import whole_files
from opendelg.errors import OpenDelgError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the file to write, which takes the place of ``path`` at the end; makes folders.

    Raises:
        OpenDelgError: If the file cannot be written; nothing of it is left then.
    """
    try:
        with whole_files.replacing(path) as part:
            yield part
    except OSError as error:
        # Not strerror: HDF5 puts a paragraph of its own there.
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise OpenDelgError(
            f"feature file must be writable, got {reason!r} for {str(path)!r}"
        ) from error
