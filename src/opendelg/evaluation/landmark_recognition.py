"""Recognition on Google Landmarks v2: which landmark an image shows, if any, and how surely.

The neighbours of a query among the labelled training images are verified and sorted again by
min(inliers, 70) / 70 + similarity.  The best few vote: the landmark whose sum is largest is
predicted, and the sum is its confidence.  At the global stage the similarity alone counts.

Source: SPEC 4.2, the challenge's baseline.  Papers do not say how many neighbours they verified
and counted; a run keeps both numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from opendelg.datasets.landmark_benchmark import USAGES, write_recognition_submission
from opendelg.datasets.landmarks import id_text
from opendelg.errors import OpenDelgError
from opendelg.evaluation.landmark_data import LandmarkBenchmark
from opendelg.evaluation.landmark_retrieval import by_usage, landmark_report
from opendelg.evaluation.landmark_search import LandmarkSearch, Neighbours
from opendelg.evaluation.preparation import refuse_expansion
from opendelg.evaluation.provenance import provenance
from opendelg.evaluation.ranking import Ranking
from opendelg.evaluation.report import Measures, Report, means
from opendelg.evaluation.runs import Run, mentioned_ids
from opendelg.extraction import Extractor
from opendelg.fusion import fused_scores
from opendelg.metrics.bootstrap import Statistic
from opendelg.metrics.landmarks import (
    NO_LANDMARK,
    global_average_precision,
    is_right,
    resampled_global_average_precision,
)
from opendelg.metrics.revisited import GroundTruth
from opendelg.search import SearchConfig
from opendelg.settings import settings_as_dict

PROTOCOL = "gldv2-recognition"


@dataclass(frozen=True)
class VoteConfig:
    """How neighbours become a prediction."""

    neighbours: int = 3  # that vote; copies of the baseline have 3 and 5
    max_inliers: int = 70  # more count as many

    def __post_init__(self) -> None:
        for name, value in (("neighbours", self.neighbours), ("max_inliers", self.max_inliers)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")


def evaluate_landmark_recognition(
    benchmark: LandmarkBenchmark,
    search: LandmarkSearch,
    extractor: Extractor,
    config: SearchConfig | None = None,
    vote: VoteConfig | None = None,
) -> Run:
    """Find the neighbours that vote for every query, before and after verification.

    Args:
        benchmark: From `open_recognition`.
        search: Of this benchmark.
        extractor: What it extracts with.
        config: How many neighbours are verified, and how.
        vote: How many vote, and what inliers count.

    Raises:
        OpenDelgError: If no query shows a landmark: there would be no figure.
    """
    config, vote = config or SearchConfig(), vote or VoteConfig()
    refuse_expansion(config.expansion, PROTOCOL)
    if benchmark.labels is None:
        raise ValueError("benchmark must have labels; open it with open_recognition")
    truths = benchmark.solution.truths
    if not any(len(truth) for truth in truths):
        raise OpenDelgError(
            f"an image must show a landmark, got none that does of {len(truths)} queries"
        )
    found = search.neighbours(max(vote.neighbours, config.rerank), config)
    stages = {"global": tuple(_first(ranking, vote) for ranking in found.rankings)}
    if config.rerank:
        stages["verified"] = tuple(voters(found, query, vote) for query in range(len(truths)))
    mentioned = mentioned_ids({}, stages)
    return Run(
        protocol=PROTOCOL,
        queries=tuple(map(benchmark.queries.listed_path, range(len(truths)))),
        names={image: benchmark.database.listed_path(image) for image in mentioned.tolist()},
        num_database=len(benchmark.database.ids),
        truth={"landmarks": truths},
        stages=stages,
        about=about_recognition(benchmark, extractor, config, vote),
        notes=(*benchmark.notes, *found.notes),
        extra={
            "usages": benchmark.solution.usages,
            "image_ids": benchmark.queries.ids,
            "labelled_ids": mentioned,
            "labels": benchmark.labels[mentioned],
        },
    )


def about_recognition(
    benchmark: LandmarkBenchmark, extractor: Extractor, config: SearchConfig, vote: VoteConfig
) -> dict[str, Any]:
    """What makes a run, for the record."""
    return provenance(extractor, config, benchmark.about) | {"vote": settings_as_dict(vote)}


def voters(found: Neighbours, query: int, vote: VoteConfig) -> Ranking:
    """The neighbours of a query that vote once some are verified, best first, equal ones by id."""
    ranking, inliers = found.rankings[query], found.inliers[query]
    ranking = ranking.reordered(ranking.ids[: len(inliers)], inliers)
    order = np.lexsort((ranking.ids, -weights(ranking, vote.max_inliers)))
    ordered = Ranking(
        ranking.ids[order],
        ranking.positions,
        ranking.similarities[order],
        ranking.num_inliers[order],
    )
    return _first(ordered, vote)


def weights(ranking: Ranking, max_inliers: int) -> np.ndarray:
    """What the vote of each image (K,) float64 counts; nothing verified counts as no inlier."""
    return fused_scores(ranking.similarities, ranking.num_inliers, max_inliers)


def predictions(run: Run) -> Mapping[str, tuple[np.ndarray, np.ndarray]]:
    """Landmarks (Q,) int64, NO_LANDMARK for none, and their confidences (Q,) float64, by stage."""
    max_inliers = int(run.about["vote"]["max_inliers"])
    known, labels = run.extra["labelled_ids"], run.extra["labels"]
    found = {}
    for stage, rankings in run.stages.items():
        landmarks = np.full(len(rankings), NO_LANDMARK, np.int64)
        confidences = np.zeros(len(rankings), np.float64)
        for query, ranking in enumerate(rankings):
            if len(ranking):
                named = labels[np.searchsorted(known, ranking.ids)]
                distinct, places = np.unique(named, return_inverse=True)
                sums = np.bincount(places, weights(ranking, max_inliers))
                best = int(sums.argmax())  # of equal sums the smaller landmark
                landmarks[query], confidences[query] = distinct[best], sums[best]
        found[stage] = landmarks, confidences
    return found


def measure_landmark_recognition(run: Run) -> Measures:
    """Whether each query's prediction is right, by stage; NaN for those that show no landmark."""
    truths, usages = run.truth["landmarks"], run.extra["usages"]
    return {
        stage: by_usage("accuracy", is_right(landmarks, truths), usages)
        for stage, (landmarks, _) in predictions(run).items()
    }


def pooled_landmark_recognition(run: Run) -> Mapping[str, Mapping[str, Statistic]]:
    """Global average precision of the public and of the private queries, by stage."""
    usages, truths = run.extra["usages"], run.truth["landmarks"]
    return {
        stage: {
            name: resampled_global_average_precision(
                run.extra["image_ids"], landmarks, confidences, truths, usages == number
            )
            for name, number in _figures_of(usages).items()
        }
        for stage, (landmarks, confidences) in predictions(run).items()
    }


def report_landmark_recognition(run: Run) -> Report:
    """Global average precision and accuracy of both stages, public and private queries apart."""
    usages, truths = run.extra["usages"], run.truth["landmarks"]
    accuracies = means(measure_landmark_recognition(run))
    figures = {}
    for stage, (landmarks, confidences) in predictions(run).items():
        figures[stage] = {
            name: global_average_precision(
                run.extra["image_ids"][usages == number],
                landmarks[usages == number],
                confidences[usages == number],
                [truths[query] for query in np.flatnonzero(usages == number)],
            )
            for name, number in _figures_of(usages).items()
        } | accuracies[stage]
    return landmark_report(run, figures)


def truths_of_landmarks(run: Run) -> list[GroundTruth]:
    """The images of the run's rankings that show a landmark of each query."""
    known, labels = run.extra["labelled_ids"], run.extra["labels"]
    nothing = np.zeros(0, np.int64)
    return [
        GroundTruth(known[np.isin(labels, landmarks)], nothing)
        for landmarks in run.truth["landmarks"]
    ]


def write_recognition_predictions(path: Path, benchmark: LandmarkBenchmark, run: Run) -> None:
    """Write the submission: predictions of the last stage; nothing for images not asked for."""
    *_, (landmarks, confidences) = predictions(run).values()
    names = [Path(name).stem for name in run.queries]
    found = {
        name: (landmark, confidence)
        for name, landmark, confidence in zip(
            names, landmarks.tolist(), confidences.tolist(), strict=True
        )
        if landmark != NO_LANDMARK
    }
    tests = benchmark.test_ids.tolist()
    write_recognition_submission(path, tests, [found.get(id_text(image)) for image in tests])


def _figures_of(usages: np.ndarray) -> dict[str, int]:
    """Names of the figures and the usages that they are of."""
    numbers = np.unique(usages).tolist()
    return {f"GAP {USAGES[number]}": number for number in numbers}


def _first(ranking: Ranking, vote: VoteConfig) -> Ranking:
    part = slice(vote.neighbours)
    return Ranking(
        ranking.ids[part],
        ranking.positions[part],
        ranking.similarities[part],
        ranking.num_inliers[part],
    )
