"""Files of photos by their paths, which may run through a tar as if it were a folder.

The photo ``a/b.jpg`` in ``/photos/c.tar`` has the path ``/photos/c.tar/a/b.jpg``.  Whoever reads
photos or looks for them goes through here; a folder named ``c.tar`` stays a folder.  Errors are
those of the system (``OSError``; ``ValueError`` for a null byte), for files in tars as for others.
"""

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from opendelg.tar_members import TarListing, TarListings, open_regular

TAR = ".tar"
_TAR_END = re.compile(re.escape(TAR) + r"(?=/|\Z)", re.IGNORECASE)
_listings = TarListings()


@dataclass(frozen=True)
class FileFacts:
    """What there is to know of a file without reading it.

    A file in a tar has the time of the tar: times of members are often all the same, and would not
    tell that the tar was replaced.  An update then reads all photos of a tar that was written to,
    which costs little: those whose content is as before are not extracted again.
    """

    mode: int  # kind of file, as in `os.stat_result`
    size: int  # bytes
    mtime_ns: int
    place: tuple[int, int]  # inode, and where in it the file begins


class PlaceInTar(NamedTuple):
    """A path that runs through a tar."""

    tar: Path
    inner: str  # path in the tar; empty for the tar itself


def place_in_tar(path: Path) -> PlaceInTar | None:
    """The tar that a path runs through or ends at; None if there is no such tar."""
    text = os.fspath(path)
    for end in (match.end() for match in _TAR_END.finditer(text)):
        try:
            mode = os.stat(text[:end]).st_mode
        except (OSError, ValueError):
            return None
        if stat.S_ISREG(mode):
            return PlaceInTar(Path(text[:end]), text[end + 1 :])
    return None


def list_tar(tar: Path) -> TarListing:
    """What is in a tar, remembered while it stays as it is."""
    return _listings.at(tar)


def stat_photo(path: Path) -> FileFacts:
    """The facts of the file at a path; links are followed."""
    place = place_in_tar(path)
    if place is None or not place.inner:
        return _facts(os.stat(path))
    return _facts_in_tar(os.stat(place.tar), place, _listings.at(place.tar))


@contextmanager
def open_photo(path: Path) -> Iterator[tuple[BinaryIO, FileFacts]]:
    """The file at a path, to be read from where it stands, and its facts.

    Of a file in a tar no more than its size may be read.
    """
    place = place_in_tar(path)
    with open_regular(path if place is None else place.tar) as file:
        status = os.fstat(file.fileno())
        if place is None or not place.inner:
            facts = _facts(status)
        else:
            facts = _facts_in_tar(status, place, _listings.of(file))
            file.seek(facts.place[1])
        yield file, facts


def is_there(path: Path) -> bool:
    """Whether a file can be found at a path; links are followed."""
    try:
        stat_photo(path)
    except (OSError, ValueError):
        return False
    return True


def is_gone(path: Path) -> bool:
    """Whether a file is known not to exist; one that cannot be looked for may still do."""
    place = place_in_tar(path)
    try:
        if place is None:
            os.lstat(path)
            return False
        listing = _listings.at(place.tar)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    # What lay behind the damage of a tar may still be there.
    return not listing.fault and place.inner not in listing.files


def _facts(status: os.stat_result) -> FileFacts:
    return FileFacts(status.st_mode, status.st_size, status.st_mtime_ns, (status.st_ino, 0))


def _facts_in_tar(tar: os.stat_result, place: PlaceInTar, listing: TarListing) -> FileFacts:
    if place.inner not in listing.files:
        raise FileNotFoundError(
            errno.ENOENT, "No such file in the tar", str(place.tar / place.inner)
        )
    offset, size = listing.files[place.inner]
    return FileFacts(stat.S_IFREG | 0o444, size, tar.st_mtime_ns, (tar.st_ino, offset))
