"""Photos on disk to a collection: what is new, changed or gone, extracted and committed.

Every image is committed with all its features or not at all, in order of path, so a run that
was interrupted continues where it stopped and ends in the same collection.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from opendelg.collection import Collection, FileStat
from opendelg.errors import ImageError, OpenDelgError
from opendelg.extraction import Extractor, extract_stream
from opendelg.features import ImageFeatures
from opendelg.image import DecodedImage, find_images, read_file, read_image

# A crash loses at most this much work; a commit costs about a millisecond.
COMMIT_SECONDS = 2.0
COMMIT_IMAGES = 256


@dataclass(frozen=True)
class IndexReport:
    """What a run did; `failures` lists the files that could not be read, with the reason."""

    num_added: int = 0
    num_updated: int = 0
    num_removed: int = 0
    num_unchanged: int = 0
    num_outdated: int = 0  # changed on disk, left as they are without `update`
    failures: list[tuple[Path, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """What a run has to do, found out from names, sizes and dates alone."""

    new: list[tuple[Path, Path]]  # (root, photo), in order of path
    changed: list[tuple[Path, Path]]
    gone: list[Path]
    num_unchanged: int
    known_failures: list[tuple[Path, str]]


def plan_indexing(collection: Collection, paths: Sequence[Path]) -> Plan:
    """Compare the photos below `paths` with the collection.

    Raises:
        OpenDelgError: If a path does not exist.
    """
    new, changed, gone, failures, num_unchanged = [], [], [], [], 0
    for path in paths:
        if not path.exists():
            raise OpenDelgError(f"photos must exist, got {str(path)!r}")
    for root, group in groupby(sorted(set(paths), key=_root), key=_root):
        given = list(group)
        known = collection.known(root)
        found = {Path(os.path.relpath(photo, root)): photo for photo in find_images(given)}
        for relative, photo in found.items():
            stored = known.get(relative)
            if stored is None:
                new.append((root, photo))
            elif (stored.size, stored.mtime_ns) != _size_and_time(photo):
                changed.append((root, photo))
            elif stored.failure is not None:
                failures.append((photo, stored.failure))
            else:
                num_unchanged += 1
        if root in given:
            gone += [root / relative for relative in known if relative not in found]
    return Plan(new, changed, gone, num_unchanged, failures)


def index_photos(
    collection: Collection,
    extractor: Extractor,
    plan: Plan,
    update: bool = False,
    decode_threads: int = 2,
    batch_size: int = 1,
    progress: Callable[[Path], None] | None = None,
) -> IndexReport:
    """Carry out a plan.

    Args:
        collection: Open for writing, made with the extractor's recipe.
        extractor: Network and settings.
        plan: From `plan_indexing`.
        update: Also extract changed files anew and remove those that are gone.
        decode_threads: Threads that read and decode beside the network.
        batch_size: Images the network takes at a time.
        progress: Called with each file that is done.
    """
    work = plan.new
    if update:
        work = sorted(plan.new + plan.changed)
        with collection.batch():
            collection.remove(plan.gone)
    changed = {photo for _, photo in plan.changed}
    num_added = num_updated = 0
    failures = list(plan.known_failures)
    stats: dict[Path, FileStat] = {}

    def load(source: tuple[Path, Path]) -> DecodedImage:
        _, photo = source
        size, mtime_ns = _size_and_time(photo)
        stats[photo] = FileStat(size, mtime_ns, None)
        data = read_file(photo)
        stats[photo] = FileStat(size, mtime_ns, hashlib.sha256(data).hexdigest())
        return read_image(data, draft_size=extractor.config.draft_size, name=str(photo))

    stream = extract_stream(work, extractor, load, decode_threads, batch_size)
    for chunk in _chunks(stream, progress):
        with collection.batch():
            for (root, photo), result in chunk:
                if isinstance(result, ImageError):
                    collection.add_failure(photo, root, stats.pop(photo), str(result))
                    failures.append((photo, str(result)))
                else:
                    collection.add(photo, root, stats.pop(photo), result)
                    num_added += photo not in changed
                    num_updated += photo in changed
    collection.update_index()
    return IndexReport(
        num_added=num_added,
        num_updated=num_updated,
        num_removed=len(plan.gone) if update else 0,
        num_unchanged=plan.num_unchanged,
        num_outdated=0 if update else len(plan.changed),
        failures=failures,
    )


Result = tuple[tuple[Path, Path], ImageFeatures | ImageError]


def _chunks(
    stream: Iterator[Result], progress: Callable[[Path], None] | None
) -> Iterator[list[Result]]:
    """Gather what is committed together."""
    chunk: list[Result] = []
    started = time.monotonic()
    for result in stream:
        chunk.append(result)
        if progress is not None:
            progress(result[0][1])
        if len(chunk) == COMMIT_IMAGES or time.monotonic() - started > COMMIT_SECONDS:
            yield chunk
            chunk, started = [], time.monotonic()
    if chunk:
        yield chunk


def _root(path: Path) -> Path:
    """The folder that a photo's path is stored relative to."""
    return path if path.is_dir() else path.parent


def _size_and_time(photo: Path) -> tuple[int, int]:
    """Bytes and modification time in ns; zeros if the file vanished, which reading will tell."""
    try:
        status = photo.stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns
