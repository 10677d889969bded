"""The queries that a run answers worst: what it found instead, and the right image it missed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from opendelg.errors import OpenDelgError
from opendelg.evaluation.ranking import NOT_VERIFIED, Ranking
from opendelg.evaluation.runs import Run
from opendelg.evaluation.scorable import LANDMARKS
from opendelg.evaluation.scoring import judged, measures
from opendelg.metrics.revisited import GroundTruth

NUM_RESULTS = 5  # of a ranking that are shown
PERFECT = 1 - 1e-9  # values from here on are no failures


@dataclass(frozen=True)
class Found:
    """A database image in the ranking of a query."""

    database_id: int
    rank: int | None  # from 1, in the whole ranking; None: not among the images that were kept
    mark: Literal["right", "wrong", "junk"]
    similarity: float  # of the global descriptors; NaN without a rank
    num_inliers: int | None  # None: not verified


@dataclass(frozen=True)
class Failure:
    """A query that did not find all it should, first."""

    query: int  # row in the run
    value: float  # of the measure, in [0, 1]
    num_positives: int | None  # None: it should find a landmark, whose images were not counted
    first_right: int | None  # rank from 1 of the first positive; None: none was kept
    results: tuple[Found, ...]  # the first few, best first
    wrong: Found | None  # the first that is neither right nor junk
    missed: Found | None  # the best positive after it


@dataclass(frozen=True)
class Failures:
    """The worst queries of a stage under a measure."""

    worst: tuple[Failure, ...]  # worst first
    num_failed: int  # queries with a value below 1
    num_scored: int  # queries that have positives


def find_failures(run: Run, stage: str, measure: str, count: int) -> Failures:
    """The queries with the lowest values; of equal ones those whose first positive comes last.

    Args:
        run: With rankings and ground truth.
        stage: One of `scoring.stages`.
        measure: A mean over queries, such as "mAP".
        count: How many at most.

    Raises:
        OpenDelgError: If the stage or the measure is not there.
    """
    by_stage = measures(run)
    if not by_stage:
        raise OpenDelgError("run must have ground truth, got none: nothing is known to fail")
    if stage not in by_stage:
        raise OpenDelgError(f"stage must be one of {', '.join(by_stage)}, got {stage!r}")
    if measure not in by_stage[stage]:
        known = ", ".join(by_stage[stage])
        raise OpenDelgError(f"measure must be one of {known}, got {measure!r}")
    values = by_stage[stage][measure]
    failures = [
        _failure(query, float(values[query]), ranking, truth)
        for query, (ranking, truth) in enumerate(judged(run, stage))
        if values[query] < PERFECT  # not so for NaN
    ]
    if LANDMARKS in run.truth:
        failures = [replace(failure, num_positives=None) for failure in failures]
    failures.sort(key=lambda failure: (failure.value, -(failure.first_right or np.inf)))
    return Failures(
        tuple(failures[:count]), len(failures), int(np.count_nonzero(~np.isnan(values)))
    )


def _failure(query: int, value: float, ranking: Ranking, truth: GroundTruth) -> Failure:
    is_junk = np.isin(ranking.ids, truth.junk)
    is_right = np.isin(ranking.ids, truth.positives) & ~is_junk
    marks = np.where(is_junk, "junk", np.where(is_right, "right", "wrong"))
    wrong = _first(marks == "wrong")
    right = _first(is_right)
    after = is_right if wrong is None else is_right & (np.arange(len(marks)) > wrong)
    missed = _first(after)
    return Failure(
        query=query,
        value=value,
        num_positives=len(truth.positives),
        first_right=None if right is None else int(ranking.positions[right]) + 1,
        results=tuple(_found(ranking, row, marks) for row in _first_rows(ranking)),
        wrong=None if wrong is None else _found(ranking, wrong, marks),
        missed=_unranked(ranking, truth) if missed is None else _found(ranking, missed, marks),
    )


def _first(chosen: np.ndarray) -> int | None:
    rows = np.flatnonzero(chosen)
    return int(rows[0]) if len(rows) else None


def _first_rows(ranking: Ranking) -> Sequence[int]:
    return range(int(np.count_nonzero(ranking.positions < NUM_RESULTS)))


def _found(ranking: Ranking, row: int, marks: np.ndarray) -> Found:
    inliers = int(ranking.num_inliers[row])
    return Found(
        int(ranking.ids[row]),
        int(ranking.positions[row]) + 1,
        marks[row].item(),
        float(ranking.similarities[row]),
        None if inliers == NOT_VERIFIED else inliers,
    )


def _unranked(ranking: Ranking, truth: GroundTruth) -> Found | None:
    """A positive that the run did not keep in the ranking."""
    absent = np.setdiff1d(truth.positives, ranking.ids)
    return Found(int(absent[0]), None, "right", float("nan"), None) if len(absent) else None
