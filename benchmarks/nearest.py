"""A large collection's nearest neighbours: opening, memory, recall and time against exact search.

    python benchmarks/nearest.py --images 1000000 --folder DIR  (17 GB)

The collection is kept for the next time.  Its descriptors are made up, clustered like those of
real photos: an image is a centre that about 50 share, with noise, in a space of 128 directions of
all, and a little noise everywhere; queries are such images too.  The collection is one of
`delg index` in all but the photos, and is opened and searched by another process, whose memory is
told.  Exact search is on the same descriptors in memory: faiss's, on one thread as the
collection's, and NumPy's matrix product, on all.  All take turns.
"""

import argparse
import json
import multiprocessing
import statistics
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

import faiss
import numpy as np

from opendelg.collection import Collection, FileStat, Recipe
from opendelg.features import ImageFeatures, LocalFeatures

DIRECTIONS = 128
IMAGES_PER_CENTRE = 50
BLOCK = 10_000
K = 100


class MadeUp:
    """Descriptors by block, the same at every call."""

    def __init__(self, num_images: int, num_dimensions: int) -> None:
        random = np.random.default_rng(0)
        self.shape = num_images, num_dimensions
        self.basis = random.standard_normal((DIRECTIONS, num_dimensions), np.float32)
        self.basis /= np.sqrt(num_dimensions)
        num_centres = max(1, num_images // IMAGES_PER_CENTRE)
        self.centres = random.standard_normal((num_centres, DIRECTIONS), np.float32)

    def block(self, number: int, count: int = BLOCK) -> np.ndarray:
        """(count, D) float32, unit length."""
        random = np.random.default_rng((1, number))
        owners = random.integers(0, len(self.centres), count)
        noise = random.standard_normal((count, DIRECTIONS), np.float32)
        rows = (self.centres[owners] + 0.7 * noise) @ self.basis
        rows += 0.03 * random.standard_normal(rows.shape, np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows

    def queries(self, count: int) -> np.ndarray:
        """(count, D) float32, none of them in a block."""
        return self.block(10**9, count)


def main() -> None:
    """Make the collection if it is not there, then measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--dimensions", type=int, default=2048)
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    made_up = MadeUp(options.images, options.dimensions)
    started = time.perf_counter()
    fill(options.folder, made_up)
    filled = time.perf_counter() - started
    queries = made_up.queries(options.queries)
    receiver, sender = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=search, args=(options.folder, queries, sender)
    )
    process.start()
    result = receiver.recv()
    descriptors = np.empty(made_up.shape, np.float32)
    for number, start in enumerate(range(0, options.images, BLOCK)):
        block = descriptors[start : start + BLOCK]
        block[:] = made_up.block(number, len(block))
    recalls, fast, by_faiss, by_product = [], [], [], []
    for query in queries:
        receiver.send(query)
        found, seconds = receiver.recv()
        fast.append(seconds)
        started = time.perf_counter()
        _, expected = faiss.knn(query[None], descriptors, K, metric=faiss.METRIC_INNER_PRODUCT)
        by_faiss.append(time.perf_counter() - started)
        recalls.append(np.isin(expected[0] + 1, found).mean())  # ids count from 1
        started = time.perf_counter()
        np.argpartition(descriptors @ query, -K)
        by_product.append(time.perf_counter() - started)
    receiver.send(None)
    memory_bytes = receiver.recv()
    process.join()
    result |= {
        "images": options.images,
        "dimensions": options.dimensions,
        "filled_s": filled,
        "memory_bytes": memory_bytes,
        "recall_at_100": float(np.mean(recalls)),
        "search_s": statistics.median(fast),
        "exact_faiss_s": statistics.median(by_faiss),
        "exact_product_s": statistics.median(by_product),
    }
    print(json.dumps(result, indent=1))


def fill(folder: Path, made_up: MadeUp) -> None:
    """Add the images that the collection lacks."""
    num_images, _ = made_up.shape
    if not Collection.exists(folder):
        Collection.create(folder, Recipe("made up", "0" * 64, {}, {})).close()
    with Collection.open(folder) as collection:
        for start in range(len(collection), num_images, BLOCK):
            with collection.batch():
                block = made_up.block(start // BLOCK, min(BLOCK, num_images - start))
                for position, row in enumerate(block, start=start):
                    path = folder / f"{position}.jpg"
                    features = ImageFeatures((640, 480), row, LocalFeatures.empty(128))
                    collection.add(path, folder, FileStat(1, 1, None), features)
            print(f"{start + len(block)} of {num_images}", file=sys.stderr)
        collection.update_index()


def search(folder: Path, queries: np.ndarray, pipe: Connection) -> None:
    """Open the collection, search once, then answer whoever asks; tells the memory at the end."""
    started = time.perf_counter()
    with Collection.open(folder, read_only=True) as collection:
        collection.nearest(queries[0], K)
        pipe.send(
            {
                "open_and_first_search_s": time.perf_counter() - started,
                "search": collection.info().search,
            }
        )
        while (query := pipe.recv()) is not None:
            started = time.perf_counter()
            ids, _ = collection.nearest(query, K)
            pipe.send((ids, time.perf_counter() - started))
        pipe.send(memory())


def memory() -> dict[str, int]:
    """Bytes that this process holds, and those of mapped files, which the system may take back.

    Not `getrusage`, whose peak a process inherits from the one that started it.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return {name: 1024 * int(fields[name].split()[0]) for name in ("RssAnon", "RssFile")}


if __name__ == "__main__":
    main()
