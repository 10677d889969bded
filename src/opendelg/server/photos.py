"""Photos of the collection: the files as they are, and small upright JPEGs of them."""

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from opendelg.errors import ImageError
from opendelg.image import DecodedImage, image_kind, read_file, read_image
from opendelg.photo_files import open_photo
from opendelg.server.formats import CONTENT_TYPES, jpeg
from opendelg.server.problems import Problem

MAX_JPEG_SIDE = 16384  # px of a whole photo that is converted; JPEG ends at 65535
_HEAD_BYTES = 256  # what `image_kind` looks at


@dataclass(frozen=True)
class PhotoFile:
    """A photo on disk that may be sent: a regular file, and an image by its first bytes."""

    path: Path
    content_type: str
    etag: str  # changes with the file
    is_in_tar: bool  # there is no file of its own at its path


def photo_file(path: Path) -> PhotoFile:
    """The photo at the path of an image; a Problem with status 404 if there is none.

    What has taken the place of a photo since it was indexed is never sent, unless it is a photo.
    """
    try:
        with open_photo(path) as (file, facts):
            kind = image_kind(file.read(min(facts.size, _HEAD_BYTES)))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise Problem(404, f"photo must be on disk, got {reason!r} for {path.name!r}") from error
    except ImageError as error:
        raise Problem(
            404, f"photo must still be an image, got another file at {path.name!r}"
        ) from error
    etag = hashlib.sha256(repr((facts.place, facts.size, facts.mtime_ns)).encode())
    return PhotoFile(path, CONTENT_TYPES[kind], etag.hexdigest()[:20], is_in_tar=facts.place[1] > 0)


def read_stored(path: Path, draft_size: int | None = None) -> DecodedImage:
    """The image at the path of an image of the collection; a Problem with status 404 if none."""
    try:
        return read_image(file_bytes(path), draft_size=draft_size, name=path.name)
    except ImageError as error:
        raise Problem(404, f"photo must still be readable, got: {error}") from error


def file_bytes(path: Path) -> bytes:
    """The file of a photo as it is; a Problem with status 404 if it is gone."""
    try:
        return read_file(path)
    except ImageError as error:
        raise Problem(404, f"photo must still be readable, got: {error}") from error


def whole_jpeg(path: Path) -> bytes:
    """An upright JPEG of a photo at full size."""
    return jpeg(read_stored(path).pixels, MAX_JPEG_SIDE)


class Thumbnails:
    """Small upright JPEGs, the last ones kept; for several threads."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._jpegs: OrderedDict[tuple[str, str, int], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, photo: PhotoFile, max_side: int) -> bytes:
        """The photo, its longer side at most ``max_side`` px."""
        key = (str(photo.path), photo.etag, max_side)
        with self._lock:
            if key in self._jpegs:
                self._jpegs.move_to_end(key)
                return self._jpegs[key]
        made = jpeg(read_stored(photo.path, draft_size=max_side).pixels, max_side)
        with self._lock:
            self.num_bytes += len(made) - len(self._jpegs.pop(key, b""))
            self._jpegs[key] = made
            while self.num_bytes > self.max_bytes:
                _, forgotten = self._jpegs.popitem(last=False)
                self.num_bytes -= len(forgotten)
        return made
