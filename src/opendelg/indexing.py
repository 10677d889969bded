"""Photos on disk to a collection: what is new, changed or gone, extracted and committed.

Every image is committed with all its features or not at all, in order of path, so a run that
was interrupted continues where it stopped and ends in the same collection.
"""

import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

from opendelg.collection import Collection, FileStat, StoredFile
from opendelg.errors import ImageError, OpenDelgError
from opendelg.extraction import Extractor, extract_stream
from opendelg.features import ImageFeatures
from opendelg.finding import find_photos, require_paths
from opendelg.image import DecodedImage, read_file, read_image
from opendelg.photo_files import is_gone, place_in_tar, stat_photo

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
class Photo:
    """A photo on disk, and what the collection knows about it."""

    root: Path  # real path of the folder that it is stored relative to, never in a tar
    relative: Path  # below the root
    path: Path  # as it was given, to be read and shown
    stored: StoredFile | None

    @property
    def image_id(self) -> int | None:
        """Id of its image; None if the collection has none."""
        return None if self.stored is None else self.stored.id


@dataclass(frozen=True)
class Plan:
    """What a run has to do, found out from names, sizes and dates alone."""

    new: list[Photo] = field(default_factory=list)  # failures that are to be tried again included
    changed: list[Photo] = field(default_factory=list)
    failed: list[Photo] = field(default_factory=list)  # read before and refused, not changed since
    unchanged: list[Photo] = field(default_factory=list)
    gone: list[Path] = field(default_factory=list)
    unreadable: list[tuple[Path, str]] = field(default_factory=list)  # folders, tars: the reason
    roots: list[Path] = field(default_factory=list)

    def work(self, update: bool) -> list[Photo]:
        """The photos to read, in order of path."""
        photos = self.new + self.changed + self.failed if update else self.new
        return sorted(photos, key=lambda photo: (photo.root, photo.relative))


def plan_indexing(collection: Collection, paths: Sequence[Path]) -> Plan:
    """Compare the photos below `paths`, in folders and tars, with the collection.

    A photo counts once, however often and in whatever way it is given.

    Raises:
        OpenDelgError: If a path does not exist or is a compressed tar, or if a folder or tar lost
            all the images it had.
    """
    require_paths(paths)
    plan = Plan()
    unreadable: dict[str, tuple[Path, str]] = {}

    def note_unreadable(path: Path, reason: str) -> None:
        unreadable[os.path.realpath(path)] = path, reason

    for root, given in sorted(_by_root(paths).items()):
        known = collection.known(root)
        found: dict[Path, Path] = {}
        for path, below in given:
            folder = _folder(path)
            for photo in find_photos([path], note_unreadable):
                found.setdefault(below / os.path.relpath(photo, folder), photo)
        for relative, photo in found.items():
            _sort_in(plan, Photo(root, relative, photo, known.get(relative)))
        folders = {
            below / os.path.relpath(path, _folder(path))
            for path, below in given
            if os.path.isdir(path) or place_in_tar(path) is not None
        }
        missing = (name for name in known if name not in found and any(_above(name, folders)))
        lost = [name for name in missing if is_gone(root / name)]
        _require_photos(root, folders, found, [name for name in lost if known[name].id is not None])
        plan.gone.extend(root / name for name in lost)
        plan.roots.append(root)
    plan.unreadable.extend(unreadable.values())
    return plan


class Unchanged(ImageError):
    """Stops a photo that was touched only: its content is what was extracted before."""


def photo_loader(
    extractor: Extractor, stats: dict[Photo, FileStat]
) -> Callable[[Photo], DecodedImage]:
    """A function that reads photos for an extractor and notes the facts of each file.

    It raises `Unchanged` for a file whose content is what was extracted before.
    """

    def load(photo: Photo) -> DecodedImage:
        size, mtime_ns = _size_and_time(photo.path)
        stats[photo] = FileStat(size, mtime_ns, None)
        data = read_file(photo.path)
        sha256 = hashlib.sha256(data).hexdigest()
        stats[photo] = FileStat(size, mtime_ns, sha256)
        stored = photo.stored
        if stored is not None and stored.id is not None and stored.sha256 == sha256:
            raise Unchanged("image must have changed, got the same content")
        return read_image(data, draft_size=extractor.config.draft_size)

    return load


def begin_indexing(collection: Collection, plan: Plan, update: bool) -> list[tuple[Path, str]]:
    """Note where roots are, remove what is gone if `update`; the failures known already."""
    with collection.batch():
        for root in plan.roots:
            collection.refresh_root(root)
        if update:
            collection.remove(plan.gone)
    failures = list(plan.unreadable)
    if not update:
        failures += [(p.path, p.stored.failure or "") for p in plan.failed if p.stored is not None]
    return failures


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
        update: Also extract changed files anew, try all failures again, and remove those that
            are gone.
        decode_threads: Threads that read and decode beside the network.
        batch_size: Images the network takes at a time.
        progress: Called with each file that is done.
    """
    failures = begin_indexing(collection, plan, update)
    counts: Counter[str] = Counter()
    stats: dict[Photo, FileStat] = {}
    load = photo_loader(extractor, stats)
    stream = extract_stream(plan.work(update), extractor, load, decode_threads, batch_size)
    for chunk in _chunks(stream, progress):
        with collection.batch():
            for photo, result in chunk:
                if isinstance(result, ImageError) and not isinstance(result, Unchanged):
                    failures.append((photo.path, failure_reason(photo.path, result)))
                counts[store_result(collection, photo, stats.pop(photo), result)] += 1
    collection.update_index()
    return report_of(plan, counts, failures, update)


def report_of(
    plan: Plan, counts: Mapping[str, int], failures: list[tuple[Path, str]], update: bool
) -> IndexReport:
    """What a run did: `counts` of photos by what `store_result` says of them."""
    return IndexReport(
        num_added=counts.get("added", 0),
        num_updated=counts.get("updated", 0),
        num_removed=len(plan.gone) if update else 0,
        num_unchanged=len(plan.unchanged) + counts.get("unchanged", 0),
        num_outdated=0 if update else len(plan.changed),
        failures=failures,
    )


def store_result(
    collection: Collection, photo: Photo, stat: FileStat, result: ImageFeatures | ImageError
) -> str:
    """Write one result; returns what became of the photo."""
    path, image_id = photo.root / photo.relative, photo.image_id
    if isinstance(result, ImageFeatures):
        collection.add(path, photo.root, stat, result)
        return "added" if image_id is None else "updated"
    if isinstance(result, Unchanged) and image_id is not None:
        collection.touch(image_id, stat)
        return "unchanged"
    # While a file cannot be read at all, nobody knows that its image is no longer right.
    if image_id is None or stat.sha256 is not None:
        collection.add_failure(path, photo.root, stat, failure_reason(photo.path, result))
    return "failed"


def failure_reason(path: Path, error: ImageError) -> str:
    """What is wrong with a photo, without the path as it happened to be typed."""
    return str(error).removesuffix(f" in {str(path)!r}")


Result = tuple[Photo, ImageFeatures | ImageError]


def _chunks(
    stream: Iterator[Result], progress: Callable[[Path], None] | None
) -> Iterator[list[Result]]:
    """Gather what is committed together."""
    chunk: list[Result] = []
    started = time.monotonic()
    for result in stream:
        chunk.append(result)
        if progress is not None:
            progress(result[0].path)
        if len(chunk) == COMMIT_IMAGES or time.monotonic() - started > COMMIT_SECONDS:
            yield chunk
            chunk, started = [], time.monotonic()
    if chunk:
        yield chunk


def _sort_in(plan: Plan, photo: Photo) -> None:
    """Put a photo where it belongs in the plan."""
    stored = photo.stored
    if stored is None:
        plan.new.append(photo)
        return
    is_same = (stored.size, stored.mtime_ns) == _size_and_time(photo.path)
    if stored.failure is not None:
        # A file whose bytes were never read may be readable now.
        is_judged = is_same and stored.sha256 is not None
        (plan.failed if is_judged else plan.new).append(photo)
    else:
        (plan.unchanged if is_same else plan.changed).append(photo)


def _by_root(paths: Iterable[Path]) -> dict[Path, list[tuple[Path, Path]]]:
    """Each path, and where its folder lies below the root, by the real path of the root.

    The root is the outermost of the given folders that holds the path, or else its own folder; of a
    tar the one it lies in, so that a tar that is a link keeps its name and many share a root.
    """
    real = {folder: Path(os.path.realpath(folder)) for folder in {_folder(p) for p in paths}}
    given_folders = {real[path] for path in paths if path in real}
    grouped: dict[Path, list[tuple[Path, Path]]] = {}
    for path in paths:
        folder = real[_folder(path)]
        above = [place for place in (folder, *folder.parents) if place in given_folders]
        root = above[-1] if above else folder
        grouped.setdefault(root, []).append((path, folder.relative_to(root)))
    return grouped


def _folder(path: Path) -> Path:
    """A folder itself, or the folder of a file; of a tar and what is in it, the tar's."""
    place = place_in_tar(path)
    if place is not None:
        return place.tar.parent
    return path if os.path.isdir(path) else path.parent


def _above(name: Path, folders: Set[Path]) -> Iterator[Path]:
    """Those of some folders that a file lies below."""
    return (folder for folder in name.parents if folder in folders)


def _require_photos(
    root: Path, folders: Set[Path], found: Iterable[Path], lost: Sequence[Path]
) -> None:
    """Refuse a given folder that has no photo any more: its disk may not be mounted."""
    if not lost:
        return
    nums_lost = Counter(folder for name in lost for folder in _above(name, folders))
    filled = {folder for name in found for folder in _above(name, folders)}
    for folder, num_lost in nums_lost.items():
        if folder not in filled:
            raise OpenDelgError(
                f"folder must still hold photos, got none in {str(root / folder)!r}, of which the "
                f"collection has {num_lost}; mount it if it is not mounted, or take them out "
                "with `delg remove`"
            )


def _size_and_time(photo: Path) -> tuple[int, int]:
    """Bytes and modification time in ns; zeros if the file vanished, which reading will tell."""
    try:
        facts = stat_photo(photo)
    except OSError:
        return 0, 0
    return facts.size, facts.mtime_ns
