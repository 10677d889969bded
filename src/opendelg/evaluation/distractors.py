"""Distractors of a protocol: their global descriptors in shards, local features where needed.

A million images have 8 GB of global descriptors and hundreds of local features each, of which a
protocol looks at those of the few images that reach the first places of a query.  Only these are
extracted, once, and kept in the collection.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from opendelg.collection import Collection
from opendelg.errors import ImageError
from opendelg.evaluation.distractor_sources import DistractorSource
from opendelg.evaluation.kept_local import KeptLocal
from opendelg.evaluation.progress import ByteProgress, Progress, silent, silent_bytes
from opendelg.evaluation.provenance import hash_of_names
from opendelg.evaluation.shards import SHARD_IMAGES, Shards, Source, fill_shards
from opendelg.extraction import Extractor

NUM_R1M = 1_001_001  # images of the published set
BLOCK_ROWS = 16_384  # descriptors that are compared with the queries at a time
_LOCAL_BATCH = 256  # images from tars that are in memory as files at a time
_MAX_NAMED = 5  # unreadable images that a note names


@dataclass(frozen=True)
class Distractors:
    """Images that no query looks for, numbered by their positions in the shards."""

    source: DistractorSource
    shards: Shards
    is_wanted: np.ndarray  # (P,) bool by position: images of the source; shards may hold others
    collection: Collection  # keeps local features
    extractor: Extractor

    def __len__(self) -> int:
        """How many could be read."""
        return int(np.count_nonzero(self.is_wanted & self.shards.is_readable()))

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Positions (B,) int64, ascending, and global descriptors (B, D) float32."""
        return self.shards.blocks(BLOCK_ROWS, self.is_wanted)

    def names(self, positions: np.ndarray) -> list[str]:
        """What images are called."""
        return self.shards.names(positions)

    def local_ids(self, positions: np.ndarray, progress: Progress = silent) -> np.ndarray:
        """The collection's ids (N,) int64 of images; those that it lacks are extracted.

        Raises:
            OpenDelgError: If an image cannot be read any more.
        """
        names, root = self.names(positions), self.source.root
        kept = KeptLocal(
            self.collection, self.extractor, root, batch_size=self.extractor.batch_size
        )
        known = [(Path(root, name), _gone(name)) for name in names]
        missing = {
            name for name, source in zip(names, known, strict=True) if kept.num_missing([source])
        }
        if missing:
            what = "extracting local features of distractors"
            with progress(what, len(missing)) as advance:
                found = self.source.find(missing)
                while some := list(islice(found, _LOCAL_BATCH)):
                    kept.ids([(Path(root, name), read) for name, read in some], advance)
        return kept.ids(known)

    def about(self) -> dict[str, Any]:
        """Counts and a hash of the names, for the record."""
        names = self.names(np.flatnonzero(self.is_wanted))
        return {
            "images": len(self),
            "unreadable": len(names) - len(self),
            "names_sha256": hash_of_names(sorted(names)),
            "source_sha256": self.source.fingerprint(),
        }

    def notes(self) -> list[str]:
        """What a reader of the figures must know."""
        unreadable = [
            f"{name!r}: {reason}"
            for position, name, reason in self.shards.failures()
            if self.is_wanted[position]
        ]
        notes = []
        if len(self) + len(unreadable) != NUM_R1M:
            notes.append(
                f"DISTRACTORS: {len(self):,}, not the {NUM_R1M:,} of R1M: not comparable with "
                "published figures"
            )
        if unreadable:
            more = "; ..." if len(unreadable) > _MAX_NAMED else ""
            notes.append(
                f"{len(unreadable)} distractors could not be read and were left out: "
                f"{'; '.join(unreadable[:_MAX_NAMED])}{more}"
            )
        return notes


def extract_distractors(
    source: DistractorSource,
    collection: Collection,
    extractor: Extractor,
    progress: Progress = silent,
    byte_progress: ByteProgress = silent_bytes,
    shard_images: int = SHARD_IMAGES,
) -> Distractors:
    """Global descriptors of all images that have none yet.

    Args:
        source: From `find_distractors`.
        collection: Open for writing; the shards lie in its folder.
        extractor: What made the collection.
        progress: Told of images of a folder.
        byte_progress: Told of bytes of tars.
        shard_images: Images that are kept together.

    Raises:
        FormatError: If another recipe made the shards that are there, or one is damaged.
        OpenDelgError: If a tar is damaged; what precedes the damage is kept.
    """
    shards = Shards.open(_shard_folder(collection, source), extractor)

    def fill(images: Iterable[Source], advance: Callable[[object], None]) -> None:
        fill_shards(
            shards,
            extractor,
            images,
            batch_size=extractor.batch_size,
            progress=advance,
            shard_images=shard_images,
        )

    source.fill(shards, fill, progress, byte_progress)
    return Distractors(source, shards, source.is_wanted(shards), collection, extractor)


def _shard_folder(collection: Collection, source: DistractorSource) -> Path:
    """A folder for each place: images of two places may have the same names."""
    key = hashlib.sha256(os.fsencode(source.root)).hexdigest()[:12]
    return collection.folder / "shards" / "distractors" / key


def _gone(name: str) -> Callable[[], bytes]:
    """What reads an image that its source has no more."""

    def read() -> bytes:
        raise ImageError(f"image must still be there, got none in {name!r}")

    return read
