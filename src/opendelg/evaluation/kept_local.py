"""Local features of the few images of a large database that are ever verified.

They are extracted when they are asked for and stay in a collection, so that they are extracted
once: whatever stops a run, what was committed is there the next time.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from opendelg.collection import Collection, FileStat
from opendelg.errors import ImageError, OpenDelgError
from opendelg.extraction import Extractor, extract_stream
from opendelg.features import ImageFeatures
from opendelg.image import DecodedImage, read_image

COMMIT_SECONDS = 2.0
COMMIT_IMAGES = 256

# Path of an image below the root, and what gives the bytes of its file or raises ImageError.
LocalSource = tuple[Path, Callable[[], bytes]]


class KeptLocal:
    """The images below one folder whose local features a collection has, or gets."""

    def __init__(
        self,
        collection: Collection,
        extractor: Extractor,
        root: Path,
        decode_threads: int = 2,
        batch_size: int = 1,
    ) -> None:
        """Look up what the collection has.

        Args:
            collection: Open for writing, made with the extractor's recipe.
            extractor: Used by nobody else meanwhile.
            root: Folder that the images lie in, or seem to: those in a tar have paths below it.
            decode_threads: Threads that read and decode beside the network.
            batch_size: Images that the network takes at a time.
        """
        self._collection = collection
        self._extractor = extractor
        self._root = root
        self._threads_and_batch = decode_threads, batch_size
        files = collection.known(root).items()
        self._ids = {path.as_posix(): file.id for path, file in files if file.id is not None}

    def num_missing(self, sources: Iterable[LocalSource]) -> int:
        """How many distinct images would be extracted."""
        return len({path for path, _ in sources if self._key(path) not in self._ids})

    def ids(
        self, sources: Sequence[LocalSource], progress: Callable[[Path], None] | None = None
    ) -> np.ndarray:
        """The collection's ids of images; those that it lacks are extracted and committed.

        Args:
            sources: Images, which may repeat.
            progress: Called with the path of each image that was extracted.

        Returns:
            (N,) int64 ids in the order of ``sources``.

        Raises:
            OpenDelgError: If an image cannot be read: its global descriptor could be before.
        """
        missing = {path: read for path, read in sources if self._key(path) not in self._ids}
        if missing:
            self._extract(missing, progress)
        return np.array([self._ids[self._key(path)] for path, _ in sources], np.int64)

    def _extract(
        self,
        missing: Mapping[Path, Callable[[], bytes]],
        progress: Callable[[Path], None] | None,
    ) -> None:
        stats: dict[Path, FileStat] = {}

        def load(path: Path) -> DecodedImage:
            data = missing[path]()
            stats[path] = FileStat(len(data), 0, hashlib.sha256(data).hexdigest())
            draft_size = self._extractor.config.draft_size
            return read_image(data, draft_size=draft_size, name=path)

        stream = extract_stream(missing, self._extractor, load, *self._threads_and_batch)
        num_left = len(missing)
        try:
            while num_left:
                committed: dict[str, int] = {}
                started = time.monotonic()
                with self._collection.batch():
                    for path, features in stream:
                        stat = stats.pop(path, None)
                        committed[self._key(path)] = self._add(path, stat, features)
                        if progress is not None:
                            progress(path)
                        is_full = len(committed) >= COMMIT_IMAGES
                        if is_full or time.monotonic() - started > COMMIT_SECONDS:
                            break
                self._ids |= committed
                num_left -= len(committed)
        finally:
            stream.close()

    def _add(self, path: Path, stat: FileStat | None, features: ImageFeatures | ImageError) -> int:
        if isinstance(features, ImageError) or stat is None:
            raise OpenDelgError(
                "image must still be readable as when its global descriptor was extracted, "
                f"got: {features}"
            )
        return self._collection.add(path, self._root, stat, features)

    def _key(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()
