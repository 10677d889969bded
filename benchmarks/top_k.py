"""Exact neighbours of many queries among millions of descriptors on disk: time and memory.

    python benchmarks/top_k.py --images 761757 --queries 1129 --folder DIR  (1.6 GB; 2048: 6.2 GB)

The numbers of Google Landmarks v2 retrieval.  The descriptors are random; the queries are the
first of them, so each must find itself.
"""

import argparse
import json
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from opendelg.evaluation.top_k import BLOCK_ROWS, most_similar

MADE_ROWS = 10_000
K = 100


def main() -> None:
    """Write the descriptors if they are not there, then search."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=761_757)
    parser.add_argument("--dimensions", type=int, default=512)
    parser.add_argument("--queries", type=int, default=1129)
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    path = options.folder / f"{options.images}x{options.dimensions}.npy"
    if not path.exists():
        write(path, options.images, options.dimensions)
    table = np.load(path, mmap_mode="r")

    def blocks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, len(table), BLOCK_ROWS):
            rows = np.array(table[start : start + BLOCK_ROWS])
            yield np.arange(start, start + len(rows)), rows

    started, worked = time.perf_counter(), time.process_time()
    ids, _ = most_similar(np.array(table[: options.queries]), blocks, lambda ids: table[ids], K)
    result = {
        "seconds": time.perf_counter() - started,
        "core_seconds": time.process_time() - worked,
        # Mapped pages of the file are counted too, though the system may take them back.
        "memory_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "found_themselves": bool((ids[:, 0] == np.arange(options.queries)).all()),
    }
    print(json.dumps(result, indent=1))


def write(path: Path, num_images: int, num_dimensions: int) -> None:
    """Random descriptors (N, D) float32 of unit length."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    shape = num_images, num_dimensions
    table = np.lib.format.open_memmap(part, "w+", np.float32, shape)
    random = np.random.default_rng(0)
    for start in range(0, num_images, MADE_ROWS):
        rows = random.standard_normal((min(MADE_ROWS, num_images - start), num_dimensions))
        table[start : start + len(rows)] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    table.flush()
    part.rename(path)


if __name__ == "__main__":
    main()
