"""Where distractors come from: a folder of photos, one tar, or a folder of tars.

The published million is 100 files `revisitop1m.N.tar.gz`.  They are read as streams, one after
another, and need not be unpacked.
"""

import json
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from opendelg.errors import FormatError, OpenDelgError
from opendelg.evaluation.progress import ByteProgress, Progress, silent, silent_bytes
from opendelg.evaluation.provenance import hash_of_names
from opendelg.evaluation.shards import Shards, Source, tar_sources
from opendelg.image import find_images, read_file
from opendelg.whole_files import replacing

TAR_ENDINGS = (".tar", ".tar.gz", ".tgz")
_READ_NAME = "tars_read.json"  # beside the shards: tars that were read to their end
Fill = Callable[[Iterable[Source], Callable[[object], None]], None]


@dataclass(frozen=True)
class PhotoFolder:
    """Photos at any depth below a folder."""

    root: Path
    names: tuple[str, ...]  # paths below the folder

    def fingerprint(self) -> str:
        """Hex SHA-256 of what is there, known without reading an image."""
        return hash_of_names(sorted(self.names))

    def fill(
        self,
        shards: Shards,
        fill: Fill,
        progress: Progress = silent,
        byte_progress: ByteProgress = silent_bytes,
    ) -> None:
        """Hand the photos that the shards lack to ``fill``."""
        missing = int(np.count_nonzero(shards.positions(self.names) < 0))
        if missing:
            with progress("extracting distractors", missing) as advance:
                fill(self._sources(self.names), advance)

    def is_wanted(self, shards: Shards) -> np.ndarray:
        """(P,) bool by position: which kept images are these; there may be others."""
        wanted = np.zeros(len(shards), bool)
        wanted[shards.positions(self.names)] = True
        return wanted

    def find(self, names: Collection[str]) -> Iterator[Source]:
        """Some of the photos."""
        return self._sources(names)

    def _sources(self, names: Iterable[str]) -> Iterator[Source]:
        return ((name, partial(read_file, self.root / name)) for name in names)


@dataclass(frozen=True)
class Tars:
    """Photos in tars, which may be gzipped."""

    root: Path
    paths: tuple[Path, ...]

    def fingerprint(self) -> str:
        """Hex SHA-256 of what is there, known without reading a tar."""
        return hash_of_names(f"{path.name} {path.stat().st_size}" for path in self.paths)

    def fill(
        self,
        shards: Shards,
        fill: Fill,
        progress: Progress = silent,
        byte_progress: ByteProgress = silent_bytes,
    ) -> None:
        """Hand the photos of all tars that were not read to their end to ``fill``.

        Raises:
            FormatError: If a tar is not the one of its name that was read before.
            OpenDelgError: If one is damaged; what precedes the damage is kept.
        """
        sizes = {path: path.stat().st_size for path in self.paths}
        read = _read_before(shards.folder)
        for path, size in sizes.items():
            if read.get(path.name, size) != size:
                raise FormatError(
                    f"tar must be the one that was read before, of {read[path.name]} bytes, got "
                    f"{size} in {str(path)!r}; take another --collection"
                )
        missing = [path for path in self.paths if path.name not in read]
        if not missing:
            return
        total, before = sum(sizes[path] for path in missing), 0
        with byte_progress("reading distractors") as tell:
            for path in missing:
                fill(tar_sources([path], partial(_tell_after, tell, before, total)), _ignore)
                before += sizes[path]
                read[path.name] = sizes[path]
                with replacing(shards.folder / _READ_NAME) as part:
                    part.write_text(json.dumps(read))

    def is_wanted(self, shards: Shards) -> np.ndarray:
        """(P,) bool by position: which kept images are of these tars."""
        known = {path.name for path in self.paths}
        names = shards.names(np.arange(len(shards)))
        return np.array([name.partition("/")[0] in known for name in names], bool)

    def find(self, names: Collection[str]) -> Iterator[Source]:
        """Some of the photos; their tars are read again as far as needed."""
        left = set(names)
        for path in self.paths:
            of_tar = {name for name in left if name.partition("/")[0] == path.name}
            for name, read in tar_sources([path]) if of_tar else ():
                if name in of_tar:
                    yield name, read
                    of_tar.remove(name)
                if not of_tar:
                    break


DistractorSource = PhotoFolder | Tars


def find_distractors(source: Path) -> DistractorSource:
    """What is in a folder, or a tar.

    Args:
        source: A tar, a folder that tars lie in, or one with images at any depth.

    Raises:
        OpenDelgError: If there is nothing, or tars as well as images.
    """
    source = source.absolute()
    if not source.exists():
        raise OpenDelgError(f"distractors must be a folder or a tar, got none: {str(source)!r}")
    if not source.is_dir():
        return Tars(source.parent, (source,))
    tars = sorted(
        path
        for path in source.iterdir()
        if path.name.endswith(TAR_ENDINGS) and not path.name.startswith(".")
    )
    images = [path.relative_to(source).as_posix() for path in find_images([source])]
    if bool(tars) == bool(images):
        got = f"{len(tars)} tars and {len(images)} images"
        raise OpenDelgError(
            f"distractors must be images or tars of images, got {got} in {str(source)!r}"
            + ("; keep one of them, so that no image counts twice" if tars else "")
        )
    return Tars(source, tuple(tars)) if tars else PhotoFolder(source, tuple(images))


def _read_before(folder: Path) -> dict[str, int]:
    """Bytes of the tars that were read to their end, by name."""
    path = folder / _READ_NAME
    if not path.exists():
        return {}
    try:
        return {str(name): int(size) for name, size in json.loads(path.read_text()).items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise FormatError(
            f"list of tars must be intact, got {str(error)!r} in {str(path)!r}; delete it, the "
            "tars are read again"
        ) from error


def _tell_after(
    tell: Callable[[int, int | None], None], before: int, total: int, done: int
) -> None:
    tell(before + done, total)


def _ignore(_done: object) -> None:
    """Bytes are told, not images."""
