"""What indexing and searching so many photos takes: measured on a few, the rest is arithmetic.

A sample of the photos goes through everything that `delg index` and `delg search` do, on this
machine; bytes follow from what the sample's features take in a collection's layout.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory

import numpy as np

from opendelg.candidates import compare, settings_for
from opendelg.collection import (
    RECALL_AT,
    RECALL_TARGET,
    Collection,
    CollectionSizes,
    Layout,
    measure_speed,
)
from opendelg.collection.codebook import LEARNT_ON
from opendelg.errors import OpenDelgError
from opendelg.extraction import Extractor
from opendelg.features import ImageFeatures
from opendelg.indexing import IndexReport, Photo, Plan, index_photos, plan_indexing
from opendelg.memory import peak_memory
from opendelg.recipes import recipe_of
from opendelg.search import SearchConfig

LONG_S = 2 * 86_400.0  # of extraction, from which on there is advice


@dataclass(frozen=True)
class Forecast:
    """Seconds on this machine, and bytes."""

    num_images: int
    num_measured: int  # photos of the sample that could be read
    num_unreadable: int  # of the sample
    keypoints_per_image: float  # of the sample
    extraction_s: float  # of all photos: reading, network, committing
    indexing_s: float  # of all: making the search index
    query_s: float  # extraction of a query
    nearest_s: float  # first stage of a search
    verification_s: float  # second stage of a search
    process_memory: int | None  # bytes, peak with the network and the sample
    record_bytes: float  # local features of an image
    image_bytes: float  # of the catalogue for an image, all included
    sizes: CollectionSizes

    @property
    def search_s(self) -> float:
        """Of one search."""
        return self.query_s + self.nearest_s + self.verification_s


def forecast(
    paths: Sequence[Path],
    extractor: Extractor,
    num_images: int | None = None,
    num_sampled: int = 16,
    batch_size: int = 1,
) -> Forecast:
    """Measure on a sample what indexing and searching takes.

    Args:
        paths: Photos and folders.
        extractor: Network and settings.
        num_images: To plan for; None: as many as there are photos.
        num_sampled: Photos that are measured, evenly spread, at most.
        batch_size: Images that the network takes at a time.

    Raises:
        OpenDelgError: If a path does not exist, there is no photo, or none can be read.
        OSError: If the folder for temporary files has no room for the sample.
    """
    with TemporaryDirectory(prefix="delg-") as folder:
        with Collection.create(
            Path(folder, "first"), recipe_of(extractor), extractor.config.precision
        ) as first:
            plan = plan_indexing(first, paths)
            if not plan.new:
                raise OpenDelgError(
                    f"photos must be at least one, got none in {[str(path) for path in paths]}"
                )
            sample = _spread(plan.new, num_sampled)
            # Imports, memory and caches of the first photo are no rate.
            index_photos(first, extractor, Plan(new=sample[:1], roots=plan.roots))
        with Collection.create(
            Path(folder, "sample"), recipe_of(extractor), extractor.config.precision
        ) as measured:
            started = time.perf_counter()
            report = index_photos(
                measured,
                extractor,
                Plan(new=sample, roots=plan.roots),
                batch_size=batch_size,
            )
            seconds = time.perf_counter() - started
            _require_images(report)
            num_images = num_images or len(plan.new)
            layout = _layout(measured, extractor, sample, num_images)
            verification_s = _verification_seconds(measured, extractor, num_images)
    process_memory = peak_memory()  # before made-up descriptors add to it
    speed = measure_speed(num_images, layout.global_dimensions)
    per_photo = seconds / len(sample)
    return Forecast(
        num_images=num_images,
        num_measured=report.num_added,
        num_unreadable=len(report.failures),
        keypoints_per_image=mean(layout.num_keypoints),
        extraction_s=per_photo * num_images,
        indexing_s=speed.making,
        query_s=per_photo,
        nearest_s=speed.search,
        verification_s=verification_s,
        process_memory=process_memory,
        record_bytes=layout.record_bytes(),
        image_bytes=layout.image_bytes(),
        sizes=layout.of(num_images),
    )


def _spread(photos: Sequence[Photo], count: int) -> list[Photo]:
    rows = np.linspace(0, len(photos) - 1, min(count, len(photos))).astype(int)
    return [photos[row] for row in rows]


def _require_images(report: IndexReport) -> None:
    if report.num_added == 0:
        path, reason = report.failures[0]
        raise OpenDelgError(
            f"a photo of the sample must be readable, got {len(report.failures)} that are not, "
            f"first {str(path)!r}: {reason}"
        )


def _layout(
    collection: Collection, extractor: Extractor, sample: Sequence[Photo], num_images: int
) -> Layout:
    num_keypoints = [image.num_local for image in collection.images(collection.ids())]
    precision = extractor.config.precision
    if precision == "pq" and num_images * mean(num_keypoints) < LEARNT_ON:
        precision = "int8"  # until there is enough to learn from
    return Layout(
        extractor.runtime.architecture.num_global_dimensions,
        extractor.runtime.architecture.num_local_dimensions,
        precision,
        num_keypoints,
        [len(os.fsencode(photo.relative)) for photo in sample],
    )


def _verification_seconds(collection: Collection, extractor: Extractor, num_images: int) -> float:
    """Of the second stage of a search, the sample's images standing for all candidates."""
    config = SearchConfig()
    ids = collection.ids()
    images = collection.images(ids)
    chosen = np.resize(np.arange(len(ids))[::-1], min(config.rerank, num_images))
    (local,) = collection.local_features(ids[:1])
    query = ImageFeatures(images[0].size, collection.global_descriptor(int(ids[0])), local)
    started = time.perf_counter()
    compare(
        query,
        chosen,
        np.zeros(len(chosen)),
        [images[row].size for row in chosen],
        [collection.local_features([ids[row]])[0] for row in chosen],
        extractor.weights.same,
        settings_for(extractor.config, config.verification),
    )
    return time.perf_counter() - started


def advice(found: Forecast, free_disk: int, memory: int | None) -> list[str]:
    """What to know before starting, a sentence each; the kind of index first.

    Args:
        found: What it takes.
        free_disk: Bytes free where the collection will be.
        memory: Bytes of the machine; None if not known.
    """
    sizes = found.sizes
    if sizes.coded_images == 0:
        told = [f"index: exact, every one of {found.num_images:,} descriptors is compared"]
    else:
        told = [
            f"index: one-bit codes of {sizes.coded_images:,} images, the best measured exactly "
            f"(recall at {RECALL_AT} of at least {RECALL_TARGET}), and {sizes.exact_images:,} "
            "images exactly; it is chosen by itself"
        ]
    if sizes.disk > free_disk:
        told.append(
            f"the disk lacks {_gigabytes(sizes.disk - free_disk)}: take another one, or fewer "
            "bytes per image (--bytes-per-image, --features, --profile)"
        )
    held = (found.process_memory or 0) + max(sizes.search_memory, sizes.index_memory)
    if memory is not None and held > memory:
        told.append(
            f"the memory lacks {_gigabytes(held - memory)}: take shorter global descriptors "
            "(delg weights reduce), or several collections"
        )
    elif memory is not None and held + sizes.mapped > memory:
        told.append(
            f"{_gigabytes(sizes.mapped)} of descriptors do not fit in the memory: searches read "
            "from the disk, which must be fast; shorter descriptors (delg weights reduce) do fit"
        )
    if found.extraction_s > LONG_S:
        told.append(
            "extraction takes days: it may be interrupted and continued; a GPU or a faster "
            "--profile shortens it"
        )
    return told


def _gigabytes(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.1f} GB"
