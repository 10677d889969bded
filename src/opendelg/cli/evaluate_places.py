"""`delg evaluate places`."""

import sys
from pathlib import Path
from typing import Annotated, Literal

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
    shown,
    writable,
)
from opendelg.cli.progress import progress

DatasetName = Literal["pitts30k", "tokyo247", "msls", "msls-challenge", "nordland", "utm", "csv"]
Subtask = Literal["all", "s2w", "w2s", "o2n", "n2o", "d2n", "n2d"]


def places(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the dataset.")],
    dataset: Annotated[
        DatasetName | None, typer.Option("--dataset", help="Its layout; found out by default.")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", help="Table image,role,east,north for other datasets.")
    ] = None,
    mat: Annotated[
        Path | None, typer.Option("--mat", help="NetVLAD's specification, pitts30k_test.mat.")
    ] = None,
    radius: Annotated[
        float | None, typer.Option("--radius", min=0.001, help="What is near, m; default 25.")
    ] = None,
    frames: Annotated[
        float | None, typer.Option("--frames", min=0, help="What is near by frame, Nordland: 10.")
    ] = None,
    heading: Annotated[
        float | None,
        typer.Option("--heading", min=0, max=180, help="Greatest turn of what is near, degrees."),
    ] = None,
    cities: Annotated[
        str | None, typer.Option("--cities", help="Of MSLS, by commas; default cph,sf.")
    ] = None,
    subtask: Annotated[Subtask, typer.Option("--subtask", help="Of MSLS.")] = "all",
    one_per_panorama: Annotated[
        bool | None,
        typer.Option(
            "--one-per-panorama/--all-views",
            help="Whether each panorama counts once; default as the dataset says.",
        ),
    ] = None,
    submission: Annotated[
        Path | None,
        typer.Option(
            "--submission", callback=writable, help="Write predictions for MSLS: .csv or .zip."
        ),
    ] = None,
    collection: Annotated[
        str | None, typer.Option("--collection", help="Keep the features here for the next time.")
    ] = None,
    model: ModelOption = None,
    profile: ProfileOption = None,
    config: ConfigOption = None,
    rerank: Annotated[
        int, typer.Option("--rerank", min=0, help="Candidates verified; 0: none.")
    ] = 100,
    verification: Annotated[
        Literal["standard", "paper"], typer.Option("--verification", help="How they are verified.")
    ] = "standard",
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    save_run: SaveRunOption = None,
    json: JsonOption = False,
) -> None:
    """Evaluate place recognition: recall at 1, 5, 10 and 20 of images taken near the query.

    Layouts: database/ and queries/ with positions in the names (@east@north@...@.jpg), MSLS,
    Pitts30k and Tokyo 24/7 by NetVLAD's .mat, Nordland by frame, or a table.

    \b
    delg evaluate places pitts30k/ --collection pitts30k.delg
    delg evaluate places msls/ --dataset msls --cities cph --rerank 0
    delg evaluate places msls/ --dataset msls-challenge --submission predictions.zip
    delg evaluate places photos/ --csv positions.csv --radius 50 --json
    """
    from opendelg.datasets.places import PlacesOptions, read_places, write_submission
    from opendelg.errors import OpenDelgError
    from opendelg.evaluation.places import require_truth, submitted_rankings
    from opendelg.evaluation.protocols import Places
    from opendelg.search import SearchConfig
    from opendelg.verification import VerificationSettings

    settings = read_config(config, profile)
    named = tuple(city.strip() for city in cities.split(",")) if cities is not None else ()
    options = PlacesOptions(
        dataset, csv, mat, radius, frames, heading, named, subtask, one_per_panorama
    )
    read = read_places(folder, options)
    print(
        f"{read.name}: {len(read.database)} database images and {len(read.queries)} queries "
        f"in {shown(read.folder)}",
        file=sys.stderr,
    )
    if submission is None:
        require_truth(read)
    elif not read.queries.keys:
        raise OpenDelgError(f"submission must be of MSLS, got the dataset {read.name!r}")
    search = SearchConfig(rerank=rerank, verification=VerificationSettings(mode=verification))
    with kept_or_temporary(collection, model, profile, device, threads, settings) as opened:
        run = Places(read, search).run(*opened, progress)
    if submission is not None:
        write_submission(submission, read.queries.keys, read.database.keys, submitted_rankings(run))
    finish(run, save_run, json)
