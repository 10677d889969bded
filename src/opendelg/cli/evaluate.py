"""`delg evaluate`: one sub-command per protocol."""

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from opendelg.cli.opening import (
    DeviceOption,
    JsonOption,
    ModelOption,
    ProfileOption,
    ThreadsOption,
    open_with_extractor,
    print_json,
)
from opendelg.cli.progress import progress

if TYPE_CHECKING:
    from opendelg.evaluation.runs import Run

SaveRunOption = Annotated[
    Path | None,
    typer.Option("--save-run", help="Keep the rankings in this .zip (`delg evaluate rescore`)."),
]

evaluate = typer.Typer(help="Measure retrieval under a protocol.", no_args_is_help=True)


@evaluate.callback()
def _protocols() -> None:
    """Measure retrieval under a protocol."""


@evaluate.command()
def groups(
    csv: Annotated[Path, typer.Option("--csv", help="Table with columns image,group,role.")],
    images: Annotated[Path, typer.Option("--images", help="Folder that its paths start from.")],
    collection: Annotated[
        Path | None, typer.Option("--collection", help="Keep the features here for the next time.")
    ] = None,
    model: ModelOption = None,
    profile: ProfileOption = None,
    rerank: Annotated[int, typer.Option("--rerank", min=0, help="Candidates verified.")] = 100,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    save_run: SaveRunOption = None,
    json: JsonOption = False,
) -> None:
    """Evaluate on photos labelled by groups: mAP and recall, before and after verification.

    Roles are query, database or both; the positives of a query are the database images of its
    group other than itself.

    \b
    delg evaluate groups --csv table.csv --images photos/
    delg evaluate groups --csv table.csv --images photos/ --profile accurate --json
    """
    from opendelg.datasets.groups import read_groups
    from opendelg.evaluation.database import index_whole
    from opendelg.evaluation.groups import evaluate_groups, plan_groups, require_positives
    from opendelg.search import SearchConfig

    dataset = read_groups(csv, images)
    require_positives(dataset)
    with ExitStack() as stack:
        folder = collection or Path(stack.enter_context(TemporaryDirectory(prefix="delg-")))
        opened, extractor = open_with_extractor(folder, model, profile, device, threads)
        stack.enter_context(opened)
        plan = plan_groups(dataset, opened)
        with progress("extracting", len(plan.work(update=True))) as advance:
            index_whole(opened, extractor, plan, advance)
        with progress("searching", len(dataset.query_ids)) as advance:
            run = evaluate_groups(dataset, opened, extractor, SearchConfig(rerank=rerank), advance)
    finish(run, save_run, json)


@evaluate.command()
def rescore(
    run: Annotated[Path, typer.Argument(help="File that --save-run wrote.")],
    json: JsonOption = False,
) -> None:
    """Print the figures of a saved run again, from its rankings: no image is needed.

    \b
    delg evaluate rescore RUN.zip
    """
    from opendelg.evaluation.runs import read_run

    finish(read_run(run), None, json)


def finish(run: "Run", save_run: Path | None, json: bool) -> None:
    """Keep a run if that is wished, then print its figures."""
    from opendelg.evaluation.runs import write_run
    from opendelg.evaluation.scoring import report

    if save_run is not None:
        write_run(save_run, run)
    figures = report(run)
    if json:
        print_json(dict(figures.json))
    else:
        print("\n".join(figures.lines()))
