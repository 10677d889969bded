"""Retrieval on photos that are labelled by groups: the global stage, and after verification."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from opendelg.collection import Collection
from opendelg.datasets.groups import GroupsDataset
from opendelg.errors import OpenDelgError
from opendelg.evaluation.preparation import PreparationConfig, PreparedDatabase, notes_on
from opendelg.evaluation.provenance import hash_of_names, provenance
from opendelg.evaluation.report import Measures, Report, counts, means, stage_json
from opendelg.evaluation.reranking import StoredDatabase, ranking_of, verified_ranking
from opendelg.evaluation.runs import Run
from opendelg.evaluation.verified import VerifiedQuery, verify_head
from opendelg.extraction import Extractor
from opendelg.features import ImageFeatures
from opendelg.indexing import Plan, index_photos, plan_indexing
from opendelg.metrics.retrieval import average_precision, recall_at
from opendelg.search import SearchConfig
from opendelg.settings import settings_as_dict

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


def index_whole(
    collection: Collection,
    extractor: Extractor,
    plan: Plan,
    progress: Callable[[Path], None] | None = None,
) -> None:
    """Extract every image of a plan.

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
) -> Run:
    """Rank the database for every query, before and after verification.

    A query that is in the database too leaves its own ranking, and its own expansion.

    Args:
        dataset: Groups and roles.
        collection: Holds all its images (see `index_whole`).
        extractor: What made the collection; its weights rate the pairs.
        config: How many candidates are verified (0: there is no second stage), and how; how
            queries are expanded.
        progress: Called with the number of each query that is done.
        preparation: What is done to the database's global descriptors, in memory.

    Raises:
        OpenDelgError: If no query has positives, the collection lacks an image, or whitening
            cannot be learnt.
    """
    require_positives(dataset)
    config, preparation = config or SearchConfig(), preparation or PreparationConfig()
    stored = stored_ids(collection, [dataset.path(number) for number in range(len(dataset.names))])
    ids, descriptors = collection.global_descriptors()
    descriptors = descriptors[np.searchsorted(ids, stored)]  # of each dataset image
    in_database = dataset.database_ids
    prepared = PreparedDatabase(descriptors[in_database], preparation)
    own = _rows_of(dataset.query_ids, in_database)
    queries = prepared.queries(descriptors[dataset.query_ids])
    expanded = prepared.expanded(queries, config.expansion.nearest, config.expansion.alpha, own)
    similarities = prepared.similarities(expanded, own)
    database = StoredDatabase(
        collection, extractor, config, stored[in_database], descriptors[in_database]
    )
    global_rankings, verified = [], []
    for number, query_id in enumerate(dataset.query_ids):
        (image,) = collection.images([stored[query_id]])
        (local,) = collection.local_features([stored[query_id]])
        ranking = ranking_of(similarities[number])
        ranking = replace(ranking, ids=in_database[ranking.ids])
        global_rankings.append(ranking)
        if config.expansion.verified:
            again = verified_ranking(
                prepared,
                queries[number],
                similarities[number],
                partial(database.compare, ImageFeatures(image.size, descriptors[query_id], local)),
                config,
                int(own[number]),
            )
            verified.append(replace(again, ids=in_database[again.ids]))
        else:
            query = VerifiedQuery(image.size, local)
            verified.append(verify_head(query, ranking, stored, collection, extractor, config))
        if progress is not None:
            progress(number)
    return Run(
        protocol="groups",
        queries=tuple(dataset.names[number] for number in dataset.query_ids),
        names=dict(enumerate(dataset.names)),
        num_database=len(dataset.database_ids),
        truth={"positives": dataset.positives},
        stages={"global": tuple(global_rankings)}
        | ({"verified": tuple(verified)} if config.rerank else {}),
        about=about_groups(dataset, extractor, config, preparation),
        notes=notes_on(config.expansion, preparation),
    )


def about_groups(
    dataset: GroupsDataset,
    extractor: Extractor,
    config: SearchConfig,
    preparation: PreparationConfig,
) -> dict[str, Any]:
    """What makes a run, for the record."""
    labels = (text for row in zip(dataset.names, dataset.groups, strict=True) for text in row)
    facts = {"images": len(dataset.names), "table_sha256": hash_of_names(labels)}
    return provenance(extractor, config, facts) | {"preparation": settings_as_dict(preparation)}


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


def stored_ids(collection: Collection, paths: list[Path]) -> np.ndarray:
    """The collection's ids (N,) int64 of files.

    Raises:
        OpenDelgError: If it lacks one.
    """
    found = [collection.find(path) for path in paths]
    if None in found:
        raise OpenDelgError(
            "collection must hold every image of the dataset, got none for "
            f"{str(paths[found.index(None)])!r}"
        )
    return np.array(found, np.int64)


def _rows_of(query_ids: np.ndarray, database_ids: np.ndarray) -> np.ndarray:
    """Row (Q,) of the database that each query is, -1 if it is none of them."""
    rows = np.searchsorted(database_ids, query_ids)
    rows = np.minimum(rows, len(database_ids) - 1)
    return np.where(database_ids[rows] == query_ids, rows, -1)
