r"""What shorter global descriptors cost in the first stage of search.

    python benchmarks/reduction.py --learn photos/ --dimensions 256 128 64 \
        --table smvs_landmarks.csv smvs_landmarks/ --table uva.csv uva/

Axes are learnt on the photos of --learn, and the reduced models extract the tables' photos: what
`delg weights reduce` and `delg evaluate groups --model ... --rerank 0` do.
"""

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from opendelg.cli.progress import progress
from opendelg.datasets.groups import GroupsDataset, read_groups
from opendelg.evaluation.preparation import PreparedDatabase
from opendelg.evaluation.reranking import ranking_of
from opendelg.extraction import Extractor
from opendelg.image import find_images, read_image
from opendelg.metrics.retrieval import mean_scores
from opendelg.recipes import make_extractor
from opendelg.reduction import chosen, learn_axes, write_reduced
from opendelg.weights import DEFAULT_MODEL

RECALL_AT = (1, 10)


def main() -> None:
    """Measure the model itself and each reduced one; one JSON object a line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", nargs=2, type=Path, action="append", required=True)
    parser.add_argument("--learn", type=Path, required=True, help="photos, none of the tables'")
    parser.add_argument("--dimensions", nargs="+", type=int, default=[256, 128, 64])
    parser.add_argument("--model", default=DEFAULT_MODEL, help="name or file")
    options = parser.parse_args()
    tables = {table.stem: read_groups(table, folder) for table, folder in options.table}
    extractor = make_extractor(options.model)
    whole = extractor.runtime.architecture.num_global_dimensions
    print(json.dumps({"dimensions": whole} | measure(tables, extractor)), flush=True)
    photos = find_images([options.learn])
    largest = max(options.dimensions)
    with progress("learning", len(chosen(photos))) as advance:
        axes, _ = learn_axes(extractor, photos, largest, advance)
    for num_dimensions in options.dimensions:
        with TemporaryDirectory(prefix="delg-") as folder:
            path = Path(folder, "reduced.safetensors")
            # The strongest axes come first.
            write_reduced(extractor.weights, axes[:, :num_dimensions], 0.0, path)
            reduced = make_extractor(str(path))
            values = {"dimensions": num_dimensions} | measure(tables, reduced)
        print(json.dumps(values), flush=True)


def measure(tables: dict[str, GroupsDataset], extractor: Extractor) -> dict[str, object]:
    """Figures of the global stage by table, in percent."""
    return {name: figures(dataset, extractor) for name, dataset in tables.items()}


def figures(dataset: GroupsDataset, extractor: Extractor) -> dict[str, float]:
    """Mean average precision and recall."""
    draft = extractor.config.draft_size
    descriptors = np.stack(
        [
            extractor.extract(
                read_image(dataset.path(number), draft_size=draft), want_local=False
            ).global_descriptor
            for number in range(len(dataset.names))
        ]
    )
    rows = dataset.database_ids
    own = np.array([np.flatnonzero(rows == i)[0] if i in rows else -1 for i in dataset.query_ids])
    similarities = PreparedDatabase(descriptors[rows]).similarities(
        descriptors[dataset.query_ids], own
    )
    rankings = [rows[ranking_of(row).ids] for row in similarities]
    scores = mean_scores(rankings, dataset.positives, RECALL_AT)
    recalls = {f"R@{k}": round(100 * value, 1) for k, value in scores.recall_at.items()}
    return {"mAP": round(100 * scores.mean_average_precision, 1)} | recalls


if __name__ == "__main__":
    main()
