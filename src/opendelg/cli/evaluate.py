"""`delg evaluate`: one sub-command per protocol."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from opendelg.cli.opening import (
    AlphaOption,
    DeviceOption,
    ExpandOption,
    ExpandVerifiedOption,
    JsonOption,
    ModelOption,
    ProfileOption,
    ThreadsOption,
    kept_or_temporary,
    parse_settings,
    print_json,
    shown,
    writable,
)
from opendelg.cli.progress import progress

if TYPE_CHECKING:
    from opendelg.evaluation.runs import Run

SaveRunOption = Annotated[
    Path | None,
    typer.Option(
        "--save-run",
        callback=writable,
        help="Keep the rankings in this .zip (`delg evaluate rescore`).",
    ),
]

AugmentOption = Annotated[
    int,
    typer.Option("--augment", min=0, help="Most similar photos added to each database photo."),
]
WhitenOption = Annotated[
    int,
    typer.Option("--whiten", min=0, help="Dimensions of PCA-whitening, learnt on the database."),
]
ShrinkageOption = Annotated[
    float,
    typer.Option("--shrinkage", min=0, max=1, help="0: full whitening, 1: principal axes only."),
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
        str | None, typer.Option("--collection", help="Keep the features here for the next time.")
    ] = None,
    model: ModelOption = None,
    profile: ProfileOption = None,
    rerank: Annotated[int, typer.Option("--rerank", min=0, help="Candidates verified.")] = 100,
    expand: ExpandOption = 0,
    alpha: AlphaOption = 3.0,
    expand_verified: ExpandVerifiedOption = False,
    augment: AugmentOption = 0,
    whiten: WhitenOption = 0,
    shrinkage: ShrinkageOption = 0.0,
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
    delg evaluate groups --csv table.csv --images photos/ --collection kept --expand 10 --augment 5
    """
    from opendelg.datasets.groups import read_groups
    from opendelg.evaluation.groups import require_positives
    from opendelg.evaluation.preparation import PreparationConfig
    from opendelg.evaluation.protocols import Groups
    from opendelg.expansion import ExpansionConfig
    from opendelg.search import SearchConfig

    expansion = parse_settings(
        ExpansionConfig, nearest=expand, alpha=alpha, verified=expand_verified
    )
    preparation = parse_settings(
        PreparationConfig, whiten=whiten, shrinkage=shrinkage, augment=augment, alpha=alpha
    )
    config = parse_settings(SearchConfig, rerank=rerank, expansion=expansion)
    dataset = read_groups(csv, images)
    require_positives(dataset)
    protocol = Groups(dataset, config, preparation)
    with kept_or_temporary(collection, model, profile, device, threads) as opened:
        run = protocol.run(*opened, progress)
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
        print("\n".join(map(shown, figures.lines())))
