"""Search a collection with a few of its photos and write one page over all evidence."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
from jinja2 import Environment, PackageLoader

from opendelg.answers import query_side, result_evidence
from opendelg.evidence import png_name, remove_earlier_evidence, write_page, write_png
from opendelg.image import read_image
from opendelg.search import Searcher, SearchResponse
from opendelg.whole_files import replacing

RESULTS_SHOWN = 5  # with a PNG each


@dataclass(frozen=True)
class DemoQuery:
    """A photo to search with; an id says it is in the collection: its results leave it out."""

    path: Path
    image_id: int | None = None


@dataclass(frozen=True)
class DemoReport:
    """What was found."""

    page: Path
    responses: tuple[SearchResponse, ...]  # one per query


@dataclass(frozen=True)
class _Card:
    title: str
    page: str  # relative link
    picture: str | None  # relative link of the best pair
    is_match: bool
    verdict: str


def choose_queries(searcher: Searcher, num_queries: int) -> list[DemoQuery]:
    """Photos of the collection, evenly spread over it."""
    ids = searcher.collection.ids()
    chosen = ids[np.linspace(0, len(ids) - 1, min(num_queries, len(ids))).astype(int)]
    return [DemoQuery(image.path, image.id) for image in searcher.collection.images(chosen)]


def search_and_show(
    searcher: Searcher,
    queries: Sequence[DemoQuery],
    folder: Path,
    about: str,
    progress: Callable[[object], None],
) -> DemoReport:
    """Search with every query; write a page for each and ``index.html`` over all.

    Args:
        searcher: Collection and network.
        queries: What to search with.
        folder: Where the pages go.
        about: A sentence on the photos, shown on the page.
        progress: Called after each query.
    """
    cards, responses = [], []
    for number, query in enumerate(queries, start=1):
        if query.image_id is None:
            response = searcher.search(read_image(query.path))
        else:
            response = searcher.search_stored(query.image_id)
        cards.append(_show(query, response, folder, f"query_{number}", searcher))
        responses.append(response)
        progress(query)
    templates = Environment(loader=PackageLoader("opendelg.demo", "."), autoescape=True)
    page = folder / "index.html"
    text = templates.get_template("overview.html.jinja").render(cards=cards, about=about)
    with replacing(page) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")
    return DemoReport(page, tuple(responses))


def _show(
    query: DemoQuery, response: SearchResponse, folder: Path, name: str, searcher: Searcher
) -> _Card:
    """Write one query's page and pictures."""
    side = query_side(query.path, response.query)
    evidences = [result_evidence(result, response.query, side) for result in response.results]
    settings = {"Model": searcher.extractor.weights.name}
    remove_earlier_evidence(folder / name)
    write_page(side, None, evidences, folder / name, seconds=response.seconds, settings=settings)
    for evidence in evidences[:RESULTS_SHOWN]:
        write_png(evidence, folder / name / png_name(evidence))
    best = evidences[0] if evidences else None
    num_matches = sum(evidence.is_confident for evidence in evidences)
    return _Card(
        title=query.path.name,
        page=f"{name}/index.html",
        picture=None if best is None else f"{name}/{quote(png_name(best))}",
        is_match=num_matches > 0,
        verdict="no confident match"
        if num_matches == 0
        else f"{num_matches} confident match{'es' if num_matches > 1 else ''}",
    )
