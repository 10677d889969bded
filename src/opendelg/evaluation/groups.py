"""Retrieval on photos that are labelled by groups: the global stage, and after verification."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from opendelg.candidates import Candidate
from opendelg.collection import Collection
from opendelg.datasets.groups import GroupsDataset
from opendelg.errors import OpenDelgError
from opendelg.evaluation.preparation import PreparationConfig, PreparedDatabase
from opendelg.evaluation.reranking import ranked_rows, verified_ranking
from opendelg.extraction import Extractor
from opendelg.features import ImageFeatures
from opendelg.indexing import Plan, index_photos, plan_indexing
from opendelg.metrics.retrieval import RetrievalScores, mean_scores
from opendelg.search import SearchConfig, compare, settings_for

RECALL_AT = (1, 5, 10)


@dataclass(frozen=True)
class GroupsScores:
    """Figures of both stages, in [0, 1]."""

    global_stage: RetrievalScores
    verified: RetrievalScores
    num_queries: int
    num_database: int

    def as_dict(self) -> dict[str, Any]:
        """The figures as the command line reports them."""
        return {
            "protocol": "groups",
            "queries": self.num_queries,
            "database": self.num_database,
            "global": _as_dict(self.global_stage),
            "verified": _as_dict(self.verified),
        }


def _as_dict(scores: RetrievalScores) -> dict[str, Any]:
    return {
        "mAP": scores.mean_average_precision,
        "recall_at": {str(k): value for k, value in scores.recall_at.items()},
    }


def require_positives(dataset: GroupsDataset) -> None:
    """Raises OpenDelgError if no query can find anything: there would be no figure."""
    if dataset.num_without_positives == len(dataset.query_ids):
        raise OpenDelgError(
            "a query must have database images of its group, got none for any of "
            f"{len(dataset.query_ids)} queries"
        )


def plan_groups(dataset: GroupsDataset, collection: Collection) -> Plan:
    """Which images of the dataset the collection lacks or has outdated."""
    return plan_indexing(collection, [dataset.path(number) for number in range(len(dataset.names))])


def index_groups(
    collection: Collection,
    extractor: Extractor,
    plan: Plan,
    progress: Callable[[Path], None] | None = None,
) -> None:
    """Extract every image of a plan (see `plan_groups`).

    Raises:
        OpenDelgError: If an image cannot be read: figures without it would not be comparable.
    """
    report = index_photos(collection, extractor, plan, update=True, progress=progress)
    if report.failures:
        path, reason = report.failures[0]
        raise OpenDelgError(
            f"every image must be readable, got {len(report.failures)} that are not, "
            f"first {str(path)!r}: {reason}"
        )


def evaluate_groups(
    dataset: GroupsDataset,
    collection: Collection,
    extractor: Extractor,
    config: SearchConfig | None = None,
    progress: Callable[[int], None] | None = None,
    preparation: PreparationConfig | None = None,
) -> GroupsScores:
    """Rank the database for every query, before and after verification.

    A query that is in the database too leaves its own ranking, and its own expansion.

    Args:
        dataset: Groups and roles.
        collection: Holds all its images (see `index_groups`).
        extractor: What made the collection; its weights rate the pairs.
        config: How many candidates are verified, and how; how queries are expanded.
        progress: Called with the number of each query that is done.
        preparation: What is done to the database's global descriptors, in memory.

    Raises:
        OpenDelgError: If no query has positives, the collection lacks an image, or whitening
            cannot be learnt.
    """
    require_positives(dataset)
    config = config or SearchConfig()
    stored = _stored_ids(dataset, collection)
    ids, descriptors = collection.global_descriptors()
    descriptors = descriptors[np.searchsorted(ids, stored)]  # of each dataset image
    database = PreparedDatabase(descriptors[dataset.database_ids], preparation)
    own = _rows_of(dataset.query_ids, dataset.database_ids)
    queries = database.queries(descriptors[dataset.query_ids])
    expanded = database.expanded(queries, config.expansion.nearest, config.expansion.alpha, own)
    similarities = database.similarities(expanded, own)
    global_rankings, verified_rankings = [], []
    for number, query_id in enumerate(dataset.query_ids):
        (image,) = collection.images([stored[query_id]])
        (local,) = collection.local_features([stored[query_id]])
        query = ImageFeatures(image.size, descriptors[query_id], local)

        def compare_rows(rows: np.ndarray, query: ImageFeatures = query) -> list[Candidate]:
            chosen = dataset.database_ids[rows]
            return compare(
                query,
                rows,
                descriptors[chosen] @ query.global_descriptor,
                [found.size for found in collection.images(stored[chosen])],
                collection.local_features(stored[chosen]),
                extractor.weights.same,
                settings_for(extractor.config, config.verification),
            )

        reranked = verified_ranking(
            database, queries[number], similarities[number], compare_rows, config, int(own[number])
        )
        global_rankings.append(dataset.database_ids[ranked_rows(similarities[number])])
        verified_rankings.append(dataset.database_ids[reranked])
        if progress is not None:
            progress(number)
    return GroupsScores(
        mean_scores(global_rankings, dataset.positives, RECALL_AT),
        mean_scores(verified_rankings, dataset.positives, RECALL_AT),
        len(dataset.query_ids),
        len(dataset.database_ids),
    )


def _stored_ids(dataset: GroupsDataset, collection: Collection) -> np.ndarray:
    """The collection's id (N,) of each dataset image."""
    found = [collection.find(dataset.path(number)) for number in range(len(dataset.names))]
    if None in found:
        raise OpenDelgError(
            f"collection must hold every image of the dataset, got none for "
            f"{dataset.names[found.index(None)]!r}"
        )
    return np.array(found, np.int64)


def _rows_of(query_ids: np.ndarray, database_ids: np.ndarray) -> np.ndarray:
    """Row (Q,) of the database that each query is, -1 if it is none of them."""
    rows = np.searchsorted(database_ids, query_ids)
    rows = np.minimum(rows, len(database_ids) - 1)
    return np.where(database_ids[rows] == query_ids, rows, -1)
