"""`delg demo`."""

import sys
import time
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
    shown,
)
from opendelg.cli.progress import progress

if TYPE_CHECKING:
    from opendelg.demo import DemoQuery, DemoReport
    from opendelg.search import Searcher

NUM_QUERIES = 6
TOWN_WORD = "These photos are rendered, not real: a small town drawn by this program."


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

    \b
    delg demo
    delg demo ~/Photos --out /tmp/demo
    """
    from opendelg.indexing import index_photos, plan_indexing
    from opendelg.search import SearchConfig, Searcher

    started = time.monotonic()
    extractor = open_extractor(model, profile, device, threads)
    source, queries = (photos, []) if photos is not None else _town(out / "town")
    with open_or_create(out / "photos.delg", extractor) as opened:
        plan = plan_indexing(opened, [source])
        with progress("indexing", len(plan.new) + len(plan.changed)) as advance:
            report = index_photos(opened, extractor, plan, update=True, progress=advance)
        for path, reason in report.failures:
            print(f"unreadable: {shown(path)}: {shown(reason)}", file=sys.stderr)
        searcher = Searcher(opened, extractor, SearchConfig())
        found = _search(searcher, queries, out, None if photos is None else photos)
        num_images = len(opened)
    _print(found, num_images, time.monotonic() - started, json)


def _town(folder: Path) -> tuple[Path, list["DemoQuery"]]:
    """Render the town: its database photos, and some of its queries, one with no match."""
    from opendelg.datasets.town import render_town
    from opendelg.demo import DemoQuery

    with progress("rendering", 1) as advance:
        town = render_town(folder)
        advance(folder)
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
