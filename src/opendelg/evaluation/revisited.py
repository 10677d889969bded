"""Revisited Oxford and Paris: Easy, Medium and Hard, before and after verification.

Verification is done in two ways.  ``standard`` verifies the first images of the global ranking
and gives one ranking for all levels: it knows no ground truth.  ``paper`` is the published way:
the junk of a level leaves the ranking first, so that each level has a ranking of its own, and
pairs are verified by the published recipe.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from opendelg.datasets.revisited import LISTS, OFFICIAL, RevisitedDataset
from opendelg.evaluation.cropped import CroppedQuery
from opendelg.evaluation.preparation import refuse_expansion
from opendelg.evaluation.progress import Progress, silent
from opendelg.evaluation.provenance import hash_of_file, hash_of_names, provenance
from opendelg.evaluation.ranking import Ranking
from opendelg.evaluation.report import Measures, Report, counts, means
from opendelg.evaluation.revisited_database import RevisitedDatabase
from opendelg.evaluation.runs import Run, mentioned_ids
from opendelg.evaluation.verified import VerifiedQuery, count_inliers, reranked
from opendelg.extraction import Extractor
from opendelg.metrics.revisited import (
    LEVELS,
    GroundTruth,
    average_precision,
    ground_truth,
    precision_at,
)
from opendelg.search import SearchConfig, settings_for
from opendelg.settings import settings_as_dict
from opendelg.verification import VerificationSettings

VerificationMode = Literal["standard", "paper"]
PRECISION_AT = (1, 5, 10)
_PAPER = VerificationSettings(mode="paper")


def evaluate_revisited(
    database: RevisitedDatabase,
    queries: Mapping[int, CroppedQuery],
    extractor: Extractor,
    config: SearchConfig | None = None,
    modes: Sequence[VerificationMode] = ("standard", "paper"),
    notes: Sequence[str] = (),
    progress: Progress = silent,
) -> Run:
    """Rank the database for every query, before and after verification.

    Args:
        database: What is ranked.
        queries: By position in the dataset's list.
        extractor: What made all features.
        config: How many candidates are verified (0: none), and how in ``standard`` mode.
        modes: Ways to verify.
        notes: What a reader must know besides what the database and the queries tell.
        progress: Told of the queries that are verified, and of features made for that.
    """
    config = config or SearchConfig()
    refuse_expansion(config.expansion, database.dataset.name)
    truth = database.truth(list(queries))
    of_queries = list(zip(*truth.values(), strict=True))
    junk = [[ground_truth(level, *lists).junk for level in LEVELS] for lists in of_queries]
    rankings = database.rank(
        np.stack([query.features.global_descriptor for query in queries.values()]),
        [np.concatenate(lists) for lists in of_queries],
        kept=config.rerank + max(len(ids) for levels in junk for ids in levels),
    )
    stages: dict[str, list[Ranking]] = {"global": rankings}
    if config.rerank > 0:
        stages |= _unverified(rankings, junk, modes)
        heads = [r.ids[: config.rerank] for name in stages for r in stages[name]]
        database.prepare(np.concatenate(heads), progress)
        with progress("verifying", len(queries)) as advance:
            for number, query in enumerate(queries.values()):
                row = {name: stages[name][number] for name in stages if name != "global"}
                for name, ranking in _verified(query, row, database, extractor, config):
                    stages[name][number] = ranking
                advance(query.name)
    return Run(
        protocol=database.dataset.name,
        queries=tuple(query.name for query in queries.values()),
        names=database.names(mentioned_ids(truth, stages)),
        num_database=len(database),
        truth=truth,
        stages={name: tuple(rankings) for name, rankings in stages.items()},
        about=about_revisited(
            database.dataset,
            database.present.tolist(),
            None if database.distractors is None else database.distractors.about(),
            extractor,
            config,
            modes,
        ),
        notes=(*_notes(database, len(queries)), *notes),
        extra={"boxes": np.array([query.box for query in queries.values()], np.float64)},
    )


def _unverified(
    rankings: Sequence[Ranking],
    junk: Sequence[Sequence[np.ndarray]],
    modes: Sequence[VerificationMode],
) -> dict[str, list[Ranking]]:
    """What is verified, by stage: the rankings, and those without the junk of each level."""
    stages = {"verified": list(rankings)} if "standard" in modes else {}
    if "paper" in modes:
        for position, level in enumerate(LEVELS):
            stages[f"official {level}"] = [
                ranking.without(levels[position])
                for ranking, levels in zip(rankings, junk, strict=True)
            ]
    return stages


def _verified(
    query: CroppedQuery,
    rankings: Mapping[str, Ranking],
    database: RevisitedDatabase,
    extractor: Extractor,
    config: SearchConfig,
) -> Iterator[tuple[str, Ranking]]:
    """The rankings of one query after verification; no pair is verified twice in one way."""
    features = VerifiedQuery(query.features.size, query.features.local)
    for stages, settings in (
        ({n: r for n, r in rankings.items() if n == "verified"}, config.verification),
        ({n: r for n, r in rankings.items() if n != "verified"}, _PAPER),
    ):
        heads = [ranking.ids[: config.rerank] for ranking in stages.values()]
        ids = np.unique(np.concatenate([np.zeros(0, np.int64), *heads]))
        inliers = count_inliers(
            features, *database.local_features(ids), settings_for(extractor.config, settings)
        )
        for (name, ranking), head in zip(stages.items(), heads, strict=True):
            yield name, reranked(ranking, inliers[np.searchsorted(ids, head)], settings)


def _notes(database: RevisitedDatabase, num_queries: int) -> list[str]:
    """What is not as published."""
    dataset, found = database.dataset, []
    num_photos = len(database.present)
    if (num_queries, num_photos) != (len(dataset.query_names), len(dataset.names)):
        found.append(
            f"SUBSET: {num_queries} of {len(dataset.query_names)} queries, {num_photos} of "
            f"{len(dataset.names)} database images: not comparable with published figures"
        )
    if not dataset.is_official:
        queries, images = OFFICIAL[dataset.name][:2]
        found.append(
            f"NOT COMPARABLE: the ground truth is not the published one of {queries} queries and "
            f"{images} database images"
        )
    return found + ([] if database.distractors is None else database.distractors.notes())


def about_revisited(
    dataset: RevisitedDataset,
    present: Sequence[int],
    distractors: Mapping[str, Any] | None,
    extractor: Extractor,
    config: SearchConfig,
    modes: Sequence[VerificationMode],
) -> dict[str, Any]:
    """What makes a run, for the record.

    Args:
        dataset: The ground truth.
        present: Ids of the database images that are there.
        distractors: From `Distractors.about`; None: there are none.
        extractor: Network and settings.
        config: How many candidates are verified, and how in ``standard`` mode.
        modes: Ways to verify.
    """
    facts: dict[str, Any] = {
        "ground_truth_sha256": hash_of_file(dataset.file),
        "images": len(present),
        "names_sha256": hash_of_names(dataset.names[i] for i in present),
    }
    if distractors is not None:
        facts["distractors"] = distractors
    about = provenance(extractor, config, facts)
    if "paper" in modes and config.rerank > 0:
        about["official_verification"] = settings_as_dict(settings_for(extractor.config, _PAPER))
    return about


def measure_revisited(run: Run) -> Measures:
    """Average precision and precision in the first k of each query, by stage and level."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for way in dict.fromkeys(stage.partition(" ")[0] for stage in run.stages):
        for level in LEVELS:
            pairs = judged_revisited(run, f"{way} {level}")
            found[f"{way} {level}"] = {
                "mAP": np.array([average_precision(r.ids, t, r.positions) for r, t in pairs])
            } | {
                f"mP@{k}": np.array([precision_at(r.ids, t, k, r.positions) for r, t in pairs])
                for k in PRECISION_AT
            }
    return found


def judged_revisited(run: Run, stage: str) -> list[tuple[Ranking, GroundTruth]]:
    """The ranking of each query at a stage and level ("global easy"), and what it should find."""
    way, _, named = stage.partition(" ")
    (level,) = (level for level in LEVELS if level == named)
    rankings = run.stages[stage if stage in run.stages else way]
    lists = zip(*(run.truth[label] for label in LISTS), strict=True)
    truths = [ground_truth(level, *of_query) for of_query in lists]
    return list(zip(rankings, truths, strict=True))


def report_revisited(run: Run) -> Report:
    """The figures of all stages and levels."""
    figures = means(measure_revisited(run))
    json: dict[str, Any] = counts(run)
    for stage, row in figures.items():
        way, level = stage.split(" ")
        precisions = {name.removeprefix("mP@"): v for name, v in row.items() if name != "mAP"}
        json.setdefault(way, {})[level] = {"mAP": row["mAP"], "precision_at": precisions}
    title = f"{run.protocol}: {len(run.queries)} queries, {run.num_database} database images"
    return Report(title, figures, json, run.notes)
