"""Distractors of a protocol: their global descriptors in shards, local features where needed.

A million images have 8 GB of global descriptors and hundreds of local features, of which a
protocol looks at those of the few images that reach the first places of a query.  Only these are
extracted, once, and kept in a collection beside the shards.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from opendelg.collection import Collection, FileStat, Recipe
from opendelg.datasets.distractors import NUM_R1M, DistractorImage, Part
from opendelg.errors import FormatError, ImageError, OpenDelgError
from opendelg.evaluation.database import batch_size_for, stored_ids
from opendelg.evaluation.progress import Progress, silent
from opendelg.evaluation.provenance import hash_of_names
from opendelg.evaluation.shards import Shard, read_shard, shard_path, write_shard
from opendelg.extraction import Extractor, extract_stream
from opendelg.features import ImageFeatures, LocalFeatures
from opendelg.image import DecodedImage, read_image
from opendelg.recipes import open_or_create, recipe_of

IMAGES_PER_SHARD = 10_000  # 82 MB at 2048 dimensions: what a stop in the middle loses
COMMIT_SECONDS = 2.0
_MAX_NAMED = 5  # unreadable images that a note names
ByteProgress = Callable[[int, int | None], None]


def extract_distractors(
    parts: Sequence[Part],
    folder: Path,
    extractor: Extractor,
    images_per_shard: int = IMAGES_PER_SHARD,
    progress: ByteProgress | None = None,
) -> "Distractors":
    """Global descriptors of all images that have none yet.

    Args:
        parts: From `datasets.distractors.find_distractors`.
        folder: Keeps the shards; made if it is missing.
        extractor: Network and settings.
        images_per_shard: Images that are kept together.
        progress: Called with the bytes of the source that are done, and all of them.

    Raises:
        FormatError: If another recipe made the shards that are there, or one is damaged.
    """
    total = sum(part.num_bytes for part in parts)
    shards: list[Shard] = []
    before = 0

    def tell(bytes_done: int) -> None:
        if progress is not None:
            progress(before + bytes_done, total)

    for part in parts:
        found = _known_shards(part, folder, recipe_of(extractor))
        if not found or not found[-1].is_last:
            missing = _new_shards(part, folder, extractor, found, images_per_shard, tell)
            found += list(missing)
        shards += found
        before += part.num_bytes
    return Distractors(parts, shards, folder, extractor)


def _known_shards(part: Part, folder: Path, recipe: Recipe) -> list[Shard]:
    """The first shards of a part that are there already, as long as the part is the same."""
    found: list[Shard] = []
    stamp = part.stamp
    while not found or not found[-1].is_last:
        shard = read_shard(shard_path(folder, part, len(found)), recipe)
        start = found[-1].start + found[-1].num_images if found else 0
        if shard is None or (shard.part, shard.stamp, shard.start) != (part.name, stamp, start):
            break
        found.append(shard)
    return found


def _new_shards(
    part: Part,
    folder: Path,
    extractor: Extractor,
    known: Sequence[Shard],
    images_per_shard: int,
    tell: Callable[[int], None],
) -> Iterator[Shard]:
    """Extract what follows the known shards of a part."""
    start = known[-1].start + known[-1].num_images if known else 0
    faults: list[str] = []
    images = _until_fault(part, start, faults)
    first, number = next(images, None), len(known)
    while first is not None or number == 0:
        names: list[str] = []
        failures: dict[int, str] = {}
        descriptors: list[np.ndarray] = []
        chunk = chain([] if first is None else [first], islice(images, images_per_shard - 1))
        stream = extract_stream(
            chunk, extractor, _loader(extractor), 2, batch_size_for(extractor), want_local=False
        )
        for image, result in stream:
            if isinstance(result, ImageError):
                failures[len(names)] = _reason(image, result)
            else:
                descriptors.append(result.global_descriptor)
            names.append(image.name)
            tell(image.bytes_done)
        first = next(images, None)
        yield write_shard(
            shard_path(folder, part, number),
            part,
            recipe_of(extractor),
            start,
            names,
            failures,
            descriptors,
            is_last=first is None,
            fault=faults[0] if faults and first is None else "",
        )
        start, number = start + len(names), number + 1


def _until_fault(part: Part, start: int, faults: list[str]) -> Iterator[DistractorImage]:
    """The images of a part before any damage, which is added to ``faults``."""
    try:
        yield from part.images(start)
    except FormatError as error:
        faults.append(str(error))


def _loader(extractor: Extractor) -> Callable[[DistractorImage], DecodedImage]:
    def load(image: DistractorImage) -> DecodedImage:
        return read_image(image.source, draft_size=extractor.config.draft_size)

    return load


def _reason(image: DistractorImage, error: ImageError) -> str:
    """What is wrong with an image, without where it lies."""
    return str(error).removesuffix(f" in {str(image.source)!r}")


class Distractors:
    """Images that no query looks for; rows number those that could be read."""

    def __init__(
        self,
        parts: Sequence[Part],
        shards: Sequence[Shard],
        folder: Path,
        extractor: Extractor,
    ) -> None:
        """Use `extract_distractors`."""
        self.parts = {part.name: part for part in parts}
        self.shards = list(shards)
        self._starts = np.cumsum([0, *(len(shard) for shard in shards)])  # first row of each
        self._folder = folder / "local"
        self._extractor = extractor
        self._opened: Collection | None = None

    def close(self) -> None:
        """Lets others write; may be repeated."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def __enter__(self) -> "Distractors":
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def blocks(self) -> Iterator[np.ndarray]:
        """Global descriptors (B, D) float32 in the order of rows, one shard in memory at a time."""
        return (shard.descriptors() for shard in self.shards if len(shard))

    def names(self, rows: np.ndarray) -> list[str]:
        """What images are called."""
        found: dict[int, str] = {}
        for shard, offsets, of_shard in self._by_shard(rows):
            names = shard.names()
            found |= {row: names[o] for row, o in zip(of_shard, offsets, strict=True)}
        return [found[row] for row in rows.tolist()]

    def extract_local(self, rows: np.ndarray, progress: Progress = silent) -> None:
        """Extract local features of those images that have none yet.

        Raises:
            OpenDelgError: If an image cannot be read any more.
        """
        wanted: dict[str, dict[int, Path]] = {}  # part -> position -> place in the collection
        for shard, offsets, _ in self._by_shard(rows):
            for offset in offsets:
                place = self._place(shard, offset)
                if self._collection().find(place) is None:
                    wanted.setdefault(shard.part, {})[shard.start + offset] = place
        count = sum(map(len, wanted.values()))
        with progress("extracting local features of distractors", count) as advance:
            for name, places in wanted.items():
                self._extract_part(self.parts[name], places, advance)

    def local_features(self, rows: np.ndarray) -> tuple[list[tuple[int, int]], list[LocalFeatures]]:
        """Sizes (width, height) px and local features of images (see `extract_local`)."""
        places = {
            row: self._place(shard, offset)
            for shard, offsets, of_shard in self._by_shard(rows)
            for row, offset in zip(of_shard, offsets, strict=True)
        }
        if not places:
            return [], []
        collection = self._collection()
        ids = stored_ids(collection, [places[row] for row in rows.tolist()])
        sizes = [image.size for image in collection.images(ids)]
        return sizes, collection.local_features(ids)

    def about(self) -> dict[str, Any]:
        """Counts and a hash of the names, for the record."""
        names = (name for shard in self.shards for name in shard.names())
        return {
            "images": len(self),
            "unreadable": sum(len(shard.failures) for shard in self.shards),
            "names_sha256": hash_of_names(names),
        }

    def notes(self) -> list[str]:
        """What a reader of the figures must know."""
        unreadable = [
            f"{shard.names()[offset]!r}: {reason}"
            for shard in self.shards
            for offset, reason in islice(shard.failures.items(), _MAX_NAMED)
        ]
        num_unreadable = sum(len(shard.failures) for shard in self.shards)
        faults = [shard.fault for shard in self.shards if shard.fault]
        notes = []
        if len(self) + num_unreadable != NUM_R1M:
            notes.append(
                f"DISTRACTORS: {len(self)}, not the {NUM_R1M:,} of R1M: not comparable with "
                "published figures"
            )
        if num_unreadable:
            more = "; ..." if num_unreadable > _MAX_NAMED else ""
            notes.append(
                f"{num_unreadable} distractors could not be read and were left out: "
                f"{'; '.join(unreadable[:_MAX_NAMED])}{more}"
            )
        return [*notes, *(f"distractors are missing: {fault}" for fault in faults)]

    def _extract_part(
        self, part: Part, places: Mapping[int, Path], advance: Callable[[object], None]
    ) -> None:
        """Local features of some images of a part, by position."""
        collection, root = self._collection(), self._folder
        stream = extract_stream(
            part.images(only=places.keys()),
            self._extractor,
            _loader(self._extractor),
            2,
            batch_size_for(self._extractor),
        )
        pending: list[tuple[Path, ImageFeatures]] = []
        started = time.monotonic()

        def commit() -> None:
            with collection.batch():
                for place, features in pending:
                    collection.add(place, root, FileStat(0, 0, None), features)

        for image, result in stream:
            if isinstance(result, ImageError):
                raise OpenDelgError(
                    f"distractor must be as it was when its descriptor was extracted, got "
                    f"{_reason(image, result)!r} for {image.name!r}"
                )
            pending.append((places[image.position], result))
            advance(image)
            if time.monotonic() - started > COMMIT_SECONDS:
                commit()
                pending, started = [], time.monotonic()
        commit()

    def _by_shard(self, rows: np.ndarray) -> Iterator[tuple[Shard, list[int], list[int]]]:
        """Shards that hold some of these rows, with the offsets in each and the rows."""
        shards = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(shards).tolist():
            shard, of_shard = self.shards[number], rows[shards == number]
            offsets = shard.offsets[of_shard - self._starts[number]]
            yield shard, offsets.tolist(), of_shard.tolist()

    def _place(self, shard: Shard, offset: int) -> Path:
        """Under which path an image is kept: no file is there."""
        return self._folder / f"{shard.path.stem}-{shard.key}" / str(offset)

    def _collection(self) -> Collection:
        """Local features so far."""
        if self._opened is None:
            self._opened = open_or_create(self._folder, self._extractor)
        return self._opened
