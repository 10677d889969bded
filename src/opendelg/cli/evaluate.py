"""`delg evaluate`: one sub-command per protocol."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from opendelg.cli.opening import (
    DeviceOption,
    JsonOption,
    ModelOption,
    ProfileOption,
    ThreadsOption,
    open_extractor,
    open_or_create,
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
    from opendelg.evaluation.groups import evaluate_groups, index_groups
    from opendelg.search import SearchConfig

    dataset = read_groups(csv, images)
    extractor = open_extractor(model, profile, device, threads)
    with (
        tempfile.TemporaryDirectory(prefix="delg-") as folder,
        open_or_create(collection or Path(folder), extractor) as opened,
    ):
        with progress("extracting", len(dataset.names) - len(opened)) as advance:
            index_groups(dataset, opened, extractor, advance)
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
