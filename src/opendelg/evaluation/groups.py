"""Retrieval on photos that are labelled by groups: the global stage, and after verification."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from opendelg.collection import Collection
from opendelg.datasets.groups import GroupsDataset
from opendelg.errors import OpenDelgError
from opendelg.evaluation.database import stored_ids
from opendelg.evaluation.provenance import hash_of_names, provenance
from opendelg.evaluation.ranking import Ranking
from opendelg.evaluation.report import Measures, Report, counts, means, stage_json
from opendelg.evaluation.runs import Run
from opendelg.evaluation.verified import VerifiedQuery, verify_head
from opendelg.extraction import Extractor
from opendelg.indexing import Plan, plan_indexing
from opendelg.metrics.retrieval import average_precision, recall_at
from opendelg.search import SearchConfig

RECALL_AT = (1, 5, 10)


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


def evaluate_groups(
    dataset: GroupsDataset,
    collection: Collection,
    extractor: Extractor,
    config: SearchConfig | None = None,
    progress: Callable[[int], None] | None = None,
) -> Run:
    """Rank the database for every query, before and after verification.

    A query that is in the database too leaves its own ranking.

    Args:
        dataset: Groups and roles.
        collection: Holds all its images (see `database.index_whole`).
        extractor: What made the collection; its weights rate the pairs.
        config: How many candidates are verified, and how.
        progress: Called with the number of each query that is done.

    Raises:
        OpenDelgError: If no query has positives, or the collection lacks an image.
    """
    require_positives(dataset)
    config = config or SearchConfig()
    stored = stored_ids(collection, [dataset.path(number) for number in range(len(dataset.names))])
    ids, descriptors = collection.global_descriptors()
    rows = np.searchsorted(ids, stored)  # of each dataset image
    similarities = descriptors[rows[dataset.query_ids]] @ descriptors[rows].T
    global_rankings, verified = [], []
    for number, query_id in enumerate(dataset.query_ids):
        database = dataset.database_ids[dataset.database_ids != query_id]
        order = database[np.argsort(-similarities[number, database], kind="stable")]
        ranking = Ranking.whole(order, similarities[number, order])
        (query,) = collection.images([stored[query_id]])
        (local,) = collection.local_features([stored[query_id]])
        global_rankings.append(ranking)
        verified.append(
            verify_head(
                VerifiedQuery(query.size, local), ranking, stored, collection, extractor, config
            )
        )
        if progress is not None:
            progress(number)
    return Run(
        protocol="groups",
        queries=tuple(dataset.names[number] for number in dataset.query_ids),
        names=dict(enumerate(dataset.names)),
        num_database=len(dataset.database_ids),
        truth={"positives": dataset.positives},
        stages={"global": tuple(global_rankings), "verified": tuple(verified)},
        about=provenance(
            extractor,
            config,
            {
                "images": len(dataset.names),
                "table_sha256": hash_of_names(
                    text for row in zip(dataset.names, dataset.groups, strict=True) for text in row
                ),
            },
        ),
    )


def measure_groups(run: Run) -> Measures:
    """Average precision and recall of each query, by stage."""
    positives = run.truth["positives"]
    return {
        stage: {
            "mAP": np.array(
                [average_precision(r.ids, p) for r, p in zip(rankings, positives, strict=True)]
            ),
            **{
                f"R@{k}": np.array(
                    [recall_at(r.ids, p, [k])[k] for r, p in zip(rankings, positives, strict=True)]
                )
                for k in RECALL_AT
            },
        }
        for stage, rankings in run.stages.items()
    }


def report_groups(run: Run) -> Report:
    """The figures of both stages."""
    figures = means(measure_groups(run))
    return Report(
        f"{len(run.queries)} queries, {run.num_database} database images",
        figures,
        {**counts(run), **{stage: stage_json(row) for stage, row in figures.items()}},
        run.notes,
    )
