"""Published figures of DELG beside ours, and whether the two may be compared.

The figures and their sources are in `published_figures.toml`.  A difference is told only where
weights, settings and data are the published ones; otherwise it would say nothing of the code.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from opendelg.evaluation.runs import Run
from opendelg.extraction import ExtractionConfig
from opendelg.settings import settings_as_dict
from opendelg.weights import Weights, published_as

_FILE = Path(__file__).with_suffix(".toml")


@dataclass(frozen=True)
class PublishedFigure:
    """One figure that somebody published."""

    dataset: str  # as of `benchmarks`
    stage: str  # as of `report`
    measure: str
    model: str  # published name of the weights
    value: float  # in [0, 1]
    source: str  # title and address


@dataclass(frozen=True)
class ComparedFigure:
    """One of our figures with its published counterparts."""

    dataset: str
    stage: str
    measure: str
    ours: float  # in [0, 1]
    is_of_other_data: bool  # it would say nothing beside published figures, whatever the weights
    published: Mapping[str, PublishedFigure]  # by model
    difference: float | None  # ours - published; None where they may not be compared


@cache
def read_published_figures() -> tuple[PublishedFigure, ...]:
    """All published figures."""
    content = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    sources = {key: f"{one['title']}, {one['url']}" for key, one in content["sources"].items()}
    return tuple(
        PublishedFigure(
            dataset,
            f"{row['stage']} {level}",
            row["measure"],
            row["model"],
            round(percent / 100, 6),
            sources[row["source"]],
        )
        for row in content["rows"]
        for dataset, levels in row["figures"].items()
        for level, percent in levels.items()
    )


def why_not_compared(run: Run, weights: Weights) -> list[str]:
    """What makes a run another experiment than the published ones; empty if nothing does."""
    reasons = []
    if published_as(weights) is None:
        reasons.append(f"weights {weights.name!r} are not published ones")
    if run.about["extraction"] != settings_as_dict(ExtractionConfig()):
        reasons.append("the settings are not those of the profile paper")
    return reasons + other_data(run)


def other_data(run: Run) -> list[str]:
    """The notes of a run that say it is not of the whole data, or not by the published rules."""
    return [note for note in run.notes if "not comparable" in note.lower()]


def compare_figures(
    dataset: str, run: Run, figures: Mapping[str, Mapping[str, float]], weights: Weights
) -> list[ComparedFigure]:
    """The main figures of a run, and all others that have a published counterpart.

    Args:
        dataset: As published figures name it.
        run: What the figures are of.
        figures: By stage and measure, of `report`.
        weights: What made the run.  If they are published ones, only their figures are told.
    """
    own = published_as(weights)
    is_comparable = not why_not_compared(run, weights)
    published = [
        figure
        for figure in read_published_figures()
        if figure.dataset == dataset and own in (None, figure.model)
    ]
    compared = []
    for stage, row in figures.items():
        for measure, ours in row.items():
            beside = {f.model: f for f in published if (f.stage, f.measure) == (stage, measure)}
            if beside or _is_main(measure, list(row)):
                own_figure = beside.get(own or "") if is_comparable else None
                difference = None if own_figure is None else ours - own_figure.value
                compared.append(
                    ComparedFigure(
                        dataset, stage, measure, ours, bool(other_data(run)), beside, difference
                    )
                )
    return compared


def _is_main(measure: str, measures: Sequence[str]) -> bool:
    """Whether a measure is what a protocol is known by: its first, of all sets of queries."""
    return measure.partition(" ")[0] == measures[0].partition(" ")[0]
