"""`delg evaluate failures`."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from opendelg.cli.opening import (
    DeviceOption,
    JsonOption,
    ModelOption,
    ThreadsOption,
    print_json,
    shown,
)
from opendelg.cli.progress import progress

if TYPE_CHECKING:
    from opendelg.collection import Collection
    from opendelg.evaluation.failures import Failures
    from opendelg.evaluation.runs import Run
    from opendelg.extraction import Extractor


def failures(
    run: Annotated[Path, typer.Argument(metavar="RUN.zip", help="A saved run.")],
    images: Annotated[
        Path, typer.Option("--images", help="Folder that the names of the run start from.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for the page.")],
    collection: Annotated[
        str | None,
        typer.Option("--collection", help="Features of the run; without, they are extracted."),
    ] = None,
    worst: Annotated[int, typer.Option("--worst", min=1, help="Queries that are shown.")] = 20,
    stage: Annotated[str | None, typer.Option("--stage", help="Default the run's last.")] = None,
    measure: Annotated[
        str | None, typer.Option("--measure", help="That tells the worst; default the first.")
    ] = None,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    json: JsonOption = False,
) -> None:
    """Write a page of the queries that a run answers worst, with photos and matches.

    \b
    delg evaluate failures run.zip --images photos/ --out failures/
    delg evaluate failures run.zip --images photos/ --out failures/ --collection photos.delg
    """
    from opendelg.collection import Collection
    from opendelg.evaluation.failures import find_failures
    from opendelg.evaluation.failures_shown import (
        PhotoFeatures,
        Photos,
        extractor_of,
        photos_of,
        show_failures,
    )
    from opendelg.evaluation.runs import read_run
    from opendelg.evaluation.scoring import measures, stages
    from opendelg.evidence import failures_title, write_failures_page

    saved = read_run(run)
    stage = stage or (stages(saved) or [""])[-1]
    measure = measure or next(iter(measures(saved).get(stage, {})), "any")
    found = find_failures(saved, stage, measure, worst)
    photos = Photos(saved, images)
    paths = photos_of(found.worst, photos)
    _require_some(paths, images)
    with ExitStack() as stack:
        opened = None
        if collection is not None:
            opened = stack.enter_context(Collection.open(collection, read_only=True))
        extractor = extractor_of(saved, model, device, threads)
        features = stack.enter_context(PhotoFeatures(extractor, opened))
        missing = features.missing(paths)
        with progress("extracting", len(missing)) as advance:
            features.extract(missing, advance)
        with progress("matching", len(found.worst)) as advance:
            queries = show_failures(saved, stage, measure, found.worst, photos, features, advance)
        page = write_failures_page(
            queries,
            out,
            title=failures_title(found.num_failed, found.num_scored),
            explanation=_explanation(found, stage, measure),
            facts=_facts(saved, run, stage, extractor, opened, len(missing)),
            notes=saved.notes,
        )
    if json:
        print_json(_json(saved, found, stage, measure, page))
    else:
        print(failures_title(found.num_failed, found.num_scored))
        print(f"page: {shown(page)}")


def _require_some(paths: list[Path], images: Path) -> None:
    from opendelg.errors import OpenDelgError

    if paths and not any(path.is_file() for path in paths):
        raise OpenDelgError(
            f"images must be the folder that the names of the run start from, got "
            f"{str(images)!r}, which has none of them, first {str(paths[0])!r}"
        )


def _explanation(found: "Failures", stage: str, measure: str) -> str:
    if found.num_failed == 0:
        return f"Every one of {found.num_scored} queries has {measure} 100 at stage {stage}."
    which = (
        "all of them"
        if len(found.worst) == found.num_failed
        else f"the {len(found.worst)} worst of them"
    )
    return f"Their {measure} at stage {stage} is below 100; here are {which}, the worst first."


def _facts(
    saved: "Run",
    path: Path,
    stage: str,
    extractor: "Extractor",
    opened: "Collection | None",
    num_extracted: int,
) -> dict[str, str]:
    from opendelg.evaluation.scoring import report
    from opendelg.extraction import profile_name

    figures = report(saved).figures[stage]
    origin = "extracted again from the images, with the weights and settings of the run"
    if opened is not None:
        origin = f"from {shown(opened.location)}"
        if num_extracted:
            origin += f"; {num_extracted} photos that are not in it, extracted again"
    return {
        "Run": f"{shown(path)}, {saved.protocol}, {saved.num_database:,} database images",
        "Figures": ", ".join(f"{name} {100 * value:.2f}" for name, value in figures.items()),
        "Model": extractor.weights.name,
        "Profile": profile_name(extractor.config),
        "Features": origin,
    }


def _json(
    saved: "Run", found: "Failures", stage: str, measure: str, page: Path
) -> dict[str, object]:
    return {
        "page": str(page),
        "stage": stage,
        "measure": measure,
        "queries": found.num_scored,
        "failed": found.num_failed,
        "worst": [
            {
                "query": saved.queries[failure.query],
                "value": failure.value,
                "first_right": failure.first_right,
                "wrong": None if failure.wrong is None else saved.names[failure.wrong.database_id],
            }
            for failure in found.worst
        ],
    }
