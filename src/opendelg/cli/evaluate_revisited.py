"""`delg evaluate roxford5k` and `delg evaluate rparis6k`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from opendelg.cli.evaluate import SaveRunOption, finish
from opendelg.cli.opening import (
    ConfigOption,
    DeviceOption,
    JsonOption,
    ModelOption,
    ProfileOption,
    ThreadsOption,
    kept_or_temporary,
    read_config,
)
from opendelg.cli.progress import byte_progress, progress

if TYPE_CHECKING:
    from opendelg.datasets.revisited import RevisitedName

R1M = "r1m"  # as --distractors: where the makers' code keeps the million
NAMES: tuple["RevisitedName", ...] = ("roxford5k", "rparis6k")


def register(evaluate: typer.Typer) -> None:
    """Add a sub-command for each of the two datasets: they differ in name alone."""
    for name in NAMES:
        text = str(revisited.__doc__).replace("NAME", name)
        evaluate.command(name, help=text)(revisited)


def revisited(
    context: typer.Context,
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of the ground truth file and the photos.")
    ],
    distractors: Annotated[
        Path | None,
        typer.Option(
            "--distractors", help="Folder of images or tars; r1m: the one beside DIR, revisitop1m."
        ),
    ] = None,
    verification: Annotated[
        Literal["both", "standard", "paper"],
        typer.Option("--verification", help="Ours (standard), the published way (paper), or both."),
    ] = "both",
    rerank: Annotated[int, typer.Option("--rerank", min=0, help="Candidates verified.")] = 100,
    subset: Annotated[
        bool, typer.Option("--subset", help="Evaluate the photos that are there, and say so.")
    ] = False,
    original_side: Annotated[
        int | None,
        typer.Option(
            "--original-side",
            min=1,
            help="Photos are reduced copies: px of the longer side before that, mostly 1024.",
        ),
    ] = None,
    uncropped: Annotated[
        bool, typer.Option("--uncropped", help="Search with whole photos: NOT COMPARABLE.")
    ] = False,
    collection: Annotated[
        str | None, typer.Option("--collection", help="Keep the features here for the next time.")
    ] = None,
    model: ModelOption = None,
    profile: ProfileOption = None,
    config: ConfigOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    save_run: SaveRunOption = None,
    json: JsonOption = False,
) -> None:
    """Evaluate on NAME: mAP and mP@k at Easy, Medium and Hard.

    DIR holds gnd_NAME.pkl and the photos, in jpg/ or anywhere below.  Queries are cropped as
    published.  Stages: global; verified (ours: one ranking for all levels); official (as
    published: junk of the level dropped first).

    \b
    delg evaluate NAME data/NAME
    delg evaluate NAME data/NAME --distractors r1m --collection features.delg
    delg evaluate NAME data/NAME --profile paper --model r50delg_gldv2clean_20200914
    """
    from opendelg.evaluation.protocols import Revisited
    from opendelg.search import SearchConfig

    (name,) = (known for known in NAMES if known == context.info_name)
    protocol = Revisited.read(
        folder,
        name,
        SearchConfig(rerank=rerank),
        None if distractors is None else _source(distractors, folder),
        subset,
        original_side,
        is_cropped=not uncropped,
        modes=("standard", "paper") if verification == "both" else (verification,),
    )
    settings = read_config(config, profile)
    with kept_or_temporary(collection, model, profile, device, threads, settings) as opened:
        run = protocol.run(*opened, progress, byte_progress)
    finish(run, save_run, json)


def _source(distractors: Path, folder: Path) -> Path:
    """Where the distractors are."""
    return folder.absolute().parent / "revisitop1m" if str(distractors) == R1M else distractors
