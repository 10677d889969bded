"""`delg evaluate compare`."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from opendelg.cli.opening import JsonOption, print_json, shown

if TYPE_CHECKING:
    from opendelg.evaluation.comparison import Comparison, Figure
    from opendelg.evaluation.runs import Run


def compare(
    first: Annotated[Path, typer.Argument(metavar="A.zip", help="A saved run.")],
    second: Annotated[
        Path | None,
        typer.Argument(metavar="[B.zip]", help="Another; without, two stages of the first."),
    ] = None,
    stage: Annotated[
        str | None, typer.Option("--stage", help="Of the first run; default its last.")
    ] = None,
    other_stage: Annotated[
        str | None, typer.Option("--other-stage", help="Of the second run; default the same.")
    ] = None,
    measure: Annotated[
        str | None, typer.Option("--measure", help="That queries are listed by; default the first.")
    ] = None,
    top: Annotated[int, typer.Option("--top", min=0, help="Queries that are listed.")] = 20,
    csv: Annotated[
        Path | None, typer.Option("--csv", help="Write every query's values here.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Compare two saved runs query by query: what got better or worse, and is it chance?

    Queries are matched by name. The interval holds 95 % of 10,000 resamples of the queries.

    \b
    delg evaluate compare before.zip after.zip
    delg evaluate compare before.zip after.zip --stage global --measure mAP --csv changes.csv
    delg evaluate compare run.zip --stage global --other-stage verified
    """
    from opendelg.evaluation.comparison import (
        Side,
        compare_stages,
        comparison_json,
        write_changes,
    )
    from opendelg.evaluation.runs import read_run

    runs = [read_run(first)]
    runs.append(runs[0] if second is None else read_run(second))
    stages = _stages(runs, stage, other_stage, second is None)
    comparison = compare_stages(*map(Side, runs, stages))
    listed = comparison.figure(measure or comparison.figures[0].name)
    if csv is not None:
        write_changes(csv, listed)
    if json:
        paths = {"first": str(first), "second": str(second or first)}
        print_json({**paths, **comparison_json(comparison)})
        return
    _print(comparison, listed, top, (first, second or first))
    if csv is not None:
        print(f"values of every query: {shown(csv)}")


def _stages(
    runs: "list[Run]", stage: str | None, other_stage: str | None, is_one_run: bool
) -> tuple[str, str]:
    """What is compared: of one run its first and last stage, of two the last they share."""
    from opendelg.errors import OpenDelgError
    from opendelg.evaluation import scoring

    first, second = (scoring.stages(run) for run in runs)
    if not first:
        raise OpenDelgError("runs must have figures, got none in the first; has it ground truth?")
    if is_one_run:
        stage = stage or first[0]
        level = stage.partition(" ")[2]  # such as hard: stages of one level are compared
        of_level = [name for name in first if name.partition(" ")[2] == level]
        other = other_stage or (of_level or [stage])[-1]
        if stage == other:
            raise typer.BadParameter(
                f"other-stage must be another stage than {stage!r} of a single run",
                param_hint="--other-stage",
            )
        return stage, other
    common = [name for name in first if name in second]
    chosen = stage or other_stage or (common or first)[-1]
    return chosen, other_stage or chosen


def _print(comparison: "Comparison", listed: "Figure", top: int, paths: tuple[Path, Path]) -> None:
    for letter, path, stage in zip(
        "AB", paths, (comparison.first_stage, comparison.second_stage), strict=True
    ):
        print(f"{letter}: {shown(path)}, stage {shown(stage)}")
    print(f"{comparison.protocol}, {comparison.num_queries} queries in both")
    print()
    _print_figures(comparison)
    changes = listed.largest_changes()
    if listed.changes is not None:
        _print_changes(listed, changes[:top])
    if comparison.made_by:
        print()
        print("what made them differs:")
        width = max(map(len, comparison.made_by))
        for name, values in comparison.made_by.items():
            print(f"  {name:{width}}  {' -> '.join(map(_value, values))}")
    elif paths[0] != paths[1]:
        print("\nboth were made by the same weights, settings and versions")
    for note in comparison.notes:
        print(f"note: {shown(note)}")


def _print_figures(comparison: "Comparison") -> None:
    width = max(8, *(len(figure.name) for figure in comparison.figures))
    print(
        f"{'measure':{width}}{'A':>9}{'B':>9}{'B - A':>9}{'95 % interval':>19}{'same sign':>11}"
        f"{'better':>8}{'equal':>7}{'worse':>7}"
    )
    for figure in comparison.figures:
        difference = figure.difference
        interval = f"[{100 * difference.low:+.2f}, {100 * difference.high:+.2f}]"
        share = difference.same_sign
        sign = "-" if math.isnan(share) else f"{100 * share:.1f} %"
        line = (
            f"{figure.name:{width}}{100 * figure.first:9.2f}{100 * figure.second:9.2f}"
            f"{100 * difference.value:+9.2f}{interval:>19}{sign:>11}"
        )
        if figure.changes is not None:
            line += f"{figure.num_better:8d}{figure.num_equal:7d}{figure.num_worse:7d}"
        print(line)


def _print_changes(listed: "Figure", shown_changes: "list[Any]") -> None:
    total = listed.num_better + listed.num_worse
    if total == 0:
        print(f"\n{listed.name} is the same for every query")
        return
    if not shown_changes:
        return
    print(f"\n{listed.name}, the {len(shown_changes)} largest changes of {total}:")
    print(f"{'A':>9}{'B':>9}{'B - A':>9}  query")
    for change in shown_changes:
        print(
            f"{100 * change.first:9.2f}{100 * change.second:9.2f}"
            f"{100 * change.difference:+9.2f}  {shown(change.query)}"
        )


def _value(value: object) -> str:
    return "-" if value is None else shown(str(value))
