"""`delg demo`."""

import hashlib
import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
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
    shown,
)
from opendelg.cli.progress import progress

if TYPE_CHECKING:
    from opendelg.demo import DemoQuery, DemoReport
    from opendelg.search import Searcher

NUM_QUERIES = 6
TOWN_WORD = (
    "These photos are rendered, not real: a small town drawn by this program. The probabilities "
    "were fitted on real photos and on two other such towns. Two towers of one make can still be "
    "called the same: look at the windows that the lines join."
)


def demo(
    photos: Annotated[
        Path | None, typer.Argument(help="Folder of photos; without, a small town is rendered.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for all that the demo makes.")] = Path(
        "demo"
    ),
    model: ModelOption = None,
    profile: ProfileOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    json: JsonOption = False,
) -> None:
    """Index photos, search them, and write a page with the evidence.

    Photos that cannot be read are listed and the exit status is 3.

    \b
    delg demo
    delg demo ~/Photos --out /tmp/demo
    """
    from opendelg.errors import OpenDelgError
    from opendelg.image import find_images
    from opendelg.indexing import index_photos, plan_indexing
    from opendelg.search import SearchConfig, Searcher

    started = time.monotonic()
    if photos is not None and not find_images([photos]):
        raise OpenDelgError(f"photos must hold an image, got none in {str(photos)!r}")
    source, queries = (photos, []) if photos is not None else _town(out / "town")
    folder = out / _collection_name(photos)
    opened, extractor = open_with_extractor(folder, model, profile, device, threads)
    with opened:
        plan = plan_indexing(opened, [source])
        with progress("indexing", len(plan.work(update=True))) as advance:
            report = index_photos(opened, extractor, plan, update=True, progress=advance)
        for path, reason in report.failures:
            print(f"unreadable: {shown(path)}: {shown(reason)}", file=sys.stderr)
        if len(opened) == 0:
            raise OpenDelgError(f"photos must hold a readable image, got none in {str(source)!r}")
        searcher = Searcher(opened, extractor, SearchConfig())
        found = _search(searcher, queries, out, None if photos is None else photos)
        num_images = len(opened)
    _print(found, num_images, time.monotonic() - started, json)
    if report.failures:
        raise typer.Exit(3)


def _collection_name(photos: Path | None) -> str:
    """One collection per folder of photos, so that demos do not show each other's."""
    if photos is None:
        return "town.delg"
    real = os.path.realpath(photos)
    return f"{os.path.basename(real)[:60]}-{hashlib.sha256(os.fsencode(real)).hexdigest()[:8]}.delg"


def _town(folder: Path) -> tuple[Path, list["DemoQuery"]]:
    """Render the town: its database photos, and some of its queries, one with no match."""
    from opendelg.datasets.town import render_town
    from opendelg.demo import DemoQuery

    with ExitStack() as stack:
        advances: list[Callable[[object], None]] = []

        def tell(done: int, total: int) -> None:
            if not advances:  # the first call brings the total
                advances.append(stack.enter_context(progress("rendering", total)))
            advances[0](done)

        town = render_town(folder, progress=tell)
    chosen = [*town.queries[:: max(1, len(town.queries) // (NUM_QUERIES - 1))]][: NUM_QUERIES - 1]
    return folder / "photos", [DemoQuery(path) for path in (*chosen, town.unknown_queries[0])]


def _search(
    searcher: "Searcher", queries: list["DemoQuery"], out: Path, photos: Path | None
) -> "DemoReport":
    from opendelg.demo import choose_queries, search_and_show

    queries = queries or choose_queries(searcher, NUM_QUERIES)
    about = TOWN_WORD if photos is None else f"Photos below {shown(photos)}."
    with progress("searching", len(queries)) as advance:
        return search_and_show(searcher, queries, out, about, advance)


def _print(report: "DemoReport", num_images: int, seconds: float, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "page": str(report.page),
                "images": num_images,
                "queries": len(report.responses),
                "seconds": round(seconds, 3),
            }
        )
    else:
        print(f"{num_images} photos indexed, {len(report.responses)} searched in {seconds:.0f} s")
        print(f"look at {shown(report.page)}")
