"""The plain records that a collection takes and returns."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class FileStat:
    """Facts of a file on disk, compared to tell whether it must be read again."""

    size: int  # bytes
    mtime_ns: int  # modification time, ns since the epoch
    sha256: str | None  # hex digest of the content; None if the file could not be read


@dataclass(frozen=True)
class StoredFile:
    """What the collection knows about one file: an image, or a failure to read one."""

    id: int | None  # None for a failure
    size: int  # bytes
    mtime_ns: int  # ns since the epoch
    sha256: str | None  # hex digest
    failure: str | None  # why the file could not be read; None for an image


@dataclass(frozen=True)
class StoredImage:
    """One image of the collection."""

    id: int
    path: Path  # absolute, where the photo is expected now
    relative: Path  # below its root folder
    size: tuple[int, int]  # (width, height) px of the original, upright image
    num_local: int  # number of local features


@dataclass(frozen=True)
class Failure:
    """A file that could not be read when it was indexed."""

    path: Path  # absolute
    reason: str


@dataclass(frozen=True)
class CollectionInfo:
    """A summary of a collection, as `delg info` shows it."""

    location: str  # folder or address
    weights_name: str
    weights_sha256: str
    precision: str  # of stored local descriptors, one of `packing.PRECISIONS`
    num_images: int
    num_failures: int
    num_local: int  # local features of all images
    global_dimensions: int | None  # None until the first image is added
    local_dimensions: int | None
    roots: tuple[Path, ...]  # where the photos are expected now
    num_bytes: int  # on disk, search structure included
    search: str  # how the nearest global descriptors are found, in words
    revision: int  # grows with every change
