"""`delg plan`."""

import dataclasses
import shutil
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from opendelg.cli.opening import (
    BytesOption,
    ConfigOption,
    DeviceOption,
    FeatureOptions,
    FeaturesOption,
    JsonOption,
    KeypointsOption,
    ModelOption,
    ProfileOption,
    ThreadsOption,
    open_extractor,
    print_json,
    read_config,
    shown,
)

if TYPE_CHECKING:
    from opendelg.forecast import Forecast

PHOTO_SIZE = (1600, 1200)  # px of rendered photos


def plan(
    photos: Annotated[
        list[Path] | None, typer.Argument(help="Photos, folders of photos, or tars of photos.")
    ] = None,
    n: Annotated[
        int | None, typer.Option("--n", min=1, help="Photos to plan for; default: those given.")
    ] = None,
    collection: Annotated[
        Path, typer.Option("--collection", "-c", help="Where the collection is to be.")
    ] = Path(),
    sample: Annotated[
        int, typer.Option("--sample", min=1, help="Photos that are measured; more are surer.")
    ] = 16,
    model: ModelOption = None,
    profile: ProfileOption = None,
    config: ConfigOption = None,
    features: FeaturesOption = None,
    keypoints: KeypointsOption = None,
    bytes_per_image: BytesOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    json: JsonOption = False,
) -> None:
    """Tell the hours, memory and disk that indexing and searching photos takes, before any of it.

    A few of the photos (rendered ones, if none are given) are extracted, indexed and searched in a
    temporary folder; bytes follow from the collection's layout.

    \b
    delg plan ~/Photos
    delg plan ~/Photos --n 1000000 --profile fast
    delg plan --n 1000000 --collection /disks/large/photos.delg --json
    """
    from opendelg.collection.cluster.address import is_cluster
    from opendelg.errors import OpenDelgError
    from opendelg.forecast import advice, forecast
    from opendelg.memory import installed_memory

    if is_cluster(collection):
        raise OpenDelgError(
            f"collection must be in a folder to be planned, got {str(collection)!r}; leave it out "
            "to plan the extraction, docs/cluster.md tells the sizes of a cluster"
        )
    if not photos and n is None:
        raise typer.BadParameter("photos or --n must be given, got neither", param_hint="PHOTOS")
    kept = FeatureOptions(features, keypoints, bytes_per_image)
    settings = read_config(config, profile)
    extractor = open_extractor(model, profile, device, threads, settings, kept)
    with ExitStack() as stack:
        if not photos:
            photos = [_rendered(Path(stack.enter_context(TemporaryDirectory())), sample)]
        found = forecast(photos, extractor, n, sample, extractor.batch_size)
    memory, free = installed_memory(), _free_disk(collection)
    told = advice(found, free, memory)
    if json:
        print_json(_as_dict(found) | {"free_disk": free, "memory": memory, "advice": told})
    else:
        _print(found, free, memory, told)


def _rendered(folder: Path, count: int) -> Path:
    """A folder of at least so many drawn photos."""
    from opendelg.datasets.town import render_town

    town = render_town(
        folder,
        num_places=-(-count // 4),
        views_per_place=5,
        num_distractors=0,
        size=PHOTO_SIZE,
    )
    return town.database[0].parent


def _free_disk(place: Path) -> int:
    """Bytes free where a folder is, or will be made."""
    there = place.absolute()
    while not there.exists():
        there = there.parent
    return shutil.disk_usage(there).free


def _as_dict(found: "Forecast") -> dict[str, Any]:
    return dataclasses.asdict(found) | {"search_s": found.search_s, "disk": found.sizes.disk}


def _print(found: "Forecast", free: int, memory: int | None, told: list[str]) -> None:
    sizes = found.sizes
    process = found.process_memory or 0
    unreadable = f", {found.num_unreadable} unreadable" if found.num_unreadable else ""
    print(f"photos: {found.num_images:,}; measured on {found.num_measured}{unreadable}")
    print(
        f"extraction: {_time(found.extraction_s)}, "
        f"{found.extraction_s / found.num_images:.3f} s a photo, {_size(process)} of memory"
    )
    print(
        f"search index: {_time(found.indexing_s)}, {_size(process + sizes.index_memory)} of memory"
    )
    print(
        f"disk: {_size(sizes.disk)} (catalogue {_size(sizes.catalogue)}, index "
        f"{_size(sizes.index)}), {found.image_bytes / 1e3:.1f} kB a photo with "
        f"{found.keypoints_per_image:.0f} keypoints; {_size(free)} are free"
    )
    print(
        f"a search: {found.search_s:.2f} s (query {found.query_s:.2f}, nearest "
        f"{found.nearest_s:.3f}, verification {found.verification_s:.2f}), "
        f"{_size(process + sizes.search_memory)} of memory"
        + (f", {_size(sizes.mapped)} of descriptors mapped" if sizes.mapped else "")
        + ("" if memory is None else f"; this machine has {_size(memory)}")
    )
    for line in told:
        print(shown(line))


def _time(seconds: float) -> str:
    for unit, length in (("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"


def _size(num_bytes: float) -> str:
    for unit, length in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if num_bytes >= length:
            return f"{num_bytes / length:.1f} {unit}"
    return f"{num_bytes / 1e3:.1f} kB"
