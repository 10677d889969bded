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
    from opendelg.evaluation.groups import GroupsScores

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
    from opendelg.evaluation.groups import (
        evaluate_groups,
        index_groups,
        plan_groups,
        require_positives,
    )
    from opendelg.search import SearchConfig

    dataset = read_groups(csv, images)
    require_positives(dataset)
    with ExitStack() as stack:
        folder = collection or Path(stack.enter_context(TemporaryDirectory(prefix="delg-")))
        opened, extractor = open_with_extractor(folder, model, profile, device, threads)
        stack.enter_context(opened)
        plan = plan_groups(dataset, opened)
        with progress("extracting", len(plan.work(update=True))) as advance:
            index_groups(opened, extractor, plan, advance)
        with progress("searching", len(dataset.query_ids)) as advance:
            scores = evaluate_groups(
                dataset, opened, extractor, SearchConfig(rerank=rerank), advance
            )
    if json:
        print_json(scores.as_dict())
    else:
        _print(scores)


def _print(scores: "GroupsScores") -> None:
    print(f"{scores.num_queries} queries, {scores.num_database} database images")
    print("stage       mAP   R@1   R@5  R@10")
    for name, stage in (("global", scores.global_stage), ("verified", scores.verified)):
        figures = [stage.mean_average_precision, *stage.recall_at.values()]
        print(f"{name:9s}" + "".join(f"{100 * value:6.1f}" for value in figures))
