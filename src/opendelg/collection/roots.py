"""Where the photos of a collection are now.

A photo is stored as a path below a root folder, and a root both as an absolute path and as a
path from the collection's folder.  While the collection stays where it was, the absolute path
counts.  Once it was moved or copied, photos found at the relative path came along and count;
otherwise they stayed and the absolute path counts.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from opendelg.collection.catalogue import RootRow
from opendelg.errors import FormatError
from opendelg.photo_files import place_in_tar


class Roots:
    """The roots of one collection, resolved to folders of today."""

    def __init__(
        self,
        folder: Path | None,
        rows: Iterable[RootRow],
        samples: Callable[[int], Iterable[bytes]],
    ) -> None:
        """Resolves all roots.

        Args:
            folder: The collection's folder; None if it is in none: then absolute paths count.
            rows: The roots as stored.
            samples: Some relative paths of photos below the root of an id, to look for.
        """
        self._home = None if folder is None else os.path.realpath(folder)
        self._rows = {row.id: row for row in rows}
        self._locations = {row.id: self._locate(row, samples) for row in self._rows.values()}
        self._ids = {location: root_id for root_id, location in self._locations.items()}

    @property
    def rows(self) -> list[RootRow]:
        """The roots as stored, in order of id."""
        return list(self._rows.values())

    @property
    def locations(self) -> dict[int, str]:
        """Absolute folder of today by root id."""
        return dict(self._locations)

    def path(self, root_id: int, relative: bytes) -> Path:
        """Absolute path of a photo."""
        if root_id not in self._locations:
            raise FormatError(
                f"root of {os.fsdecode(relative)!r} must be in the catalogue, got none with id "
                f"{root_id}; `delg verify` lists all damage, index these photos again"
            )
        return Path(self._locations[root_id], os.fsdecode(relative))

    def row_for(self, root: Path) -> RootRow:
        """The root at the folder `root`, as it should be stored from now on."""
        location = os.path.realpath(root)
        root_id = self._ids.get(location, max(self._rows, default=0) + 1)
        if self._home is None:
            return RootRow(root_id, os.fsencode(location), None, b"")
        try:
            relative = os.fsencode(os.path.relpath(location, self._home))
        except ValueError:  # another drive (Windows)
            relative = None
        return RootRow(root_id, os.fsencode(location), relative, os.fsencode(self._home))

    def is_stored(self, row: RootRow) -> bool:
        """Whether the root is stored exactly so already."""
        return self._rows.get(row.id) == row

    def containing(self, path: str) -> Iterator[tuple[int, bytes]]:
        """(root id, relative path) for every root that lies above an absolute path."""
        for parent in Path(path).parents:
            root_id = self._ids.get(str(parent))
            if root_id is not None:
                yield root_id, relative_bytes(Path(path).relative_to(parent))

    def resolve(self, path: Path) -> Iterator[tuple[int, bytes]]:
        """Like `containing` for a path as a user writes it: relative, or through links."""
        absolute = Path(os.path.abspath(path))
        for parent in absolute.parents:
            root_id = self._ids.get(os.path.realpath(parent))
            if root_id is not None:
                yield root_id, relative_bytes(absolute.relative_to(parent))

    def overlapping(self, folder: Path) -> Iterator[tuple[int, str, bytes]]:
        """The roots that have files in a folder: those above it, and those below it.

        Yields:
            Root id; what to put before the root's paths to get paths below the folder; what the
            root's paths must start with to be in the folder, to be cut off.
        """
        location = os.path.realpath(folder)
        outer = os.path.join(location, "")
        for root_id, place in self._locations.items():
            inner = os.path.join(place, "")
            if place == location:
                yield root_id, "", b""
            elif place.startswith(outer):
                yield root_id, place.removeprefix(outer), b""
            elif location.startswith(inner):
                yield root_id, "", relative_bytes(Path(location.removeprefix(inner))) + b"/"

    def _locate(self, row: RootRow, samples: Callable[[int], Iterable[bytes]]) -> str:
        absolute = os.fsdecode(row.absolute)
        if self._home is None or row.relative is None or os.fsdecode(row.seen_from) == self._home:
            return absolute
        moved = os.path.normpath(os.path.join(self._home, os.fsdecode(row.relative)))
        # A folder at the relative path is not enough: '..' exists everywhere.
        came_along = any(_is_likely(Path(moved, os.fsdecode(sample))) for sample in samples(row.id))
        return moved if came_along else absolute


def _is_likely(photo: Path) -> bool:
    """Whether there is a photo, or the tar it would be in: walking that takes long."""
    return os.path.lexists(photo) or place_in_tar(photo) is not None


def relative_bytes(path: Path) -> bytes:
    """A relative path as it is stored: the file system's bytes, separated by '/'."""
    return os.fsencode(path.as_posix())
