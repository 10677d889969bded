"""Photos below folders and in tars: what `delg index` takes.

A tar counts as a folder: hidden files and folders in it are left out, and a tar in a tar is not
opened.  Compressed tars cannot be read in place: given by name they are an error, below a folder
they are left out.
"""

import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from opendelg.errors import OpenDelgError
from opendelg.image import EXTENSIONS, find_images, has_image_name, is_hidden
from opendelg.photo_files import TAR, PlaceInTar, list_tar, place_in_tar

_UNPACKERS = {
    ".tar.gz": "gunzip",
    ".tgz": "gunzip",
    ".tar.bz2": "bunzip2",
    ".tbz2": "bunzip2",
    ".tar.xz": "unxz",
    ".txz": "unxz",
    ".tar.zst": "unzstd",
    ".tzst": "unzstd",
}  # end of the name of a compressed tar -> what makes it plain

OnUnreadable = Callable[[Path, str], None]
logger = logging.getLogger(__name__)


def require_paths(paths: Iterable[Path]) -> None:
    """Refuse what cannot be indexed, before anything is.

    Raises:
        OpenDelgError: For a path that does not exist (a link that leads nowhere does), and for a
            compressed tar.
    """
    for path in paths:
        if not os.path.lexists(path) and not _is_in_tar(path):
            raise OpenDelgError(f"photos must exist, got {str(path)!r}")
        unpacker = _unpacker(path)
        if unpacker is not None and os.path.isfile(path):
            raise OpenDelgError(
                f"tar must be a plain one to be read in place, got a compressed one in "
                f"{str(path)!r}; decompress it ({unpacker}) or unpack it"
            )


def tell_unreadable(path: Path, reason: str) -> None:
    """Log that something that cannot be read is left out."""
    logger.warning("left out: %r: %s", str(path), reason)


def find_photos(paths: Iterable[Path], on_unreadable: OnUnreadable = tell_unreadable) -> list[Path]:
    """Photos below folders and in tars, sorted, each once.

    Args:
        paths: Folders, tars, and photos, which may be in tars; what `require_paths` accepts.
        on_unreadable: Called with each folder, tar and file in a tar that cannot be read, and the
            reason; by default a warning is logged.
    """

    def tell_folder(error: OSError) -> None:
        reason = (error.strerror or str(error)).lower()
        on_unreadable(Path(error.filename), f"folder must be readable, got {reason!r}")

    endings = EXTENSIONS | {TAR, *_UNPACKERS}
    found: set[Path] = set()
    left_out: list[Path] = []
    for path in paths:
        is_in_tar = place_in_tar(path) is not None
        for file in [path] if is_in_tar else find_images([path], tell_folder, endings):
            place = place_in_tar(file)
            if place is not None:
                found.update(_photos_in_tar(place, on_unreadable))
            elif _unpacker(file) is None:
                found.add(file)
            else:
                left_out.append(file)
    if left_out:
        logger.warning(
            "compressed tars are left out: %d, the first is %s; decompress or unpack them",
            len(left_out),
            left_out[0],
        )
    return sorted(found)


def _photos_in_tar(place: PlaceInTar, on_unreadable: OnUnreadable) -> list[Path]:
    """The photo at a place in a tar, or those below it."""
    tar, inner = place
    try:
        listing = list_tar(tar)
    except OSError as error:
        on_unreadable(tar, f"tar must be readable, got {(error.strerror or str(error)).lower()!r}")
        return []
    if inner in listing.files:
        return [tar / inner]
    above = f"{inner}/" if inner else ""

    def is_photo(name: str) -> bool:
        if not (name.startswith(above) and has_image_name(name)):
            return False
        parts = name.removeprefix(above).split("/")
        return not any(is_hidden(part) for part in parts if part != "..")

    for name, reason in listing.refused.items():
        if is_photo(name):
            on_unreadable(tar / name, reason)
    if listing.fault:
        on_unreadable(tar, f"tar must be plain and intact, got {listing.fault!r}")
    return [tar / name for name in listing.files if is_photo(name)]


def _is_in_tar(path: Path) -> bool:
    """Whether a path leads to a file or folder in a tar."""
    place = place_in_tar(path)
    if place is None:
        return False
    try:
        listing = list_tar(place.tar)
    except OSError:
        return False
    return place.inner in listing.files or listing.has_folder(place.inner)


def _unpacker(path: Path) -> str | None:
    """What decompresses a tar, None for other files, by the name."""
    name = path.name.lower()
    return next((tool for ending, tool in _UNPACKERS.items() if name.endswith(ending)), None)
