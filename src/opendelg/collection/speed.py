"""How fast this machine makes and searches an index of global descriptors, measured on some."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from opendelg.collection.combined import CombinedIndex, LiveSegment
from opendelg.collection.current_index import SEGMENT_ROWS
from opendelg.collection.nearest import NearestIndex, Stamp
from opendelg.collection.segments import SegmentStamp, open_segment, write_segment

_ROWS = 16_384  # measured on, at most: 128 MiB of 2048 columns
_DIRECTIONS = 128  # that descriptors differ in; those of photos do not fill their space
_PER_CENTRE = 50  # descriptors that are alike
_SEARCHES = 5
_K = 100


Make = Callable[[Path, np.ndarray, np.ndarray], CombinedIndex]


@dataclass(frozen=True)
class IndexSpeed:
    """Seconds of an index of a size."""

    making: float  # without reading the catalogue
    search: float  # one query, descriptors in memory


def measure_speed(num_images: int, num_dimensions: int) -> IndexSpeed:
    """Make and search an index of made-up descriptors, smaller than the one asked about.

    Args:
        num_images: In the index, at least 1; times are scaled to that.
        num_dimensions: Of a global descriptor.

    Raises:
        OSError: If the folder for temporary files has no room.
    """
    num_segments, num_exact = divmod(num_images, SEGMENT_ROWS)
    parts = [_measure(_exact, num_exact, num_dimensions)] if num_exact else []
    if num_segments:
        parts.append(_measure(_coded, num_segments * SEGMENT_ROWS, num_dimensions))
    return IndexSpeed(sum(part.making for part in parts), sum(part.search for part in parts))


def _measure(make: Make, num_images: int, num_dimensions: int) -> IndexSpeed:
    rows = made_up(min(num_images, _ROWS), num_dimensions)
    with TemporaryDirectory(prefix="delg-") as folder:
        started = time.perf_counter()
        index = make(Path(folder), np.arange(1, len(rows) + 1), rows)
        making = time.perf_counter() - started
        scans, searches = [], []
        for query in made_up(_SEARCHES, num_dimensions, seed=1):
            started = time.perf_counter()
            for live in index.segments:
                live.candidates(query, live.segment.num_candidates)
            scanned = time.perf_counter()
            index.search(query, _K)
            searches.append(time.perf_counter() - scanned)
            scans.append(scanned - started if index.segments else searches[-1])
    scale = num_images / len(rows)
    # As many candidates are measured exactly whatever the size is.
    scan, search = float(np.median(scans)), float(np.median(searches))
    return IndexSpeed(scale * making, scale * scan + max(0.0, search - scan))


def made_up(count: int, num_dimensions: int, seed: int = 0) -> np.ndarray:
    """Descriptors (count, D) float32 of unit length, in clusters as those of photos are."""
    shape = np.random.default_rng(0)
    basis = shape.standard_normal((_DIRECTIONS, num_dimensions), np.float32)
    centres = shape.standard_normal((_ROWS // _PER_CENTRE, _DIRECTIONS), np.float32)
    rng = np.random.default_rng((1, seed))
    owners = rng.integers(0, len(centres), count)
    rows = (centres[owners] + 0.7 * rng.standard_normal((count, _DIRECTIONS), np.float32)) @ basis
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows)


def _exact(folder: Path, ids: np.ndarray, rows: np.ndarray) -> CombinedIndex:
    index = NearestIndex(rows.shape[1])
    index.extend(ids, rows)
    index.save(folder / "nearest", Stamp("0" * 32, 0, len(ids), len(ids), 0))
    return CombinedIndex([], [index])


def _coded(folder: Path, ids: np.ndarray, rows: np.ndarray) -> CombinedIndex:
    segment = open_segment(write_segment(folder, SegmentStamp("0" * 32, 0, 0, 0), ids, rows))
    assert segment is not None
    return CombinedIndex([LiveSegment(segment, np.ones(len(ids), bool))], [])
