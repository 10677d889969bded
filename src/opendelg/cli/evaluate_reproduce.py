"""`delg evaluate reproduce`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from opendelg.cli.opening import (
    DeviceOption,
    JsonOption,
    ModelOption,
    ProfileName,
    ThreadsOption,
    open_extractor,
    print_json,
    reason_of,
    shown,
)
from opendelg.cli.progress import byte_progress, progress

if TYPE_CHECKING:
    from opendelg.evaluation.benchmarks import Found
    from opendelg.evaluation.published_figures import ComparedFigure
    from opendelg.evaluation.reproduction import Reproduced
    from opendelg.weights import Weights


def reproduce(
    data: Annotated[
        Path, typer.Option("--data", help="Folder that the datasets lie in, up to two deep.")
    ],
    out: Annotated[
        Path, typer.Option("--out", help="Folder for the runs and features; a second call goes on.")
    ] = Path("reproduced"),
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="NAME", help="Benchmark of --list; may be repeated."),
    ] = None,
    list_only: Annotated[
        bool, typer.Option("--list", help="Say what is there, what is missing and where to put it.")
    ] = False,
    model: ModelOption = None,
    profile: Annotated[
        ProfileName, typer.Option("--profile", help="Published figures are at paper.")
    ] = "paper",
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    json: JsonOption = False,
) -> None:
    """Run every benchmark that is there, and print published figures beside ours.

    What is finished is scored again from its saved run, unless model, settings or data changed.

    \b
    delg evaluate reproduce --data data --list
    delg evaluate reproduce --data data --out runs --model r50-gldv2clean
    delg evaluate reproduce --data data --out runs --only roxford5k --json
    """
    from opendelg.errors import OpenDelgError
    from opendelg.evaluation.benchmarks import find_benchmarks
    from opendelg.evaluation.reproduction import Reproduction

    found = find_benchmarks(data)
    if list_only:
        _list(found, json)
        return
    chosen = _chosen(found, only or [], data)
    extractor = open_extractor(model, profile, device, threads)
    work = Reproduction(out, extractor, _tell, progress, byte_progress)
    done: list[Reproduced] = []
    failed: dict[str, str] = {}
    for one in chosen:
        try:
            done.append(work.run(one))
        except (OpenDelgError, OSError) as error:
            failed[one.name] = reason_of(error)
            _tell(f"{one.name}: error: {failed[one.name]}")
    if json:
        print_json(_as_json(done, failed, extractor.weights))
    else:
        _print(done, extractor.weights)
    if failed:
        raise typer.Exit(1)


def _tell(text: str) -> None:
    print(shown(text), file=sys.stderr)


def _chosen(found: "list[Found]", only: list[str], data: Path) -> "list[Found]":
    """What is run."""
    from opendelg.errors import OpenDelgError
    from opendelg.evaluation.benchmarks import NEEDS

    there = {one.name: one for one in found}
    for name in only:
        if name not in there and name in NEEDS:
            raise OpenDelgError(
                f"{name} must lie below {str(data)!r}, got none; it needs {NEEDS[name]}"
            )
        if name not in there:
            known = ", ".join(dict.fromkeys([*there, *NEEDS]))
            raise typer.BadParameter(
                f"only must be one of {known}, got {name!r}", param_hint="--only"
            )
    if not found:
        raise OpenDelgError(
            f"data must hold a benchmark, got none in {str(data)!r}; `--list` says what to "
            "download and where to put it"
        )
    return [one for one in found if not only or one.name in only]


def _list(found: "list[Found]", json: bool) -> None:
    from opendelg.evaluation.benchmarks import NEEDS

    missing = {name: needs for name, needs in NEEDS.items() if name not in {f.name for f in found}}
    if json:
        there = [
            {"name": f.name, "place": str(f.place), "others": list(map(str, f.others))}
            for f in found
        ]
        print_json({"found": there, "missing": missing})
        return
    for one in found:
        print(f"found    {one.name}: {shown(one.place)}")
        for other in one.others:
            print(f"         also in {shown(other)}, which is left out")
    for name, needs in missing.items():
        print(f"missing  {name}: {needs}")


def _print(done: "list[Reproduced]", weights: "Weights") -> None:
    """One table for all, then what a reader must know of it."""
    from opendelg.evaluation.published_figures import compare_figures, why_not_compared

    rows = [
        row
        for one in done
        for row in compare_figures(one.name, one.run, one.report.figures, weights)
    ]
    if rows:
        _print_table(rows)
    for one in done:
        print(
            f"\n{shown(one.name)}: {len(one.run.queries)} queries, "
            f"{one.run.num_database} database images, run {shown(one.file)}"
        )
        for note in one.run.notes:
            print(f"note: {shown(note)}")
        for reason in why_not_compared(one.run, weights):
            if reason not in one.run.notes:
                print(f"no difference is shown, as {shown(reason)}")
    sources = dict.fromkeys(f.source for row in rows for f in row.published.values())
    if sources:
        print("\npublished figures:")
    for source in sources:
        print(f"  {source}")


def _print_table(rows: "list[ComparedFigure]") -> None:
    models = list(dict.fromkeys(model for row in rows for model in row.published))
    head = ["benchmark", "stage", "measure", "ours ", *models]
    has_difference = any(row.difference is not None for row in rows)
    table = [[*head, "difference"] if has_difference else head]
    for row in rows:
        ours = f"{100 * row.ours:.2f}{'*' if row.is_of_other_data else ' '}"
        published = [row.published.get(model) for model in models]
        line = [
            *(shown(row.dataset), row.stage, row.measure, ours),
            *("" if figure is None else f"{100 * figure.value:.2f}" for figure in published),
        ]
        if has_difference:
            line.append("" if row.difference is None else f"{100 * row.difference:+.2f}")
        table.append(line)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        cells = [
            f"{cell:{width}}" if number < 3 else f"{cell:>{width}}"
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
    if any(row.is_of_other_data for row in rows):
        print("* not comparable with published figures, see the notes")


def _as_json(
    done: "list[Reproduced]", failed: dict[str, str], weights: "Weights"
) -> dict[str, Any]:
    from opendelg.evaluation.published_figures import compare_figures, why_not_compared
    from opendelg.weights import published_as

    return {
        "model": {
            "name": weights.name,
            "sha256": weights.sha256,
            "published_as": published_as(weights),
        },
        "benchmarks": [
            {
                "name": one.name,
                "run": str(one.file),
                "is_new": one.is_new,
                "report": dict(one.report.json),
                "why_not_compared": why_not_compared(one.run, weights),
                "compared": [
                    {
                        "stage": row.stage,
                        "measure": row.measure,
                        "ours": row.ours,
                        "difference": row.difference,
                        "published": [
                            {"model": f.model, "value": f.value, "source": f.source}
                            for f in row.published.values()
                        ],
                    }
                    for row in compare_figures(one.name, one.run, one.report.figures, weights)
                ],
            }
            for one in done
        ],
        "failed": failed,
    }
