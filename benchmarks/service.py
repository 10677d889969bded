"""The service under load, against the library alone: throughput, times of answers, memory.

    delg index PHOTOS --collection PHOTOS.delg
    python benchmarks/service.py --collection PHOTOS.delg --queries FOLDER [--seconds 60]

A collection of 10,000 images is made in a temporary folder: features of the given one, repeated
under global descriptors with noise.  The library searches with the queries one after the other,
before and after the service; the service is a process of its own, and 8 clients send it photos as
fast as it answers.  Every photo that is sent differs in its last bytes, so that none is known.
"""

import argparse
import itertools
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from opendelg.client import Client, ServiceError
from opendelg.collection import Collection, FileStat
from opendelg.features import ImageFeatures
from opendelg.image import read_image
from opendelg.recipes import extractor_for
from opendelg.search import Searcher

NOISE = 0.02  # standard deviation of each coordinate of a repeated descriptor
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
LOOK_SECONDS = 1.0  # between two looks at the memory


def main() -> None:
    """Measure, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--collection", type=Path, required=True, help="made by delg index")
    parser.add_argument("--queries", type=Path, required=True, help="folder of JPEG photos")
    parser.add_argument("--images", type=int, default=10_000, help="of the collection searched")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    photos = [path.read_bytes() for path in sorted(options.queries.glob("*.jpg"))]
    if not photos:
        parser.error(f"queries must hold JPEG photos, got none in {str(options.queries)!r}")
    with tempfile.TemporaryDirectory() as folder:
        large = Path(folder) / "large.delg"
        repeat_images(options.collection, large, options.images)
        first = library_rate(large, photos, options.seconds / 3)
        load = serve_and_load(large, photos, options.clients, options.seconds)
        second = library_rate(large, photos, options.seconds / 3)
    report(load, first, second)


def repeat_images(source: Path, folder: Path, count: int) -> None:
    """A collection of ``count`` images made of the features of another."""
    random = np.random.default_rng(0)
    with (
        Collection.open(source, read_only=True) as known,
        Collection.create(folder, known.recipe, "int8") as made,
    ):
        ids = known.ids()
        images = known.images(ids)
        local = known.local_features(ids)
        descriptors = [known.global_descriptor(int(image_id)) for image_id in ids]
        root = folder.parent.resolve() / "photos"
        with made.batch():
            for number in range(count):
                kind = number % len(images)
                noisy = descriptors[kind] + random.normal(0, NOISE, descriptors[kind].shape)
                features = ImageFeatures(
                    images[kind].size,
                    (noisy / np.linalg.norm(noisy)).astype(np.float32),
                    local[kind],
                )
                made.add(root / f"{number}.jpg", root, FileStat(1, number, "0" * 64), features)
        made.update_index()


def library_rate(folder: Path, photos: list[bytes], seconds: float) -> float:
    """Searches per second of the library alone, one after the other."""
    with Collection.open(folder, read_only=True) as opened:
        extractor = extractor_for(opened, "cpu")
        searcher = Searcher(opened, extractor)
        draft = extractor.config.draft_size
        searcher.search(read_image(photos[0], draft_size=draft))
        started, count = time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            searcher.search(read_image(photos[count % len(photos)], draft_size=draft))
            count += 1
        return count / (time.perf_counter() - started)


@dataclass
class Load:
    """What the clients and the machine saw."""

    times: list[float] = field(default_factory=list)  # s of each answer
    refusals: Counter[int] = field(default_factory=Counter)  # by status
    memory: list[int] = field(default_factory=list)  # bytes resident, once a second
    seconds: float = 0.0  # from the first request to the last answer
    cached: float = 0.0  # bytes of queries kept at the end


def serve_and_load(folder: Path, photos: list[bytes], clients: int, seconds: float) -> Load:
    """Start the service, let clients search for a while, and stop it."""
    command = [sys.executable, "-m", "opendelg", "serve", str(folder), "--port", "0"]
    process = subprocess.Popen([*command, "--device", "cpu"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://\S+", line)
        if found is None:
            raise SystemExit(f"the service must start, got {line!r}")
        url = found.group().rstrip("/")
        load, numbers = Load(), itertools.count()
        with Client(url) as client:  # warm
            client.search(photos[0])
        started = time.perf_counter()
        end = started + seconds
        threads = [
            threading.Thread(target=search_until, args=(url, photos, numbers, end, load))
            for _ in range(clients)
        ]
        for thread in threads:
            thread.start()
        while time.perf_counter() < end:
            load.memory.append(resident(process.pid))
            time.sleep(LOOK_SECONDS)
        for thread in threads:
            thread.join()
        load.seconds = time.perf_counter() - started
        with urllib.request.urlopen(f"{url}/metrics") as answer:
            text = answer.read().decode()
        (cached,) = re.findall(r"^delg_query_cache_bytes (\S+)", text, re.MULTILINE)
        load.cached = float(cached)
        return load
    finally:
        process.terminate()
        process.wait(60)


def search_until(
    url: str, photos: list[bytes], numbers: "itertools.count[int]", end: float, load: Load
) -> None:
    """One client: searches, one after the other, until the end."""
    with Client(url) as client:
        while time.perf_counter() < end:
            number = next(numbers)
            photo = photos[number % len(photos)] + number.to_bytes(8, "big")  # after its end
            started = time.perf_counter()
            try:
                client.search(photo)
            except ServiceError as error:
                load.refusals[error.status] += 1
                time.sleep(error.retry_after or 0.0)
            else:
                load.times.append(time.perf_counter() - started)


def resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES


def report(load: Load, first: float, second: float) -> None:
    """Print what was measured."""
    library = (first + second) / 2
    rate = len(load.times) / load.seconds
    p50, p95 = (
        statistics.quantiles(load.times, n=100)[percent - 1] if len(load.times) > 1 else np.nan
        for percent in (50, 95)
    )
    refusals = ", ".join(f"{n} of status {status}" for status, n in load.refusals.items())
    megabytes = [value / 2**20 for value in load.memory]
    middle = len(megabytes) // 2
    print(f"library alone   {first:.2f} and {second:.2f} searches/s, before and after")
    print(f"service         {rate:.2f} searches/s, {100 * rate / library:.0f} % of the library")
    print(
        f"answers         {len(load.times)}, p50 {p50:.2f} s, p95 {p95:.2f} s, "
        f"refused: {refusals or 'none'}"
    )
    print(
        f"memory          {megabytes[0]:.0f} MB at first, {megabytes[middle]:.0f} MB half way, "
        f"{megabytes[-1]:.0f} MB at the end, of them {load.cached / 2**20:.0f} MB of queries kept"
    )


if __name__ == "__main__":
    main()
