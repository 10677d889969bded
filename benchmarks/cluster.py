"""Indexing and searching on a cluster against a folder, and what that means for 100 million photos.

    PYTHONPATH=. python benchmarks/cluster.py PHOTOS --count 96 --profile fast

Starts Milvus, an S3 store and Ray on this machine, as the tests do (`make test-cluster` installs
them).  Each run indexes the same photos with one CPU thread a network: the plain command's way into
a folder and into the cluster, then one and two Ray workers, warm.  The model below multiplies what
was measured; nothing of it was run at that size.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tests.cluster_services import Services

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


def main() -> None:
    """Measure, then multiply."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--count", type=int, default=96)
    parser.add_argument("--profile", default="fast")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    arguments = parser.parse_args()
    photos = find_images([arguments.photos])[: arguments.count]
    extractor = make_extractor(arguments.model, profile(arguments.profile), "cpu", threads=1)
    extractor.extract(extractor_image(photos[0]))
    indexing_ray.TASK_IMAGES = 8
    with tempfile.TemporaryDirectory() as folder:
        services = Services(Path(folder) / "milvus")
        try:
            found = measure(extractor, photos, services, Path(folder))
        finally:
            services.stop()
    print(json.dumps(found, indent=1))
    print_model(found)


def extractor_image(path: Path) -> Any:
    """The decoded photo."""
    from opendelg.image import read_image

    return read_image(path)


def measure(
    extractor: Any, photos: list[Path], services: Services, folder: Path
) -> dict[str, float]:
    """Photos a second of each way, and what search and storage take."""
    rates = {
        "folder": rate(extractor, photos, str(folder / "c")),
        "cluster": rate(extractor, photos, services.address("plain")),
    }
    for workers in (1, 2):
        rates[f"ray {workers}"] = ray_rate(extractor, photos, services, workers)
    found = {f"photos/s, {name}": round(value, 3) for name, value in rates.items()}
    with Collection.open(services.address("plain"), read_only=True) as collection:
        info = collection.info()
        rows = 4 * (info.global_dimensions or 0)
        found["bytes/image in S3"] = round(info.num_bytes / info.num_images - rows)
        found["bytes/image of the global descriptor"] = rows
    for consistency in ("strong", "bounded"):
        location = services.address("plain", consistency=consistency)
        for stage, value in latencies(extractor, location, len(photos)).items():
            found[f"s/query, {consistency}, {stage}"] = round(value, 4)
    found["rows/s into Milvus"] = round(row_rate(services))
    return found


def rate(extractor: Any, photos: list[Path], location: str) -> float:
    """Photos a second of the plain command."""
    with Collection.create(location, recipe_of(extractor)) as collection:
        return timed(collection, photos, lambda plan: index_photos(collection, extractor, plan))


def ray_rate(extractor: Any, photos: list[Path], services: Services, workers: int) -> float:
    """Photos a second of so many Ray workers that have their network already."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for _ in range(workers):
        cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    result = 0.0
    try:
        for name, some in (("warm", photos[:32]), ("ray", photos)):
            location = services.address(f"{name}{workers}")
            with Collection.create(location, recipe_of(extractor)) as collection:

                def on_ray(plan: Any, to: Collection = collection) -> object:
                    return indexing_ray.index_on_ray(to, extractor, plan, cluster.address)

                result = timed(collection, some, on_ray)
    finally:
        ray.shutdown()
        cluster.shutdown()
    return result


def timed(collection: Collection, photos: list[Path], index: Callable[[Any], object]) -> float:
    """Photos a second."""
    plan = plan_indexing(collection, photos)
    started = time.perf_counter()
    index(plan)
    return len(photos) / (time.perf_counter() - started)


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


def row_rate(services: Services, count: int = 5000, num_dimensions: int = 2048) -> float:
    """Rows a second that one writer puts into Milvus."""
    from pymilvus import MilvusClient

    client = MilvusClient(f"http://127.0.0.1:{services.milvus.port}", timeout=30)
    client.create_collection("rows", num_dimensions, metric_type="IP")
    rows = np.random.default_rng(0).standard_normal((count, num_dimensions), np.float32)
    started = time.perf_counter()
    for start in range(0, count, 500):
        part = [{"id": n, "vector": rows[n]} for n in range(start, start + 500)]
        client.upsert("rows", part)
    return count / (time.perf_counter() - started)


def print_model(found: dict[str, float]) -> None:
    """What follows for many photos, if all grows in proportion."""
    per_core = found["photos/s, ray 2"] / 2
    print(f"\nmodel, from {per_core:.2f} photos/s a core; not run at these sizes", file=sys.stderr)
    print(
        "million  core hours  hours on 1000 cores  TB in S3  GB of descriptors  hours into Milvus"
    )
    for size in SIZES:
        images = size * 1e6
        core_hours = images / per_core / 3600
        print(
            f"{size:7d}  {core_hours:10.0f}  {core_hours / 1000:19.1f}  "
            f"{images * found['bytes/image in S3'] / 1e12:8.2f}  "
            f"{images * found['bytes/image of the global descriptor'] / 1e9:17.0f}  "
            f"{images / found['rows/s into Milvus'] / 3600:17.1f}"
        )


if __name__ == "__main__":
    main()
