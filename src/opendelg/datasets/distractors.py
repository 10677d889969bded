"""Images that no query looks for: a folder of photos, or of tars, read one after another.

The published million is 100 files `revisitop1m.N.tar.gz`.  They are read as streams and need not
be unpacked; unpacked photos are found at any depth.  A source has parts, each read from its start
to its end: one tar, or some thousands of the photos in a folder.
"""

import gzip
import hashlib
import os
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from opendelg.datasets.tars import walk_members
from opendelg.errors import FormatError, OpenDelgError
from opendelg.image import EXTENSIONS, ImageLimits, find_images

NUM_R1M = 1_001_001  # images of the published set
TAR_ENDINGS = (".tar", ".tar.gz", ".tgz")
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class DistractorImage:
    """One image of a part."""

    position: int  # in its part, unreadable images included
    name: str
    source: Path | bytes  # what `read_image` takes
    bytes_done: int  # of the part, with this image


@dataclass(frozen=True)
class FolderPart:
    """Some photos of a folder."""

    name: str
    folder: Path
    files: tuple[str, ...]  # below the folder
    sizes: tuple[int, ...]  # bytes

    @property
    def num_bytes(self) -> int:
        """What is to be read."""
        return sum(self.sizes)

    @property
    def stamp(self) -> str:
        """Changes whenever the images do, as far as names and sizes tell."""
        total = hashlib.sha256()
        for file, size in zip(self.files, self.sizes, strict=True):
            total.update(f"{file}\0{size}\0".encode("utf-8", "surrogateescape"))
        return total.hexdigest()

    def images(
        self, start: int = 0, only: Collection[int] | None = None
    ) -> Iterator[DistractorImage]:
        """The images from a position on, or those at some positions."""
        done = 0
        for position, (file, size) in enumerate(zip(self.files, self.sizes, strict=True)):
            done += size
            if position >= start and (only is None or position in only):
                yield DistractorImage(position, file, self.folder / file, done)


@dataclass(frozen=True)
class TarPart:
    """One tar, gzipped or not."""

    name: str
    path: Path
    num_bytes: int  # as it is on disk

    @property
    def stamp(self) -> str:
        """Changes whenever the images do, as far as the size tells."""
        return f"{self.num_bytes} bytes"

    def images(
        self, start: int = 0, only: Collection[int] | None = None
    ) -> Iterator[DistractorImage]:
        """The images from a position on, or those at some positions.

        Raises:
            FormatError: Where the tar is damaged or cut off; the images before that are good.
        """
        try:
            with self.path.open("rb") as raw:
                is_gzip = raw.read(2) == _GZIP
                raw.seek(0)
                # A gzip stream goes forward only, which is how it is used here.
                file = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if is_gzip else raw
                end = None if is_gzip else self.num_bytes
                for image in _tar_images(file, end, start, only):
                    yield DistractorImage(*image, raw.tell())
        except (OSError, ValueError, EOFError, zlib.error) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise FormatError(
                f"tar must be intact, got {reason.lower()!r} in {str(self.path)!r}"
            ) from error


Part = FolderPart | TarPart


def find_distractors(source: Path, images_per_part: int = 10_000) -> tuple[Part, ...]:
    """The parts of a source.

    Args:
        source: A tar, or a folder with tars or with images at any depth.
        images_per_part: Most photos of a folder that make a part.

    Raises:
        OpenDelgError: If there is nothing, or tars as well as images.
    """
    if not source.exists():
        raise OpenDelgError(f"distractors must be a folder or a tar, got none: {str(source)!r}")
    if not source.is_dir():
        return (_tar_part(source.parent, source),)
    tars = sorted(
        Path(folder, name)
        for folder, _, names in os.walk(source)
        for name in names
        if name.endswith(TAR_ENDINGS) and not name.startswith(".")
    )
    images = find_images([source])
    if bool(tars) == bool(images):
        got = f"{len(tars)} tars and {len(images)} images"
        raise OpenDelgError(
            f"distractors must be images or tars of images, got {got} in {str(source)!r}"
            + ("; keep one of them, so that no image counts twice" if tars else "")
        )
    if tars:
        return tuple(_tar_part(source, tar) for tar in tars)
    files = [str(path.relative_to(source)) for path in images]
    sizes = [_size(path) for path in images]
    return tuple(
        FolderPart(
            f"images-{start // images_per_part:05d}",
            source,
            tuple(files[start : start + images_per_part]),
            tuple(sizes[start : start + images_per_part]),
        )
        for start in range(0, len(files), images_per_part)
    )


def _tar_part(folder: Path, path: Path) -> TarPart:
    return TarPart(str(path.relative_to(folder)), path, _size(path))


def _size(path: Path) -> int:
    """Bytes of a file; 0 if it cannot be looked at, which reading will tell."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _tar_images(
    file: BinaryIO, end: int | None, start: int, only: Collection[int] | None
) -> Iterator[tuple[int, str, bytes]]:
    """Position, name and content of images in a tar."""
    position, limit = -1, ImageLimits().max_file_bytes
    last = None if only is None else max(only, default=-1)
    for raw_name, offset, size in walk_members(file, end):
        name = os.fsdecode(raw_name)
        base = os.path.basename(name)
        if base.startswith(".") or os.path.splitext(base)[1].lower() not in EXTENSIONS:
            continue
        position += 1
        if position >= start and (only is None or position in only):
            file.seek(offset)
            content = file.read(min(size, limit))
            if len(content) < min(size, limit):
                raise ValueError(f"cut off within {name!r}")
            yield position, name, content
        if last is not None and position >= last:
            return
