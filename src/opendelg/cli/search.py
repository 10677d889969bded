"""`delg search`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from opendelg.cli.opening import (
    AlphaOption,
    BoxOption,
    CollectionArgument,
    DeviceOption,
    ExpandOption,
    ExpandVerifiedOption,
    JsonOption,
    ModelOption,
    ThreadsOption,
    parse_id,
    parse_settings,
    print_json,
    read_box,
    shown,
)

if TYPE_CHECKING:
    from opendelg.extraction import Box
    from opendelg.search import Searcher, SearchResponse


def search(
    collection: CollectionArgument,
    query: Annotated[str, typer.Argument(help="A photo, or id:N for image N of the collection.")],
    box: BoxOption = None,
    top: Annotated[int, typer.Option("--top", min=1, help="Results.")] = 20,
    rerank: Annotated[
        int, typer.Option("--rerank", min=0, help="Candidates that are verified; 0: none.")
    ] = 100,
    expand: ExpandOption = 0,
    alpha: AlphaOption = 3.0,
    expand_verified: ExpandVerifiedOption = False,
    html: Annotated[
        Path | None,
        typer.Option("--html", help="Folder for a page with the evidence and a PNG per pair."),
    ] = None,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    json: JsonOption = False,
) -> None:
    """Find the photos that show the same thing as a photo, best first.

    Column `same` is the probability that a result shows the same thing.

    \b
    delg search photos.delg query.jpg
    delg search photos.delg query.jpg --box 120,80,620,540 --html out/
    delg search photos.delg id:17 --top 5 --json
    delg search photos.delg query.jpg --expand-verified
    """
    from opendelg.answers import response_as_dict
    from opendelg.collection import Collection
    from opendelg.expansion import ExpansionConfig
    from opendelg.recipes import extractor_for
    from opendelg.search import SearchConfig, Searcher

    corners = read_box(box)
    expansion = parse_settings(
        ExpansionConfig, nearest=expand, alpha=alpha, verified=expand_verified
    )
    config = parse_settings(SearchConfig, top=top, rerank=rerank, expansion=expansion)
    with Collection.open(collection, read_only=True) as opened:
        extractor = extractor_for(opened, device, threads, model)
        searcher = Searcher(opened, extractor, config)
        path, image_id, response = _search(searcher, query, corners)
        # First the answer: a full disk may cost the evidence, not more.
        if json:
            print_json(response_as_dict(response, str(path), image_id, corners))
        else:
            _print(response, len(opened))
        if html is not None:
            _write_evidence(html, path, corners, response, searcher)
            if not json:
                print(f"evidence: {shown(html / 'index.html')}")


def _search(
    searcher: "Searcher", query: str, box: "Box | None"
) -> tuple[Path, int | None, "SearchResponse"]:
    """Path and id of the query, and the answer; an id is looked up, a file is extracted."""
    from opendelg.image import read_image

    number = parse_id(query)
    if number is not None:
        image = searcher.collection.image(number)
        if box is None:
            return image.path, image.id, searcher.search_stored(image.id)
        return image.path, image.id, searcher.search(read_image(image.path), box, image.id)
    path = Path(query)
    draft = searcher.extractor.config.draft_size if box is None else None
    response = searcher.search(read_image(path, draft_size=draft), box)
    return path, searcher.collection.find(path), response


def _write_evidence(
    folder: Path,
    path: Path,
    box: "Box | None",
    response: "SearchResponse",
    searcher: "Searcher",
) -> None:
    from opendelg.answers import evidence_settings, query_side, result_evidence
    from opendelg.evidence import png_name, remove_earlier_evidence, write_page, write_png

    side = query_side(path, response.query)
    evidences = [result_evidence(result, response.query, side) for result in response.results]
    settings = evidence_settings(searcher, shown(searcher.collection.location))
    if response.expanded_with is not None:
        settings["Query"] = f"expanded with {_photos(len(response.expanded_with))}"
    remove_earlier_evidence(folder)
    write_page(side, box, evidences, folder, seconds=response.seconds, settings=settings)
    for evidence in evidences:
        write_png(evidence, folder / png_name(evidence), query_box=box)


def _print(response: "SearchResponse", num_images: int) -> None:
    candidates = [result.candidate for result in response.results]
    if not candidates:
        print("The collection is empty" if num_images == 0 else "No other photo is in it")
        return
    if all(found.verification is None for found in candidates):
        print("Not verified (--rerank 0); the most similar photos are:")
    elif all(found.same is None for found in candidates):
        print("Not rated, as these weights have no model of `same`; the best photos are:")
    elif not any(found.is_confident for found in candidates):
        print("No confident match; the most similar photos are:")
    if response.expanded_with is not None:
        print(f"The query was expanded with {_photos(len(response.expanded_with))}")
    print("rank   same  inliers  similarity  photo")
    for result in response.results:
        found = result.candidate
        same = "   -" if found.same is None else f"{found.same:4.0%}"
        print(
            f"{result.rank:4d}  {same:>5s}  {found.num_inliers:7d}  {found.similarity:10.3f}  "
            f"{shown(result.image.path)}"
        )
    seconds = response.seconds
    print(f"{seconds['total']:.2f} s, of them {seconds['verify']:.2f} s of verification")


def _photos(count: int) -> str:
    return f"{count} photo" if count == 1 else f"{count} photos"
