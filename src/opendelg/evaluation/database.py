"""The database of a protocol as a collection: all images of a dataset or an error."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from opendelg.collection import Collection
from opendelg.errors import OpenDelgError
from opendelg.extraction import Extractor
from opendelg.indexing import Plan, index_photos


GPU_BATCH = 16  # images of equal size that a GPU takes at a time


def batch_size_for(extractor: Extractor) -> int:
    """Images that the network takes at a time: more than one pays on GPUs."""
    return GPU_BATCH if extractor.runtime.device == "cuda" else 1


def index_whole(
    collection: Collection,
    extractor: Extractor,
    plan: Plan,
    progress: Callable[[Path], None] | None = None,
) -> None:
    """Extract every image of a plan.

    Raises:
        OpenDelgError: If an image cannot be read: figures without it would not be comparable.
    """
    report = index_photos(
        collection,
        extractor,
        plan,
        update=True,
        batch_size=batch_size_for(extractor),
        progress=progress,
    )
    if report.failures:
        path, reason = report.failures[0]
        raise OpenDelgError(
            f"every image must be readable, got {len(report.failures)} that are not, "
            f"first {str(path)!r}: {reason}"
        )


def stored_ids(collection: Collection, paths: list[Path]) -> np.ndarray:
    """The collection's ids (N,) int64 of files.

    Raises:
        OpenDelgError: If it lacks one.
    """
    found = [collection.find(path) for path in paths]
    if None in found:
        raise OpenDelgError(
            "collection must hold every image of the dataset, got none for "
            f"{str(paths[found.index(None)])!r}"
        )
    return np.array(found, np.int64)
