"""Figures of a run as they are printed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from opendelg.evaluation.runs import Run
from opendelg.metrics.retrieval import mean_over_queries

# stage -> measure -> (Q,) float64 in [0, 1], NaN for queries that the mean leaves out
Measures = Mapping[str, Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Report:
    """The figures of a run, in [0, 1]."""

    title: str  # protocol and counts, for people
    figures: Mapping[str, Mapping[str, float]]  # stage -> measure -> value
    json: Mapping[str, Any]  # what `--json` prints
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        """A table of stages by measures, values x 100, and the notes; no table without figures."""
        if not self.figures:
            return [self.title, *(f"note: {note}" for note in self.notes)]
        columns = list(dict.fromkeys(m for row in self.figures.values() for m in row))
        widths = [max(8, len(column) + 2) for column in columns]
        first = max(len("stage"), *(len(stage) for stage in self.figures)) + 2
        head = "".join(f"{c:>{w}}" for c, w in zip(columns, widths, strict=True))
        lines = [self.title, f"{'stage':{first}}{head}"]
        for stage, row in self.figures.items():
            cells = [
                f"{100 * row[c]:{w}.2f}" if c in row else " " * w
                for c, w in zip(columns, widths, strict=True)
            ]
            lines.append(f"{stage:{first}}{''.join(cells)}")
        return [*lines, *(f"note: {note}" for note in self.notes)]


def means(measures: Measures) -> dict[str, dict[str, float]]:
    """Means over the queries, by stage and measure."""
    return {
        stage: {name: mean_over_queries(values.tolist()) for name, values in row.items()}
        for stage, row in measures.items()
    }


def recall_names(ks: Sequence[int]) -> dict[int, str]:
    """What recall in the first k is called in tables."""
    return {k: f"R@{k}" for k in ks}


def stage_json(figures: Mapping[str, float]) -> dict[str, Any]:
    """Figures of a stage as the command line reports them: mAP, and recall by k."""
    recalls = {name[2:]: value for name, value in figures.items() if name.startswith("R@")}
    others = {name: value for name, value in figures.items() if not name.startswith("R@")}
    return {**others, "recall_at": recalls} if recalls else others


def counts(run: Run) -> dict[str, Any]:
    """How every protocol's JSON begins."""
    return {
        "protocol": run.protocol,
        "queries": len(run.queries),
        "database": run.num_database,
        **({"notes": list(run.notes)} if run.notes else {}),
    }
