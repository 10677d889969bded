"""`delg evaluate roxford5k` and `delg evaluate rparis6k`."""

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
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
    open_with_extractor,
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
        Path | None, typer.Option("--collection", help="Keep the features here for the next time.")
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
    from opendelg.datasets.revisited import (
        find_revisited_photos,
        read_revisited,
        require_photos,
    )
    from opendelg.evaluation.cropped import extract_queries, reduced_from
    from opendelg.evaluation.distractor_sources import find_distractors
    from opendelg.evaluation.distractors import extract_distractors
    from opendelg.evaluation.groups import index_whole
    from opendelg.evaluation.revisited import evaluate_revisited
    from opendelg.evaluation.revisited_database import RevisitedDatabase
    from opendelg.indexing import plan_indexing
    from opendelg.search import SearchConfig

    (name,) = (known for known in NAMES if known == context.info_name)
    dataset = read_revisited(folder, name)
    photos = find_revisited_photos(dataset, folder)
    require_photos(dataset, photos, subset)
    source = None if distractors is None else find_distractors(_source(distractors, folder))
    boxes = [
        (dataset.query_names[n], path, tuple(dataset.boxes[n].tolist()))
        for n, path in photos.queries.items()
    ]
    if subset and original_side is None:
        original_side = reduced_from(boxes)
    settings = read_config(config, profile)
    with ExitStack() as stack:
        kept = collection or Path(stack.enter_context(TemporaryDirectory(prefix="delg-")))
        opened, extractor = open_with_extractor(kept, model, profile, device, threads, settings)
        stack.enter_context(opened)
        with progress("extracting queries", len(photos.queries)) as advance:
            cropped = extract_queries(
                boxes,
                extractor,
                original_side,
                is_cropped=not uncropped,
                want_local=rerank > 0,
                progress=advance,
            )
            queries = dict(zip(photos.queries, cropped, strict=True))
        plan = plan_indexing(opened, list(photos.database.values()))
        with progress("extracting", len(plan.work(update=True))) as advance:
            index_whole(opened, extractor, plan, advance)
        others = None
        if source is not None:
            others = extract_distractors(source, opened, extractor, progress, byte_progress)
        run = evaluate_revisited(
            RevisitedDatabase.of(dataset, photos, opened, others),
            queries,
            extractor,
            SearchConfig(rerank=rerank),
            ("standard", "paper") if verification == "both" else (verification,),
            _notes(original_side, uncropped),
            progress,
        )
    finish(run, save_run, json)


def _source(distractors: Path, folder: Path) -> Path:
    """Where the distractors are."""
    return folder.absolute().parent / "revisitop1m" if str(distractors) == R1M else distractors


def _notes(original_side: int | None, uncropped: bool) -> list[str]:
    """What the options change of the protocol."""
    notes = []
    if uncropped:
        notes.append("NOT COMPARABLE: queries are whole photos; published queries are cropped")
    if original_side is not None:
        notes.append(
            f"REDUCED PHOTOS: boxes are scaled from a longer side of {original_side} px: not "
            "comparable with published figures"
        )
    return notes
