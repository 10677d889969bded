"""Two rankings of the same queries: which is better, by how much, and for which queries.

Two runs are matched by the names of their queries; two stages of one run are compared the same
way.  The difference of each figure comes with a paired bootstrap interval over the queries: both
sides are judged on the same resampled queries.
"""

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from opendelg.errors import OpenDelgError
from opendelg.evaluation.runs import Run
from opendelg.evaluation.scorable import LANDMARKS
from opendelg.evaluation.scoring import measures, pooled, stages
from opendelg.metrics.bootstrap import Estimate, Statistic, bootstrap, mean_of
from opendelg.whole_files import replacing

EQUAL = 1e-9  # changes below this come from rounding
NOT_COMPARED = ("date",)  # of what made a run: differs always and changes nothing


@dataclass(frozen=True)
class Side:
    """One of the two that are compared."""

    run: Run
    stage: str  # one of `scoring.stages`


@dataclass(frozen=True)
class Change:
    """One query under one measure, in [0, 1]."""

    query: str
    first: float
    second: float

    @property
    def difference(self) -> float:
        """Above 0: the second is better."""
        return self.second - self.first


@dataclass(frozen=True)
class Figure:
    """One measure on both sides, in [0, 1]."""

    name: str
    first: float
    second: float
    difference: Estimate  # second minus first
    changes: tuple[Change, ...] | None  # of each query; None: it is no mean over queries

    @property
    def num_better(self) -> int:
        """Queries for which the second is better."""
        return sum(change.difference > EQUAL for change in self.changes or ())

    @property
    def num_worse(self) -> int:
        """Queries for which the second is worse."""
        return sum(change.difference < -EQUAL for change in self.changes or ())

    @property
    def num_equal(self) -> int:
        """Queries for which both are the same."""
        return len(self.changes or ()) - self.num_better - self.num_worse

    def largest_changes(self) -> list[Change]:
        """The queries that changed, largest changes first."""
        return [change for change in self.ordered() if abs(change.difference) > EQUAL]

    def ordered(self) -> list[Change]:
        """All queries, largest changes first, equal ones by name."""
        return sorted(self.changes or (), key=lambda c: (-round(abs(c.difference), 9), c.query))


@dataclass(frozen=True)
class Comparison:
    """Two sides on the queries that they have in common."""

    protocol: str
    first_stage: str
    second_stage: str
    num_queries: int  # in common
    figures: tuple[Figure, ...]
    made_by: Mapping[str, tuple[Any, Any]]  # setting -> its values, where they differ
    notes: tuple[str, ...]  # what a reader must know: queries left out, other databases, subsets

    def figure(self, name: str) -> Figure:
        """One measure by its name; OpenDelgError if there is none."""
        for figure in self.figures:
            if figure.name == name:
                return figure
        known = ", ".join(figure.name for figure in self.figures)
        raise OpenDelgError(f"measure must be one of {known}, got {name!r}")


def compare_stages(first: Side, second: Side) -> Comparison:
    """Compare two runs, or two stages of one run.

    Raises:
        OpenDelgError: If the protocols differ, no query is in both, a query is to find other
            images in one than in the other, or a stage is not there.
    """
    a, b = first.run, second.run
    if a.protocol != b.protocol:
        raise OpenDelgError(f"runs must be of one protocol, got {a.protocol!r} and {b.protocol!r}")
    rows_a, rows_b = _common_rows(a, b)
    if a is not b:
        _require_same_truth(a, b, rows_a, rows_b)
    for side in (first, second):
        known = stages(side.run)
        if side.stage not in known:
            raise OpenDelgError(f"stage must be one of {', '.join(known)}, got {side.stage!r}")
    figures = (
        *_mean_figures(first, second, rows_a, rows_b),
        *_pooled_figures(first, second, rows_a, rows_b),
    )
    if not figures:
        raise OpenDelgError("runs must have a figure in common, got none; have they ground truth?")
    return Comparison(
        protocol=a.protocol,
        first_stage=first.stage,
        second_stage=second.stage,
        num_queries=len(rows_a),
        figures=figures,
        made_by=differences(a.about, b.about),
        notes=_notes(a, b, len(rows_a)),
    )


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Values that differ between what made two runs, by dotted name; None where one has none."""
    a, b = flat(first), flat(second)
    return {
        name: (a.get(name), b.get(name))
        for name in dict.fromkeys([*a, *b])
        if name not in NOT_COMPARED and a.get(name) != b.get(name)
    }


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """What `--json` prints: every figure, and every query that changed."""
    return {
        "protocol": comparison.protocol,
        "stages": [comparison.first_stage, comparison.second_stage],
        "queries": comparison.num_queries,
        "notes": list(comparison.notes),
        "figures": {figure.name: _figure_json(figure) for figure in comparison.figures},
        "made_by": {name: list(values) for name, values in comparison.made_by.items()},
    }


def write_changes(path: Path, figure: Figure) -> None:
    """Write a CSV file of all queries under one measure, largest changes first.

    Columns are query, first, second and difference; values in [0, 1], bytes of names as they are.

    Raises:
        OpenDelgError: If the measure is no mean over queries.
    """
    if figure.changes is None:
        raise OpenDelgError(
            f"measure must be a mean over queries, got {figure.name!r}: no query has a value of it"
        )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["query", "first", "second", "difference"])
    for change in figure.ordered():
        values = (change.first, change.second, change.difference)
        writer.writerow([change.query, *(f"{value:.6f}" for value in values)])
    with replacing(path) as part:
        part.write_bytes(text.getvalue().encode("utf-8", "surrogateescape"))


def _common_rows(a: Run, b: Run) -> tuple[np.ndarray, np.ndarray]:
    """Positions (Q,) int64 of the common queries in both runs, in the order of the first."""
    for run in (a, b):
        if len(set(run.queries)) < len(run.queries):
            raise OpenDelgError(
                f"queries must have distinct names to be matched, got {len(set(run.queries))} "
                f"names for {len(run.queries)}"
            )
    place = {name: row for row, name in enumerate(b.queries)}
    common = [(row, place[name]) for row, name in enumerate(a.queries) if name in place]
    if not common:
        raise OpenDelgError(
            f"runs must have queries in common, got none of {len(a.queries)} and {len(b.queries)}"
        )
    rows = np.array(common, np.int64)
    return rows[:, 0], rows[:, 1]


def _require_same_truth(a: Run, b: Run, rows_a: np.ndarray, rows_b: np.ndarray) -> None:
    if set(a.truth) != set(b.truth):
        raise OpenDelgError(
            f"runs must have one ground truth, got {sorted(a.truth)} and {sorted(b.truth)}"
        )
    for label in a.truth:
        for row_a, row_b in zip(rows_a.tolist(), rows_b.tolist(), strict=True):
            names_a, names_b = _truth(a, label, row_a), _truth(b, label, row_b)
            if names_a != names_b:
                raise OpenDelgError(
                    f"{label} of a query must be the same in both runs, got "
                    f"{len(names_a - names_b)} only in the first and {len(names_b - names_a)} "
                    f"only in the second for {a.queries[row_a]!r}; figures of other truths cannot "
                    "be compared"
                )


def _truth(run: Run, label: str, row: int) -> set[str]:
    """What a query should find, by names that mean the same in every run."""
    ids = run.truth[label][row].tolist()
    return {str(i) if label == LANDMARKS else run.names[i] for i in ids}


def _mean_figures(
    first: Side, second: Side, rows_a: np.ndarray, rows_b: np.ndarray
) -> list[Figure]:
    values_a, values_b = (measures(side.run).get(side.stage, {}) for side in (first, second))
    figures = []
    for name in [name for name in values_a if name in values_b]:
        a, b = values_a[name][rows_a], values_b[name][rows_b]
        counted = np.flatnonzero(~np.isnan(a) & ~np.isnan(b))  # without positives: NaN in both
        a, b = a[counted], b[counted]
        names = [first.run.queries[row] for row in rows_a[counted]]
        figures.append(
            Figure(
                name,
                float(a.mean()) if len(a) else math.nan,
                float(b.mean()) if len(b) else math.nan,
                bootstrap(mean_of(b - a), len(a)),
                tuple(map(Change, names, a.tolist(), b.tolist())),
            )
        )
    return figures


def _pooled_figures(
    first: Side, second: Side, rows_a: np.ndarray, rows_b: np.ndarray
) -> list[Figure]:
    of_a, of_b = (pooled(side.run).get(side.stage, {}) for side in (first, second))
    figures = []
    for name in [name for name in of_a if name in of_b]:
        a, b = of_a[name], of_b[name]
        figures.append(
            Figure(
                name,
                float(a(rows_a[None])[0]),
                float(b(rows_b[None])[0]),
                bootstrap(_difference(a, b, rows_a, rows_b), len(rows_a)),
                None,
            )
        )
    return figures


def _difference(
    first: Statistic, second: Statistic, rows_a: np.ndarray, rows_b: np.ndarray
) -> Statistic:
    """Second minus first on the same matched queries."""

    def difference(chosen: np.ndarray) -> np.ndarray:
        return second(rows_b[chosen]) - first(rows_a[chosen])

    return difference


def _notes(a: Run, b: Run, num_common: int) -> tuple[str, ...]:
    notes = []
    for which, run in (("first", a), ("second", b)):
        left_out = len(run.queries) - num_common
        if left_out:
            notes.append(
                f"{left_out} of {len(run.queries)} queries of the {which} run are not in the "
                "other: left out here"
            )
    if a.num_database != b.num_database:
        notes.append(
            f"the databases differ: {a.num_database} images in the first, {b.num_database} in the "
            "second"
        )
    return (*notes, *dict.fromkeys([*a.notes, *b.notes]))


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted name."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def _figure_json(figure: Figure) -> dict[str, Any]:
    values: dict[str, Any] = {
        "first": figure.first,
        "second": figure.second,
        "difference": asdict(figure.difference),
    }
    if figure.changes is not None:
        values |= {
            "better": figure.num_better,
            "equal": figure.num_equal,
            "worse": figure.num_worse,
            "changes": [
                {"query": c.query, "first": c.first, "second": c.second}
                for c in figure.largest_changes()
            ],
        }
    return values
