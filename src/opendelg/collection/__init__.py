"""Collections: what `delg index` writes on disk and `delg search` reads."""

from opendelg.collection.collection import Collection
from opendelg.collection.connection import WriterBusyError
from opendelg.collection.packing import PRECISIONS, Precision, pack_local, unpack_local
from opendelg.collection.recipe import Recipe
from opendelg.collection.records import (
    CollectionInfo,
    Failure,
    FileStat,
    StoredFile,
    StoredImage,
)

__all__ = [
    "PRECISIONS",
    "Collection",
    "CollectionInfo",
    "Failure",
    "FileStat",
    "Precision",
    "Recipe",
    "StoredFile",
    "StoredImage",
    "WriterBusyError",
    "pack_local",
    "unpack_local",
]
