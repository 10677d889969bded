"""`delg index`."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from opendelg.cli.opening import (
    BytesOption,
    ConfigOption,
    Device,
    DeviceOption,
    FeatureOptions,
    FeaturesOption,
    JsonOption,
    KeypointsOption,
    ModelOption,
    ProfileOption,
    ThreadsOption,
    open_with_extractor,
    print_json,
    read_config,
    shown,
)
from opendelg.cli.progress import progress

if TYPE_CHECKING:
    from opendelg.indexing import IndexReport


def index(
    photos: Annotated[
        list[Path], typer.Argument(help="Photos, folders of photos, or tars of photos.")
    ],
    collection: Annotated[
        str,
        typer.Option("--collection", "-c", help="Folder to write, or address on a cluster."),
    ],
    model: ModelOption = None,
    profile: ProfileOption = None,
    config: ConfigOption = None,
    features: FeaturesOption = None,
    keypoints: KeypointsOption = None,
    bytes_per_image: BytesOption = None,
    update: Annotated[
        bool, typer.Option("--update", help="Also index changed photos anew and drop deleted ones.")
    ] = False,
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray", metavar="ADDRESS", help="Ray cluster that extracts; --threads for each task."
        ),
    ] = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    json: JsonOption = False,
) -> None:
    """Index photos, so that they can be searched.

    Run it again after an interruption: it continues.  Photos that cannot be read are listed and
    the exit status is 3; all others are indexed.

    \b
    delg index ~/Photos --collection photos.delg
    delg index ~/Photos --collection photos.delg --update
    delg index scans/*.tif --collection scans.delg --profile accurate
    delg index archive.tar --collection archive.delg
    delg index ~/Photos --collection photos.delg --bytes-per-image 30000
    """
    from opendelg.errors import OpenDelgError
    from opendelg.finding import require_paths
    from opendelg.indexing import index_photos, plan_indexing

    started = time.monotonic()
    require_paths(photos)  # before anything is created
    settings = read_config(config, profile)
    if settings is not None and not settings.want_global:
        raise OpenDelgError(
            f"use_global_features must be true, got false in {str(config)!r}; "
            "a collection is searched by global descriptors first"
        )
    kept = FeatureOptions(features, keypoints, bytes_per_image)
    here: Device = "auto" if ray is not None else device  # tasks have devices of their own
    opened, extractor = open_with_extractor(
        collection, model, profile, here, threads, settings, kept
    )
    with opened:
        plan = plan_indexing(opened, photos)
        with progress("indexing", len(plan.work(update))) as advance:
            if ray is not None:
                from opendelg.indexing_ray import index_on_ray

                report = index_on_ray(
                    opened, extractor, plan, ray, device, threads or 1, update, advance
                )
            else:
                report = index_photos(
                    opened,
                    extractor,
                    plan,
                    update,
                    batch_size=extractor.batch_size,
                    progress=advance,
                )
        num_images = len(opened)
    _print(report, num_images, collection, time.monotonic() - started, json)
    if report.failures:
        raise typer.Exit(3)


def _print(
    report: "IndexReport", num_images: int, collection: str, seconds: float, as_json: bool
) -> None:
    for path, reason in report.failures:
        print(f"unreadable: {shown(path)}: {shown(reason)}", file=sys.stderr)
    if as_json:
        print_json(
            {
                "collection": collection,
                "images": num_images,
                "added": report.num_added,
                "updated": report.num_updated,
                "removed": report.num_removed,
                "unchanged": report.num_unchanged,
                "outdated": report.num_outdated,
                "failures": [
                    {"path": str(path), "reason": reason} for path, reason in report.failures
                ],
                "seconds": round(seconds, 3),
            }
        )
        return
    print(
        f"{shown(collection)}: {num_images} images ({report.num_added} added, "
        f"{report.num_updated} updated, {report.num_removed} removed, "
        f"{len(report.failures)} unreadable) in {seconds:.1f} s"
    )
    if report.num_outdated:
        print(f"{report.num_outdated} photos have changed since; --update indexes them anew")
