"""Figures of any run, fresh or saved, by its protocol."""

from collections.abc import Mapping

import numpy as np

from opendelg.errors import OpenDelgError
from opendelg.evaluation.groups import measure_groups, report_groups
from opendelg.evaluation.landmark_recognition import (
    measure_landmark_recognition,
    pooled_landmark_recognition,
    report_landmark_recognition,
    truths_of_landmarks,
)
from opendelg.evaluation.landmark_retrieval import (
    measure_landmark_retrieval,
    report_landmark_retrieval,
)
from opendelg.evaluation.places import measure_places, report_places
from opendelg.evaluation.ranking import Ranking
from opendelg.evaluation.report import Measures, Report
from opendelg.evaluation.revisited import judged_revisited, measure_revisited, report_revisited
from opendelg.evaluation.runs import Run
from opendelg.metrics.bootstrap import Statistic
from opendelg.metrics.revisited import GroundTruth


def report(run: Run) -> Report:
    """The figures of a run.

    Raises:
        OpenDelgError: If its protocol is not known here.
    """
    match run.protocol:
        case "groups":
            return report_groups(run)
        case "gldv2-retrieval":
            return report_landmark_retrieval(run)
        case "gldv2-recognition":
            return report_landmark_recognition(run)
        case "places":
            return report_places(run)
        case "roxford5k" | "rparis6k":
            return report_revisited(run)
        case _:
            raise _unknown(run)


def measures(run: Run) -> Measures:
    """The figures of each query, by stage and measure; NaN where a mean leaves the query out.

    Raises:
        OpenDelgError: If its protocol is not known here.
    """
    match run.protocol:
        case "groups":
            return measure_groups(run)
        case "gldv2-retrieval":
            return measure_landmark_retrieval(run)
        case "gldv2-recognition":
            return measure_landmark_recognition(run)
        case "places":
            return measure_places(run)
        case "roxford5k" | "rparis6k":
            return measure_revisited(run)
        case _:
            raise _unknown(run)


def pooled(run: Run) -> Mapping[str, Mapping[str, Statistic]]:
    """Figures that are no means over queries, by stage and name, to be computed of any queries.

    Raises:
        OpenDelgError: If its protocol is not known here.
    """
    match run.protocol:
        case "groups" | "places" | "gldv2-retrieval" | "roxford5k" | "rparis6k":
            return {}
        case "gldv2-recognition":
            return pooled_landmark_recognition(run)
        case _:
            raise _unknown(run)


def stages(run: Run) -> list[str]:
    """What the figures of a run are told apart by; a level of difficulty may be part of it."""
    return list(dict.fromkeys([*measures(run), *pooled(run)]))


def judged(run: Run, stage: str) -> list[tuple[Ranking, GroundTruth]]:
    """The ranking of each query and what it is held against, at one of `stages`.

    Raises:
        OpenDelgError: If its protocol is not known here.
    """
    match run.protocol:
        case "groups" | "places" | "gldv2-retrieval":
            nothing = np.zeros(0, np.int64)
            truths = [GroundTruth(positives, nothing) for positives in run.truth["positives"]]
            return list(zip(run.stages[stage], truths, strict=True))
        case "roxford5k" | "rparis6k":
            return judged_revisited(run, stage)
        case "gldv2-recognition":
            return list(zip(run.stages[stage], truths_of_landmarks(run), strict=True))
        case _:
            raise _unknown(run)


def _unknown(run: Run) -> OpenDelgError:
    return OpenDelgError(
        f"protocol must be one that this version evaluates, got {run.protocol!r}; "
        "the run was written by another version of opendelg"
    )
