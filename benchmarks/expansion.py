"""What query expansion, database augmentation and whitening gain, each and together.

    delg evaluate groups --csv FILE --images DIR --collection DIR
    python benchmarks/expansion.py --csv FILE --images DIR --collection DIR [--rerank 100]

Under the protocol of ``delg evaluate groups``, in percent: mean average precision and recall at 1
of the global stage and after verification.  The collection keeps the features, and a pair of
photos is verified once for all rows.
"""

import argparse
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from opendelg.candidates import Candidate, compare, settings_for
from opendelg.cli.progress import progress
from opendelg.collection import Collection
from opendelg.datasets.groups import GroupsDataset, read_groups
from opendelg.evaluation.groups import RECALL_AT
from opendelg.evaluation.preparation import PreparationConfig, PreparedDatabase
from opendelg.evaluation.reranking import verified_ranking
from opendelg.expansion import ExpansionConfig
from opendelg.extraction import Extractor
from opendelg.features import ImageFeatures
from opendelg.metrics.retrieval import RetrievalScores, mean_scores
from opendelg.recipes import extractor_for
from opendelg.search import SearchConfig
from opendelg.verification import Verification


@dataclass(frozen=True)
class Variant:
    """One row of the table."""

    name: str
    expansion: ExpansionConfig = field(default_factory=ExpansionConfig)
    preparation: PreparationConfig = field(default_factory=PreparationConfig)


def main() -> None:
    """Measure all variants, then print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--csv", type=Path, required=True, help="table: image,group,role")
    parser.add_argument("--images", type=Path, required=True, help="folder its paths start from")
    parser.add_argument("--collection", type=Path, required=True, help="holds their features")
    parser.add_argument("--rerank", type=int, default=100, help="candidates verified; 0: none")
    options = parser.parse_args()
    dataset = read_groups(options.csv, options.images)
    with Collection.open(options.collection, read_only=True) as collection:
        bench = Bench(dataset, collection, extractor_for(collection))
        print(f"{'':36}   mAP   R@1   verified: mAP   R@1")
        for variant in variants():
            cells = [
                f"{100 * scores.mean_average_precision:6.1f}{100 * scores.recall_at[1]:6.1f}"
                for scores in bench.scores(variant, options.rerank)
                if scores is not None
            ]
            print(f"{variant.name:36}{'          '.join(cells)}", flush=True)


def ranked_rows(row: np.ndarray) -> np.ndarray:
    """Rows of the database by similarity (N,), without the query's own."""
    order = np.argsort(-row, kind="stable")
    kept: np.ndarray = order[np.isfinite(row[order])]
    return kept


class Bench:
    """Queries and database of one table, each pair verified at most once."""

    def __init__(
        self, dataset: GroupsDataset, collection: Collection, extractor: Extractor
    ) -> None:
        self.extractor, self.collection = extractor, collection
        ids, descriptors = collection.global_descriptors()
        found = [collection.find(dataset.path(row)) for row in range(len(dataset.names))]
        stored = np.array(found, np.int64)
        descriptors = descriptors[np.searchsorted(ids, stored)]
        self.query_stored = stored[dataset.query_ids]
        self.stored = stored[dataset.database_ids]
        self.queries = descriptors[dataset.query_ids]
        self.database = descriptors[dataset.database_ids]
        row_of = {int(name): row for row, name in enumerate(dataset.database_ids)}
        self.own = np.array([row_of.get(int(name), -1) for name in dataset.query_ids])
        self.positives = [np.array([row_of[int(name)] for name in p]) for p in dataset.positives]
        self.compared: list[dict[int, Candidate]] = [{} for _ in self.queries]

    def compare(self, number: int, rows: np.ndarray) -> list[Candidate]:
        """Verify rows of the database against a query, as far as it was not done before."""
        known = self.compared[number]
        new = np.array([row for row in rows.tolist() if row not in known], np.int64)
        if len(new):
            image = self.collection.image(int(self.query_stored[number]))
            (local,) = self.collection.local_features([image.id])
            found = compare(
                ImageFeatures(image.size, self.queries[number], local),
                new,
                self.database[new] @ self.queries[number],
                [stored.size for stored in self.collection.images(self.stored[new])],
                self.collection.local_features(self.stored[new]),
                self.extractor.weights.same,
                settings_for(self.extractor.config, SearchConfig().verification),
            )
            known |= {candidate.id: slim(candidate) for candidate in found}
        return [known[row] for row in rows.tolist()]

    def scores(
        self, variant: Variant, num_verified: int
    ) -> tuple[RetrievalScores, RetrievalScores | None]:
        """Scores of the global stage, and after verification if any is wanted."""
        prepared = PreparedDatabase(self.database, variant.preparation)
        queries, expansion = prepared.queries(self.queries), variant.expansion
        expanded = prepared.expanded(queries, expansion.nearest, expansion.alpha, self.own)
        similarities = prepared.similarities(expanded, self.own)
        before = mean_scores([ranked_rows(row) for row in similarities], self.positives, RECALL_AT)
        if num_verified == 0:
            return before, None
        config, rankings = SearchConfig(rerank=num_verified, expansion=expansion), []
        with progress(variant.name, len(queries)) as advance:
            for number, query in enumerate(queries):
                rankings.append(
                    verified_ranking(
                        prepared,
                        query,
                        similarities[number],
                        lambda rows, number=number: self.compare(number, rows),  # type: ignore[misc]
                        config,
                        int(self.own[number]),
                    ).ids
                )
                advance(number)
        return before, mean_scores(rankings, self.positives, RECALL_AT)


def slim(candidate: Candidate) -> Candidate:
    """A candidate without its matches, which a table of all pairs has no room for."""
    found = candidate.verification
    assert found is not None
    kept = Verification(found.matches[:0], found.inliers[found.inliers], None, found.spread)
    return Candidate(candidate.id, candidate.similarity, kept, candidate.same)


def variants() -> list[Variant]:
    """Each by itself with the values of the documentation, then what goes together."""
    nearest, verified = ExpansionConfig(nearest=5), ExpansionConfig(verified=True)
    augmented, white = PreparationConfig(augment=5), PreparationConfig(whiten=256, shrinkage=0.5)
    both = PreparationConfig(whiten=256, shrinkage=0.5, augment=5)
    return [
        Variant("none"),
        Variant("expand", nearest),
        Variant("expand verified", verified),
        Variant("augment", preparation=augmented),
        Variant("whiten", preparation=white),
        Variant("augment, expand", nearest, augmented),
        Variant("augment, expand verified", verified, augmented),
        Variant("whiten, augment, expand", nearest, both),
        Variant("whiten, augment, expand verified", verified, both),
    ]


if __name__ == "__main__":
    main()
