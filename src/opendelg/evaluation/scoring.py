"""Figures of any run, fresh or saved, by its protocol."""

from opendelg.errors import OpenDelgError
from opendelg.evaluation.groups import measure_groups, report_groups
from opendelg.evaluation.report import Measures, Report
from opendelg.evaluation.revisited import measure_revisited, report_revisited
from opendelg.evaluation.runs import Run


def report(run: Run) -> Report:
    """The figures of a run.

    Raises:
        OpenDelgError: If its protocol is not known here.
    """
    match run.protocol:
        case "groups":
            return report_groups(run)
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
        case "roxford5k" | "rparis6k":
            return measure_revisited(run)
        case _:
            raise _unknown(run)


def _unknown(run: Run) -> OpenDelgError:
    return OpenDelgError(
        f"protocol must be one that this version evaluates, got {run.protocol!r}; "
        "the run was written by another version of opendelg"
    )
