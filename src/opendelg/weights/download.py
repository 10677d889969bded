"""Official models by name: fetched, checked and converted, once.

In the cache folder lie, for each name: the archive under its official file name, ``<name>.json``
with its size and sha256 when it was first used, and ``<name>.safetensors``.  The release gives no
checksums, so the first use is trusted and every later one must be equal to it.  An archive that
was copied there by hand is taken as if it had been fetched.
"""

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from opendelg.errors import OpenDelgError, WeightsError
from opendelg.weights.fetching import FetchSettings, Progress, fetch, write_at_once
from opendelg.weights.published import (
    OFFICIAL_URL,
    PUBLISHED,
    Published,
    cache_folder,
    nearest_name,
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fingerprint:
    """What identifies an archive."""

    bytes: int
    sha256: str  # hexadecimal


def download(
    name: str,
    *,
    base_url: str | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
    settings: FetchSettings | None = None,
) -> Path:
    """Make sure that published weights are on this machine.

    Without network, weights that are here already are found, and an archive that lies in the
    cache is converted.  Several processes may call this at once: one works, the others wait.

    Args:
        name: One of `PUBLISHED`.
        base_url: Where the archives lie; None: the official place.
        cache: Folder to keep them in; None: `cache_folder()`.
        progress: Called with the bytes so far and in all.
        settings: Patience and limits of the download.

    Returns:
        The safetensors file.

    Raises:
        WeightsError: If the name is unknown, the archive cannot be fetched, is not the one of the
            first use or cannot be converted, or the cache folder is full or not writable.
    """
    if name not in PUBLISHED:
        raise WeightsError(f"name must be that of weights, got {name!r}; {nearest_name(name)}")
    known = PUBLISHED[name]
    if known.archive is None:
        return known.file
    folder = cache or cache_folder()
    target, archive = known.file_in(folder), folder / known.archive
    try:
        if target.is_file():
            if archive.is_file():
                _require_first(archive, target.with_suffix(".json"))
            return target
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder / f"{name}.lock"):
            if not target.is_file():  # another process may have been faster
                if not archive.is_file():
                    url = f"{(base_url or OFFICIAL_URL).rstrip('/')}/{archive.name}"
                    fetch(url, archive, settings, progress)
                _convert(known, archive, target)
    except OSError as error:
        raise WeightsError(
            f"cache folder must take the weights, got {error.strerror or str(error)!r} in "
            f"{str(folder)!r}; what has arrived is kept; make room, or name another folder in "
            "OPENDELG_CACHE"
        ) from error
    return target


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep other processes out, or wait until they are done."""
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        _log.warning("another process is downloading these weights; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _convert(known: Published, archive: Path, target: Path) -> None:
    """Turn an archive into weights; what proved to be a model becomes the first use."""
    from opendelg.weights.tensorflow import import_weights

    record = target.with_suffix(".json")
    fingerprint = _require_first(archive, record)
    draft = target.with_name(f"{known.name}.new.safetensors")
    try:
        import_weights(archive, draft, name=known.name, score_threshold=known.score_threshold)
    except OpenDelgError as error:
        raise WeightsError(
            f"{error}; {str(archive)!r} is used as long as it is there: delete it to fetch it again"
        ) from error
    write_at_once(record, json.dumps(asdict(fingerprint)))
    draft.replace(target)


def _require_first(archive: Path, record: Path) -> Fingerprint:
    """Fingerprint of an archive, which must be that of its first use if there was one."""
    with archive.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    found = Fingerprint(archive.stat().st_size, sha256)
    if not record.is_file():
        return found
    try:
        first = Fingerprint(**json.loads(record.read_text()))
    except (ValueError, TypeError) as error:
        raise WeightsError(
            f"record must be JSON with bytes and sha256, got {str(record)!r}; delete it to trust "
            f"{str(archive)!r} as it is"
        ) from error
    if found != first:
        raise WeightsError(
            f"archive must be the one of its first use, {first.bytes} bytes with sha256 "
            f"{first.sha256}, got {found.bytes} bytes with sha256 {found.sha256} in "
            f"{str(archive)!r}; delete it to download it again, or delete {str(record)!r} to trust "
            "it from now on"
        )
    return found
