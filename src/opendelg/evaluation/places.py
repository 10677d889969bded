"""Place recognition: recall in the first k of images near the query, before and after verifying.

Recall is the share of the queries with a positive among the first k results; those that cannot
find any are failures (a dataset that leaves them out has none).  Rankings keep their first
images only, as nothing looks further.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from opendelg.collection import Collection
from opendelg.datasets.places import NUM_RESULTS, PlacesDataset
from opendelg.errors import OpenDelgError
from opendelg.evaluation.groups import stored_ids
from opendelg.evaluation.preparation import refuse_expansion
from opendelg.evaluation.provenance import hash_of_names, provenance
from opendelg.evaluation.ranking import Ranking, StreamedRanking
from opendelg.evaluation.report import Measures, Report, counts, means, recall_names, stage_json
from opendelg.evaluation.runs import Run, mentioned_ids
from opendelg.evaluation.verified import VerifiedQuery, verify_head
from opendelg.extraction import Extractor
from opendelg.indexing import Plan, plan_indexing
from opendelg.metrics.retrieval import recall_at
from opendelg.search import SearchConfig

PROTOCOL = "places"
RECALL_AT = (1, 5, 10, 20)
KEPT = 100  # images of a ranking, or as many as are verified
# At most 1024 x 8192 similarities, 32 MiB, are in memory at once.
_QUERIES_AT_ONCE = 1024
_DATABASE_AT_ONCE = 8192


def plan_places(dataset: PlacesDataset, collection: Collection) -> Plan:
    """Which images of the dataset the collection lacks or has outdated."""
    database = [dataset.database_path(number) for number in range(len(dataset.database))]
    queries = [dataset.query_path(number) for number in range(len(dataset.queries))]
    return plan_indexing(collection, database + queries)


def evaluate_places(
    dataset: PlacesDataset,
    collection: Collection,
    extractor: Extractor,
    config: SearchConfig | None = None,
    progress: Callable[[int], None] | None = None,
) -> Run:
    """Rank the database for every query, before and after verification.

    Args:
        dataset: Database, queries and positives; without positives the run has no truth.
        collection: Holds all its images (see `plan_places`).
        extractor: What made the collection.
        config: How many candidates are verified, and how; 0: there is no second stage.
        progress: Called with the number of each query that is done.

    Raises:
        OpenDelgError: If the collection lacks an image.
    """
    config = config or SearchConfig()
    refuse_expansion(config.expansion, PROTOCOL)
    database = stored_ids(
        collection, [dataset.database_path(number) for number in range(len(dataset.database))]
    )
    queries = stored_ids(
        collection, [dataset.query_path(number) for number in range(len(dataset.queries))]
    )
    stages = {
        "global": _global_rankings(
            collection, queries, database, dataset.panoramas, max(config.rerank, KEPT)
        )
    }
    if config.rerank:
        verified = []
        for number, ranking in enumerate(stages["global"]):
            (image,) = collection.images(queries[number : number + 1])
            (local,) = collection.local_features(queries[number : number + 1])
            query = VerifiedQuery(image.size, local)
            verified.append(verify_head(query, ranking, database, collection, extractor, config))
            if progress is not None:
                progress(number)
        stages["verified"] = verified
    truth = {} if dataset.positives is None else {"positives": dataset.positives}
    return Run(
        protocol=PROTOCOL,
        queries=dataset.queries.names,
        names={int(i): dataset.database.names[i] for i in mentioned_ids(truth, stages)},
        num_database=len(dataset.database),
        truth=truth,
        stages={stage: tuple(rankings) for stage, rankings in stages.items()},
        about=about_places(dataset, extractor, config),
        notes=dataset.notes,
    )


def measure_places(run: Run) -> Measures:
    """Recall of each query, by stage; none without ground truth."""
    if "positives" not in run.truth:
        return {}
    found = {
        stage: [
            recall_at(ranking.ids, positives, RECALL_AT)
            for ranking, positives in zip(rankings, run.truth["positives"], strict=True)
        ]
        for stage, rankings in run.stages.items()
    }
    # Nothing to find is NaN there and a failure here.
    return {
        stage: {
            name: np.nan_to_num(np.array([one[k] for one in recalls], np.float64), nan=0.0)
            for k, name in recall_names(RECALL_AT).items()
        }
        for stage, recalls in found.items()
    }


def report_places(run: Run) -> Report:
    """The figures of both stages."""
    figures = means(measure_places(run))
    about = run.about["dataset"]
    return Report(
        f"{about['name']}: {len(run.queries)} queries, {run.num_database} database images",
        figures,
        {
            **counts(run),
            "dataset": about["name"],
            "near": about["near"],
            **{stage: stage_json(row) for stage, row in figures.items()},
        },
        run.notes,
    )


def submitted_rankings(run: Run) -> list[np.ndarray]:
    """The results (K,) int64 of each query that a submission tells, of the last stage."""
    rankings = run.stages.get("verified", run.stages["global"])
    return [ranking.ids[:NUM_RESULTS] for ranking in rankings]


def one_per_panorama(ranking: Ranking, panoramas: np.ndarray, kept: int) -> Ranking:
    """The first ``kept`` images of a ranking that are the first of their panorama.

    Args:
        ranking: From its first image on, with no gaps.
        panoramas: (N,) int64 by database id.
        kept: How many are wanted.
    """
    _, first = np.unique(panoramas[ranking.ids], return_index=True)
    rows = np.sort(first)[:kept]
    return Ranking.whole(ranking.ids[rows], ranking.similarities[rows])


def _global_rankings(
    collection: Collection,
    queries: np.ndarray,
    database: np.ndarray,
    panoramas: np.ndarray | None,
    kept: int,
) -> list[Ranking]:
    """The first images for each query, by similarity, then id."""
    ids, descriptors = collection.global_descriptors()
    query_rows, database_rows = np.searchsorted(ids, queries), np.searchsorted(ids, database)
    views = 1 if panoramas is None else int(np.bincount(panoramas).max())
    rankings: list[Ranking] = []
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        block = descriptors[query_rows[start : start + _QUERIES_AT_ONCE]]
        nothing = [np.zeros(0, np.int64)] * len(block)
        no_similarities = [np.zeros(0, np.float32)] * len(block)
        stream = StreamedRanking(block, nothing, no_similarities, kept * views)
        for first in range(0, len(database), _DATABASE_AT_ONCE):
            rows = database_rows[first : first + _DATABASE_AT_ONCE]
            stream.add(np.arange(first, first + len(rows)), descriptors[rows])
        rankings += stream.rankings()
    if panoramas is None:
        return rankings
    return [one_per_panorama(ranking, panoramas, kept) for ranking in rankings]


def about_places(
    dataset: PlacesDataset, extractor: Extractor, config: SearchConfig
) -> dict[str, Any]:
    """What makes a run, for the record."""
    parts = {"database": dataset.database, "queries": dataset.queries}
    facts = {
        "name": dataset.name or dataset.layout,
        "layout": dataset.layout,
        "near": str(dataset.rule),
        "one_per_panorama": dataset.panoramas is not None,
        "queries_left_out": dataset.num_removed,
        "queries_without_positives": dataset.num_without_positives,
        **{f"{role}_sha256": hash_of_names(images.names) for role, images in parts.items()},
        **{
            f"{role}_positions_sha256": hash_of_names(
                f"{east!r} {north!r}" for east, north in images.positions.tolist()
            )
            for role, images in parts.items()
        },
    }
    return provenance(extractor, config, facts)


def require_truth(dataset: PlacesDataset) -> None:
    """Raises OpenDelgError if there is neither a figure nor a submission to be had."""
    if dataset.positives is None:
        raise OpenDelgError(
            "dataset without ground truth must have its predictions written, got no --submission"
        )
