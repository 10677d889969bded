r"""Bytes of a photo's features against the quality of search, every precision and several numbers.

    python benchmarks/budget.py --table smvs_landmarks.csv smvs_landmarks/ \
        --table uva.csv uva/ --features DIR

Photos are extracted once, in the profile's scales and 1000 keypoints, and kept in DIR.  Each
setting then gets a collection of its own, of the database photos of all tables together; product
quantisation learns on these as `delg index` does.  A query keeps its features as extracted, in
float16, but as few of them as the database's photos have; it ranks the database of its own table,
with 100 candidates verified.  Bytes are those of the catalogue for each photo.
"""

import argparse
import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from opendelg.cli.progress import progress
from opendelg.collection import PRECISIONS, Collection, FileStat, Precision
from opendelg.datasets.groups import GroupsDataset, read_groups
from opendelg.evaluation.groups import index_whole, plan_groups, stored_ids
from opendelg.evaluation.preparation import PreparedDatabase
from opendelg.evaluation.reranking import StoredDatabase, verified_ranking
from opendelg.extraction import Extractor, profile
from opendelg.features import ImageFeatures, LocalFeatures
from opendelg.metrics.retrieval import mean_scores
from opendelg.recipes import make_extractor, recipe_of
from opendelg.search import SearchConfig
from opendelg.weights import DEFAULT_MODEL

KEYPOINTS = (1000, 500, 250, 125)
RECALL_AT = (1, 10)


class Photos:
    """The photos of one table with their features as extracted."""

    def __init__(self, name: str, dataset: GroupsDataset, kept: Collection) -> None:
        """Read the features of all photos from the collection that has them."""
        self.name = name
        self.dataset = dataset
        self.paths = [dataset.path(number) for number in range(len(dataset.names))]
        ids = stored_ids(kept, self.paths)
        self.features = [
            ImageFeatures(image.size, kept.global_descriptor(image.id), local)
            for image, local in zip(kept.images(ids), kept.local_features(ids), strict=True)
        ]

    def cut(self, number: int, num_keypoints: int) -> ImageFeatures:
        """Features of one photo with its best keypoints only."""
        whole, best = self.features[number], slice(num_keypoints)
        local = whole.local
        return replace(
            whole,
            local=LocalFeatures(
                local.keypoints[best],
                local.descriptors[best],
                local.scores[best],
                local.scales[best],
            ),
        )


def main() -> None:
    """Extract what is not there, then measure setting by setting; one JSON object a line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", nargs=2, type=Path, action="append", required=True)
    parser.add_argument("--features", type=Path, required=True, help="folder to keep them in")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="name or file")
    options = parser.parse_args()
    config = replace(profile("balanced"), precision="float16")
    extractor = make_extractor(options.model, config)
    recipe = recipe_of(extractor)
    exists = Collection.exists(options.features)
    with (
        Collection.open(options.features)
        if exists
        else Collection.create(options.features, recipe, "float16")
    ) as kept:
        kept.require_recipe(recipe)
        tables = []
        for table, folder in options.table:
            dataset = read_groups(table, folder)
            plan = plan_groups(dataset, kept)
            with progress("extracting", len(plan.work(update=True))) as advance:
                index_whole(kept, extractor, plan, advance)
            tables.append(Photos(table.stem, dataset, kept))
    for num_keypoints in KEYPOINTS:
        for precision in PRECISIONS:
            print(json.dumps(measure(tables, extractor, precision, num_keypoints)), flush=True)


def measure(
    tables: list[Photos], extractor: Extractor, precision: Precision, num_keypoints: int
) -> dict[str, object]:
    """Bytes and figures of one setting."""
    recipe, config = recipe_of(extractor), SearchConfig()
    result: dict[str, object] = {"features": precision, "keypoints": num_keypoints}
    with TemporaryDirectory(prefix="delg-") as folder:
        with Collection.create(Path(folder), recipe, precision) as made:
            with made.batch():
                for photos in tables:
                    for number in photos.dataset.database_ids:
                        path = photos.paths[number].resolve()
                        stat = FileStat(1, 1, "0" * 64)
                        made.add(path, path.parent, stat, photos.cut(number, num_keypoints))
            num_images = len(made)
            for photos in tables:
                result[photos.name] = figures(photos, made, extractor, config, num_keypoints)
        size = os.path.getsize(Path(folder, "catalogue.sqlite"))
    return result | {"bytes_per_image": round(size / num_images)}


def figures(
    photos: Photos,
    made: Collection,
    extractor: Extractor,
    config: SearchConfig,
    num_keypoints: int,
) -> dict[str, float]:
    """Mean average precision and recall after verification, in percent."""
    rows = photos.dataset.database_ids
    stored = stored_ids(made, [photos.paths[number] for number in rows])
    descriptors = np.stack([photos.features[number].global_descriptor for number in rows])
    database = StoredDatabase(made, extractor, config, stored, descriptors)
    prepared = PreparedDatabase(descriptors)
    rankings = []
    for number in photos.dataset.query_ids:
        query = photos.cut(number, num_keypoints)
        own = int(np.flatnonzero(rows == number)[0]) if number in rows else -1
        similarities = prepared.similarities(query.global_descriptor[None], np.array([own]))[0]
        ranking = verified_ranking(
            prepared,
            query.global_descriptor,
            similarities,
            partial(database.compare, query),
            config,
            own,
        )
        rankings.append(rows[ranking.ids])
    scores = mean_scores(rankings, photos.dataset.positives, RECALL_AT)
    recalls = {f"R@{k}": round(100 * value, 1) for k, value in scores.recall_at.items()}
    return {"mAP": round(100 * scores.mean_average_precision, 1)} | recalls


if __name__ == "__main__":
    main()
