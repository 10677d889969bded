"""Memory and time of ranking the published million of distractors, with made-up descriptors.

    python benchmarks/million.py [--images 1001001] [--folder DIR]

Random descriptors of 2048 dimensions are written into shards as `delg evaluate rparis6k
--distractors r1m` writes them, and 70 queries are ranked against them and 6,322 database images
by the same code.  The shards take 8.2 GB, in a temporary folder that is deleted at the end.
Peak memory is that of the whole process, writing included.

1,001,001 images on 2 cores that others used too: written in 464 s, 70 queries ranked in 157 s, peak
memory 0.60 GB.
"""

import argparse
import resource
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np

from opendelg.collection import Collection, Recipe
from opendelg.datasets.revisited import OFFICIAL, RevisitedDataset
from opendelg.evaluation.distractor_sources import PhotoFolder
from opendelg.evaluation.distractors import NUM_R1M, Distractors
from opendelg.evaluation.revisited_database import RevisitedDatabase
from opendelg.evaluation.shards import SHARD_IMAGES, Draft, Shards
from opendelg.extraction import Extractor
from opendelg.features import ImageFeatures, LocalFeatures

NUM_DIMENSIONS = 2048
KEPT = 400  # 100 that are verified, and the junk of a query


def main() -> None:
    """Write, rank, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=NUM_R1M)
    parser.add_argument("--folder", type=Path, help="where there is room for the shards")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    with TemporaryDirectory(prefix="delg-million-", dir=options.folder) as folder:
        started = time.perf_counter()
        recipe = Recipe("made up", "0" * 64, {}, {})
        shards = Shards(Path(folder, "shards"), recipe)
        shards.folder.mkdir()
        write_shards(shards, options.images, rng)
        written = time.perf_counter()
        print(f"{len(shards):,} descriptors written in {written - started:.0f} s")
        with Collection.create(Path(folder, "collection"), recipe) as collection:
            database = made_up_database(shards, collection, rng)
            queries = unit_rows(rng, OFFICIAL["rparis6k"][0])
            judged = [np.sort(rng.choice(6322, 348, replace=False)) for _ in queries]
            rankings = database.rank(queries, judged, KEPT)
        print(f"{len(rankings)} queries ranked in {time.perf_counter() - written:.0f} s")
        print(f"last position of a judged image: {max(r.positions[-1] for r in rankings):,}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"peak memory: {peak / 1e9:.2f} GB")


def write_shards(shards: Shards, count: int, rng: np.random.Generator) -> None:
    """Fill shards with random descriptors."""
    nothing = LocalFeatures.empty(128)
    for start in range(0, count, SHARD_IMAGES):
        draft = Draft()
        rows = unit_rows(rng, min(SHARD_IMAGES, count - start))
        for number, row in enumerate(rows, start):
            name = f"revisitop1m.{number // 10_010 + 1}.tar.gz/{number:032x}.jpg"
            draft.add(name, ImageFeatures((1024, 768), row, nothing))
        shards.append(draft)


def made_up_database(
    shards: Shards, collection: Collection, rng: np.random.Generator
) -> RevisitedDatabase:
    """As many images as Revisited Paris has, with the shards behind them."""
    count = OFFICIAL["rparis6k"][1]
    names = tuple(map(str, range(count)))
    dataset = RevisitedDataset("rparis6k", Path("none"), names, (), np.zeros((0, 4)), (), (), ())
    everything = np.ones(len(shards), bool)
    # Nothing is extracted: verification is not part of this.
    extractor = cast(Extractor, cast(Any, None))
    source = PhotoFolder(shards.folder, ())
    distractors = Distractors(source, shards, everything, collection, extractor)
    ids = np.arange(count)
    return RevisitedDatabase(dataset, collection, ids, ids, unit_rows(rng, count), distractors)


def unit_rows(rng: np.random.Generator, count: int) -> np.ndarray:
    """Random descriptors (count, 2048) float32 of unit length."""
    rows: np.ndarray = rng.standard_normal((count, NUM_DIMENSIONS), np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


if __name__ == "__main__":
    main()
