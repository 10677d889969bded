"""Collections in a folder: a SQLite catalogue, and a faiss index beside it."""

import sqlite3
from pathlib import Path

from opendelg.collection.catalogue import Catalogue
from opendelg.collection.checking import EmbeddedChecks
from opendelg.collection.connection import lock_for_writing
from opendelg.collection.current_index import CurrentIndex
from opendelg.collection.interface import Parts
from opendelg.collection.nearest import remove_drafts
from opendelg.collection.packing import Precision
from opendelg.collection.recipe import Recipe
from opendelg.collection.schema import create_catalogue
from opendelg.errors import FormatError, OpenDelgError
from opendelg.whole_files import remove_parts

_CATALOGUE_NAME = "catalogue.sqlite"
_INDEX_NAME = "nearest.faiss"


class Folder:
    """A folder that holds a collection, or may."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / _CATALOGUE_NAME

    def exists(self) -> bool:
        """Whether there is a collection, or something else under its name."""
        try:
            return self._path.stat().st_size > 0
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise OpenDelgError(
                f"collection must be a folder that you may read, got {error}"
            ) from error

    def create(self, recipe: Recipe, precision: Precision) -> Parts:
        """An empty collection, open for writing; the folder is made if it is missing."""
        folder = self._folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OpenDelgError(
                f"collection must be in a folder that you may write, got {error}"
            ) from error
        lock = lock_for_writing(folder)
        try:
            if self.exists():
                raise FormatError(f"folder must not hold a collection yet, got {str(folder)!r}")
            create_catalogue(self._path, recipe.to_json(), precision)
            return self._parts(Catalogue.open(self._path, read_only=False), lock)
        except BaseException:
            lock.close()
            raise

    def open(self, read_only: bool) -> Parts:
        """The collection in the folder."""
        if not self.exists():
            raise FormatError(
                f"collection must be a folder made by `delg index`, got {str(self._folder)!r}"
            )
        lock = None if read_only else lock_for_writing(self._folder)
        try:
            catalogue = Catalogue.open(self._path, read_only)
        except BaseException:
            if lock is not None:
                lock.close()
            raise
        if not read_only:
            remove_drafts(self._folder / _INDEX_NAME)
            remove_parts(self._folder)  # of segments
        return self._parts(catalogue, lock)

    def _parts(self, catalogue: Catalogue, lock: sqlite3.Connection | None) -> Parts:
        index_path = self._folder / _INDEX_NAME
        return Parts(
            location=str(self._folder),
            name=self._folder.resolve().name,
            folder=self._folder,
            catalogue=catalogue,
            index=CurrentIndex(catalogue, index_path),
            checks=EmbeddedChecks(catalogue, index_path),
            lock=lock,
        )
