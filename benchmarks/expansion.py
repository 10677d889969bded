"""What query expansion, database augmentation and whitening gain, each and together.

    python benchmarks/expansion.py --csv FILE --images DIR --collection DIR [--json]
    python benchmarks/expansion.py --csv FILE --images DIR --collection DIR --sweep

Under the protocol of ``delg evaluate groups``: mean average precision and recall of the global
stage and after verification.  The collection keeps the features, and a pair of photos is verified
once for all rows.  ``--sweep`` prints the settings that the defaults were chosen from instead; the
global stage only where verification would follow it unchanged.
"""

from dataclasses import dataclass, field

import numpy as np

from opendelg.candidates import Candidate, compare, settings_for
from opendelg.cli.progress import progress
from opendelg.collection import Collection
from opendelg.datasets.groups import GroupsDataset
from opendelg.evaluation.groups import RECALL_AT
from opendelg.evaluation.preparation import PreparationConfig, PreparedDatabase
from opendelg.evaluation.reranking import StoredDatabase, ranking_of, verified_ranking
from opendelg.expansion import ExpansionConfig
from opendelg.extraction import Extractor
from opendelg.features import ImageFeatures
from opendelg.metrics.retrieval import RetrievalScores, mean_scores
from opendelg.search import SearchConfig
from opendelg.verification import Verification


@dataclass(frozen=True)
class Variant:
    """One row of the table."""

    name: str
    expansion: ExpansionConfig = field(default_factory=ExpansionConfig)
    preparation: PreparationConfig = field(default_factory=PreparationConfig)


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
                    )
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
