"""Retrieval on Google Landmarks v2: mAP@100 of the public and the private queries."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from opendelg.datasets.landmark_benchmark import USAGES, write_retrieval_submission
from opendelg.datasets.landmarks import id_text
from opendelg.errors import OpenDelgError
from opendelg.evaluation.landmark_data import LandmarkBenchmark
from opendelg.evaluation.landmark_search import LandmarkSearch
from opendelg.evaluation.preparation import refuse_expansion
from opendelg.evaluation.provenance import provenance
from opendelg.evaluation.ranking import Ranking
from opendelg.evaluation.report import Measures, Report, counts, means
from opendelg.evaluation.runs import Run, mentioned_ids
from opendelg.evaluation.verified import reranked
from opendelg.extraction import Extractor
from opendelg.metrics.landmarks import MAX_PREDICTIONS, average_precision_at, precision_at
from opendelg.search import SearchConfig

PROTOCOL = "gldv2-retrieval"
PRECISION_AT = 10


def evaluate_landmark_retrieval(
    benchmark: LandmarkBenchmark,
    search: LandmarkSearch,
    extractor: Extractor,
    config: SearchConfig | None = None,
) -> Run:
    """Rank the index images for every query, before and after verification.

    Args:
        benchmark: From `open_retrieval`.
        search: Of this benchmark.
        extractor: What it extracts with.
        config: How many candidates are verified, and how.

    Raises:
        OpenDelgError: If a query should find an image that the database does not have, unless the
            benchmark is a subset: there such images are left out, and queries without any other.
    """
    config = config or SearchConfig()
    refuse_expansion(config.expansion, PROTOCOL)
    positives, judged, notes = _positives(benchmark)
    found = search.neighbours(max(MAX_PREDICTIONS, config.rerank), config)
    rankings = [found.rankings[query] for query in judged.tolist()]
    stages = {"global": tuple(map(_head, rankings))}
    if config.rerank:
        stages["verified"] = tuple(
            _head(reranked(found.rankings[query], found.inliers[query], config.verification))
            for query in judged.tolist()
        )
    truth = {"positives": tuple(positives[query] for query in judged.tolist())}
    names = mentioned_ids(truth, stages).tolist()
    return Run(
        protocol=PROTOCOL,
        queries=tuple(map(benchmark.queries.listed_path, judged.tolist())),
        names={image: benchmark.database.listed_path(image) for image in names},
        num_database=len(benchmark.database.ids),
        truth=truth,
        stages=stages,
        about=provenance(extractor, config, benchmark.about),
        notes=(*benchmark.notes, *notes, *found.notes),
        extra={"usages": benchmark.solution.usages[judged]},
    )


def measure_landmark_retrieval(run: Run) -> Measures:
    """Average precision of the first 100 of each query, and precision of the first 10, by stage."""
    usages, positives = run.extra["usages"], run.truth["positives"]
    return {
        stage: {
            **by_usage(
                f"mAP@{MAX_PREDICTIONS}",
                np.array(
                    [
                        average_precision_at(ranking.ids, right)
                        for ranking, right in zip(rankings, positives, strict=True)
                    ]
                ),
                usages,
            ),
            **by_usage(
                f"P@{PRECISION_AT}",
                np.array(
                    [
                        precision_at(ranking.ids, right, PRECISION_AT)
                        for ranking, right in zip(rankings, positives, strict=True)
                    ]
                ),
                usages,
            ),
        }
        for stage, rankings in run.stages.items()
    }


def by_usage(measure: str, values: np.ndarray, usages: np.ndarray) -> dict[str, np.ndarray]:
    """Values (Q,) of the public and of the private queries, NaN for the others."""
    return {
        f"{measure} {usage}": np.where(usages == number, values, np.nan)
        for number, usage in enumerate(USAGES)
        if (usages == number).any()
    }


def report_landmark_retrieval(run: Run) -> Report:
    """The figures of both stages, public and private queries apart."""
    return landmark_report(run, means(measure_landmark_retrieval(run)))


def landmark_report(run: Run, figures: dict[str, dict[str, float]]) -> Report:
    """Figures with the numbers of public and private queries."""
    numbers = np.bincount(run.extra["usages"], minlength=len(USAGES)).tolist()
    of_usage = dict(zip(USAGES, numbers, strict=True))
    shown = ", ".join(f"{number} {usage}" for usage, number in of_usage.items())
    return Report(
        f"{run.protocol}: {len(run.queries)} queries ({shown}), {run.num_database} database images",
        figures,
        {**counts(run), "queries_by_usage": of_usage, **figures},
        run.notes,
    )


def write_retrieval_predictions(path: Path, benchmark: LandmarkBenchmark, run: Run) -> None:
    """Write the submission: the first 100 of the last stage; nothing for images not asked for."""
    *_, last = run.stages.values()
    found = {
        Path(name).stem: [Path(run.names[image]).stem for image in ranking.ids.tolist()]
        for name, ranking in zip(run.queries, last, strict=True)
    }
    tests = benchmark.test_ids.tolist()
    write_retrieval_submission(path, tests, [found.get(id_text(image), []) for image in tests])


def _head(ranking: Ranking) -> Ranking:
    """The part that a submission holds."""
    count = MAX_PREDICTIONS
    return replace(
        ranking,
        ids=ranking.ids[:count],
        positions=ranking.positions[:count],
        similarities=ranking.similarities[:count],
        num_inliers=ranking.num_inliers[:count],
    )


def _positives(
    benchmark: LandmarkBenchmark,
) -> tuple[list[np.ndarray], np.ndarray, tuple[str, ...]]:
    """Database images (P,) int64 that each query should find; the queries (K,) int64 judged."""
    ids = benchmark.database.ids
    sorter = np.argsort(ids)
    positives, num_absent = [], 0
    for truth in benchmark.solution.truths:
        places = sorter[np.minimum(np.searchsorted(ids, truth, sorter=sorter), len(ids) - 1)]
        is_there = ids[places] == truth
        num_absent += int(np.count_nonzero(~is_there))
        positives.append(places[is_there])
    if num_absent and not benchmark.is_subset:
        raise OpenDelgError(
            f"solution must name images of {benchmark.about['list']!r}, got {num_absent} others"
        )
    if not num_absent:
        return positives, np.arange(len(positives)), ()
    judged = np.flatnonzero([len(found) > 0 for found in positives])
    if len(judged) == 0:
        raise OpenDelgError(
            f"a query must have database images to find, got none for any of {len(positives)}"
        )
    left_out = len(positives) - len(judged)
    note = (
        f"SUBSET: {num_absent} images that should be found are not there and not asked for; "
        f"{left_out} queries have no other and are left out"
    )
    return positives, judged, (note,)
