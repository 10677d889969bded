"""Indexing and searching on a cluster against a folder, and what that means for 100 million photos.

    PYTHONPATH=. python benchmarks/cluster.py PHOTOS --count 96 --profile fast

Starts Milvus, an S3 store and Ray on this machine, as the tests do (`make test-cluster` installs
them).  Each run indexes the same photos with one CPU thread a network: the plain command's way into
a folder and into the cluster, then one and two Ray workers, warm; all of it in turn, --rounds
times, and the medians count.  Then made-up rows tell how fast Milvus takes them and searches them.
The model below multiplies what was measured; nothing of it was run at that size.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tests.cluster_services import RayNodes, Services

from opendelg import indexing_ray
from opendelg.collection import Collection
from opendelg.extraction import profile
from opendelg.image import find_images
from opendelg.indexing import index_photos, plan_indexing
from opendelg.recipes import make_extractor, recipe_of
from opendelg.search import SearchConfig, Searcher
from opendelg.weights import DEFAULT_MODEL

SIZES = (1, 10, 100, 1000)  # million images
QUERIES = 20
ROWS = 1000  # of one request


def main() -> None:
    """Measure, then multiply."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--count", type=int, default=96)
    parser.add_argument("--profile", default="fast")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=100_000, help="made-up rows in Milvus")
    parser.add_argument("--core-hour", type=float, default=0.04, help="price, as you pay it")
    parser.add_argument("--gb-month", type=float, default=0.023, help="price in the S3 store")
    arguments = parser.parse_args()
    photos = find_images([arguments.photos])[: arguments.count]
    extractor = make_extractor(arguments.model, profile(arguments.profile), "cpu", threads=1)
    extractor.extract(extractor_image(photos[0]))
    indexing_ray.TASK_IMAGES = 8
    with tempfile.TemporaryDirectory() as folder:
        services = Services(Path(folder) / "milvus")
        try:
            found = measure(extractor, photos, services, Path(folder), arguments.rounds)
            found |= rows_in_milvus(services, arguments.rows, extractor)
        finally:
            services.stop()
    print(json.dumps(found, indent=1))
    print_model(found, arguments.core_hour, arguments.gb_month)


def extractor_image(path: Path) -> Any:
    """The decoded photo."""
    from opendelg.image import read_image

    return read_image(path)


def measure(
    extractor: Any, photos: list[Path], services: Services, folder: Path, rounds: int
) -> dict[str, float]:
    """Photos a second of each way, and what search and storage take."""
    rates: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds):
        rates["folder"].append(rate(extractor, photos, str(folder / f"c{number}")))
        rates["cluster"].append(rate(extractor, photos, services.address(f"plain{number}")))
        for workers in (1, 2):
            name = f"ray{workers}_{number}"
            rates[f"ray {workers}"].append(ray_rate(extractor, photos, services, workers, name))
    for name, values in rates.items():
        print(name, [round(value, 2) for value in values], file=sys.stderr)
    found = {
        f"photos/s, {name}": round(statistics.median(values), 3) for name, values in rates.items()
    }
    with Collection.open(services.address("plain0"), read_only=True) as collection:
        info = collection.info()
        rows = 4 * (info.global_dimensions or 0)
        found["bytes/image in S3"] = round(info.num_bytes / info.num_images - rows)
        found["bytes/image of the global descriptor"] = rows
    for consistency in ("strong", "bounded"):
        location = services.address("plain0", consistency=consistency)
        for stage, value in latencies(extractor, location, len(photos)).items():
            found[f"s/query, {consistency}, {stage}"] = round(value, 4)
    return found


def rate(extractor: Any, photos: list[Path], location: str) -> float:
    """Photos a second of the plain command."""
    with Collection.create(location, recipe_of(extractor)) as collection:
        index_photos(collection, extractor, plan_indexing(collection, photos[:1]))
        return timed(collection, photos, lambda plan: index_photos(collection, extractor, plan))


def ray_rate(
    extractor: Any, photos: list[Path], services: Services, workers: int, name: str
) -> float:
    """Photos a second of so many Ray workers that have their network already."""
    import ray

    nodes = RayNodes(workers)
    ray.init(address=nodes.address, log_to_driver=False)  # one job: its workers stay warm
    result = 0.0
    try:
        for prefix, some in (("warm_", photos[:32]), ("", photos)):
            location = services.address(f"{prefix}{name}")
            with Collection.create(location, recipe_of(extractor)) as collection:

                def on_ray(plan: Any, to: Collection = collection) -> object:
                    return indexing_ray.index_on_ray(to, extractor, plan, nodes.address)

                on_ray(plan_indexing(collection, some[:1]))
                result = timed(collection, some, on_ray)
    finally:
        ray.shutdown()
        nodes.stop()
    return result


def timed(collection: Collection, photos: list[Path], index: Callable[[Any], object]) -> float:
    """Photos a second; Milvus has its tables already, which takes seconds, once."""
    plan = plan_indexing(collection, photos)
    started = time.perf_counter()
    index(plan)
    return len(plan.new) / (time.perf_counter() - started)


def latencies(extractor: Any, location: str, count: int) -> dict[str, float]:
    """Median seconds of the stages of a search, features not in the cache the first time."""
    with Collection.open(location, read_only=True) as collection:
        searcher = Searcher(collection, extractor, SearchConfig(rerank=100))
        searches = [searcher.search_stored(1 + n % count).seconds for n in range(QUERIES)]
    return {
        "nearest": statistics.median(seconds["nearest"] for seconds in searches),
        "reading features, first": searches[0]["read"],
        "reading features, cached": statistics.median(seconds["read"] for seconds in searches[1:]),
    }


def rows_in_milvus(services: Services, count: int, extractor: Any) -> dict[str, float]:
    """How fast Milvus takes rows, and finds 100 of them by each index."""
    from pymilvus import MilvusClient

    num_dimensions = extractor.runtime.architecture.num_global_dimensions
    client = MilvusClient(f"http://127.0.0.1:{services.milvus.port}", timeout=60)
    rows = np.random.default_rng(0).standard_normal((count, num_dimensions), np.float32)
    found: dict[str, float] = {}
    for index, build in (("FLAT", {}), ("HNSW", {"M": 32, "efConstruction": 200})):
        client.create_collection(index, num_dimensions, metric_type="IP", auto_id=False)
        client.release_collection(index)
        client.drop_index(index, "vector")
        started = time.perf_counter()
        for start in range(0, count, ROWS):
            ids = range(start, min(start + ROWS, count))
            client.upsert(index, [{"id": n, "vector": rows[n]} for n in ids])
        found["rows/s into Milvus"] = round(count / (time.perf_counter() - started))
        client.flush(index, timeout=600)
        wanted = client.prepare_index_params()
        wanted.add_index("vector", index_type=index, metric_type="IP", params=build)
        client.create_index(index, wanted, timeout=1800)
        client.load_collection(index, timeout=600)
        seconds = [timed_search(client, index, rows[n]) for n in range(2 * QUERIES)]
        found[f"s/search of {count} rows, {index}"] = round(statistics.median(seconds[QUERIES:]), 4)
        client.drop_collection(index)
    return found


def timed_search(client: Any, table: str, query: np.ndarray) -> float:
    """Seconds of one search for 100 rows."""
    started = time.perf_counter()
    client.search(
        table,
        [query],
        limit=100,
        search_params={"metric_type": "IP", "params": {"ef": 256}},
        consistency_level="Bounded",
    )
    return time.perf_counter() - started


def print_model(found: dict[str, float], core_hour: float, gb_month: float) -> None:
    """What follows for many photos, if all grows in proportion."""
    per_core = found["photos/s, ray 2"] / 2
    print(
        f"\nmodel, from {per_core:.2f} photos/s a core, {core_hour} a core hour and {gb_month} a "
        "GB and month; not run at these sizes",
        file=sys.stderr,
    )
    print(
        "million  core hours  hours on 1000 cores  cost  TB in S3  a month  GB of descriptors  "
        "hours into Milvus"
    )
    for size in SIZES:
        images = size * 1e6
        core_hours = images / per_core / 3600
        gigabytes = images * found["bytes/image in S3"] / 1e9
        print(
            f"{size:7d}  {core_hours:10.0f}  {core_hours / 1000:19.2f}  "
            f"{core_hours * core_hour:4.0f}  {gigabytes / 1e3:8.2f}  "
            f"{gigabytes * gb_month:7.0f}  "
            f"{images * found['bytes/image of the global descriptor'] / 1e9:17.0f}  "
            f"{images / found['rows/s into Milvus'] / 3600:17.2f}"
        )


if __name__ == "__main__":
    main()
