"""Photos that clients add and remove: on the disk before they are acknowledged.

A photo that was sent is kept as ``COLLECTION/photos/HASH/NAME``, HASH being the beginning of the
SHA-256 of its content: sending it again, after an answer that was lost, finds it there.  The
collection is opened for writing for each change only, so that `delg index` has its turns.
"""

import contextlib
import hashlib
import os
import re
import shutil
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from opendelg.collection import Collection, FileStat, StoredImage, WriterBusyError
from opendelg.errors import OpenDelgError
from opendelg.features import ImageFeatures
from opendelg.server.formats import SUFFIXES, kind_of_upload
from opendelg.server.problems import Problem
from opendelg.whole_files import replacing

FOLDER_NAME = "photos"
_HASH_DIGITS = 32
_MAX_STEM = 80  # characters, below the 255 bytes of a name in any script


@dataclass(frozen=True)
class AddedImage:
    """A photo that is in the collection now."""

    image: StoredImage
    is_new: bool  # False: its very content had been sent before


class Uploads:
    """Adds and removes photos of one collection; for one thread."""

    def __init__(self, folder: Path) -> None:
        self._collection_folder = folder
        self._folder = folder / FOLDER_NAME

    def find(self, photo: bytes, collection: Collection) -> AddedImage | None:
        """The image of a photo that was sent before."""
        kept = self._kept(self._place(photo))
        image_id = None if kept is None else collection.find(kept)
        return None if image_id is None else AddedImage(collection.image(image_id), False)

    def add(self, photo: bytes, name: str, features: ImageFeatures) -> AddedImage:
        """Keep a photo and its features; both are on the disk when this returns.

        Raises:
            Problem: With status 503 while another process writes to the collection, or if the
                disk is full; nothing was added then.
        """
        place = self._place(photo)
        with self._writing() as collection:
            kept = self._kept(place)
            path = kept or place / _file_name(name, kind_of_upload(photo))
            known = collection.find(path)
            if known is not None:
                return AddedImage(collection.image(known), False)
            try:
                _write(path, photo)
                status = path.stat()
                sha256 = hashlib.sha256(photo).hexdigest()
                stat = FileStat(status.st_size, status.st_mtime_ns, sha256)
                image_id = collection.add(path, self._folder, stat, features)
            except BaseException as error:
                if kept is None:
                    shutil.rmtree(place, ignore_errors=True)
                if isinstance(error, OSError | OpenDelgError):
                    raise Problem(503, f"disk must take the photo, got: {error}") from error
                raise
            return AddedImage(collection.image(image_id), True)

    def remove(self, image_id: int) -> None:
        """Remove an image; its photo is deleted if a client had sent it.

        Raises:
            Problem: With status 404 if it is not there, 503 while another process writes.
        """
        with self._writing() as collection:
            try:
                image = collection.image(image_id)
            except OpenDelgError as error:
                raise Problem(404, str(error)) from error
            collection.remove([image_id])
            place = image.path.parent
            if place.parent == self._folder.resolve() and _is_hash(place.name):
                shutil.rmtree(place, ignore_errors=True)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Collection]:
        try:
            collection = Collection.open(self._collection_folder)
        except WriterBusyError as error:
            raise Problem(503, str(error)) from error
        with collection:
            yield collection

    def _place(self, photo: bytes) -> Path:
        return self._folder / hashlib.sha256(photo).hexdigest()[:_HASH_DIGITS]

    @staticmethod
    def _kept(place: Path) -> Path | None:
        """The photo in a folder of ours."""
        try:
            names = sorted(name for name in os.listdir(place) if not name.startswith("."))
        except OSError:
            return None
        return place / names[0] if names else None


def _write(path: Path, photo: bytes) -> None:
    """Write a file and all that leads to it to the disk itself."""
    with replacing(path) as part, part.open("wb") as file:
        file.write(photo)
        file.flush()
        os.fsync(file.fileno())
    for folder in (path.parent, path.parent.parent, path.parent.parent.parent):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _file_name(name: str, kind: str) -> str:
    """Letters and digits of the name that a photo was sent with, and the suffix of its kind."""
    plain = unicodedata.normalize("NFC", Path(name.replace("\\", "/")).stem)
    stem = re.sub(r"[^\w-]+", "_", plain).strip("_")[:_MAX_STEM]
    return (stem.encode()[:200].decode("utf-8", "ignore") or "photo") + SUFFIXES[kind]


def _is_hash(name: str) -> bool:
    return re.fullmatch(f"[0-9a-f]{{{_HASH_DIGITS}}}", name) is not None
