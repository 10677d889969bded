"""Collections: what `delg index` writes on disk and `delg search` reads."""

from opendelg.collection.codes import RECALL_AT, RECALL_TARGET
from opendelg.collection.collection import Collection
from opendelg.collection.connection import WriterBusyError
from opendelg.collection.packing import (
    PRECISIONS,
    Precision,
    keypoint_bytes,
    pack_local,
    record_bytes,
    unpack_local,
)
from opendelg.collection.recipe import Recipe
from opendelg.collection.records import (
    CollectionInfo,
    Failure,
    FileStat,
    StoredFile,
    StoredImage,
)
from opendelg.collection.sizes import CollectionSizes, Layout
from opendelg.collection.speed import measure_speed

__all__ = [
    "PRECISIONS",
    "RECALL_AT",
    "RECALL_TARGET",
    "Collection",
    "CollectionInfo",
    "CollectionSizes",
    "Failure",
    "FileStat",
    "Layout",
    "Precision",
    "Recipe",
    "StoredFile",
    "StoredImage",
    "WriterBusyError",
    "keypoint_bytes",
    "measure_speed",
    "pack_local",
    "record_bytes",
    "unpack_local",
]
