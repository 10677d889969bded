"""How far the probability `same` can be trusted: right results found, and wrong ones believed.

    python benchmarks/confidence.py --csv smvs_landmarks.csv --images smvs_landmarks/ [--json]

Every query of a groups table (columns image, group, role) searches the database images.  Counted
are the queries whose best right result reaches a probability, and those that would have a wrong
one of that probability if the right photos were missing.
"""

import argparse
import json
import tempfile
from pathlib import Path

from opendelg.collection import Collection
from opendelg.datasets.groups import GroupsDataset, read_groups
from opendelg.image import read_image
from opendelg.indexing import index_photos, plan_indexing
from opendelg.recipes import make_extractor, recipe_of
from opendelg.search import SearchConfig, Searcher
from opendelg.weights import DEFAULT_MODEL

PROBABILITIES = (0.5, 0.9)


def main() -> None:
    """Measure, then print one line per probability or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--csv", type=Path, required=True, help="table: image,group,role")
    parser.add_argument("--images", type=Path, required=True, help="folder its names start from")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="name or file")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    best = best_probabilities(read_groups(options.csv, options.images), options.model)
    counts = {
        str(least): {
            "right": sum(right >= least for right, _ in best),
            "wrong": sum(wrong >= least for _, wrong in best),
        }
        for least in PROBABILITIES
    }
    if options.json:
        print(json.dumps({"queries": len(best), "at_least": counts}))
        return
    for least, count in counts.items():
        print(
            f"same >= {least}: a right result for {count['right']} of {len(best)} queries, "
            f"a wrong one for {count['wrong']}"
        )


def best_probabilities(dataset: GroupsDataset, model: str) -> list[tuple[float, float]]:
    """Highest `same` of a right and of a wrong result, per query; 0 where there is none."""
    extractor = make_extractor(model)
    group_of = {dataset.path(row).resolve(): group for row, group in enumerate(dataset.groups)}
    photos = [dataset.path(int(row)) for row in dataset.database_ids]
    found = []
    with tempfile.TemporaryDirectory(prefix="delg-") as folder:
        made = Collection.create(Path(folder), recipe_of(extractor), extractor.config.precision)
        with made as collection:
            index_photos(collection, extractor, plan_indexing(collection, photos))
            searcher = Searcher(collection, extractor, SearchConfig(top=100))
            for query in (dataset.path(int(row)).resolve() for row in dataset.query_ids):
                best = {True: 0.0, False: 0.0}
                for result in searcher.search(read_image(query)).results:
                    photo = result.image.path.resolve()
                    is_right = group_of[photo] == group_of[query]
                    if photo != query and result.candidate.same is not None:
                        best[is_right] = max(best[is_right], result.candidate.same)
                found.append((best[True], best[False]))
    return found


if __name__ == "__main__":
    main()
