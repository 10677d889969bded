"""`delg match`."""

from pathlib import Path
from typing import Annotated

import typer

from opendelg.cli.opening import (
    DeviceOption,
    JsonOption,
    ModelOption,
    ProfileOption,
    ThreadsOption,
    open_extractor,
    print_json,
    shown,
)


def match(
    query: Annotated[Path, typer.Argument(help="A photo.")],
    database: Annotated[Path, typer.Argument(help="The photo it is compared with.")],
    draw: Annotated[
        Path | None, typer.Option("--draw", help="PNG of both photos with the matched points.")
    ] = None,
    model: ModelOption = None,
    profile: ProfileOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    json: JsonOption = False,
) -> None:
    """Compare two photos: do they show the same thing, and where?

    \b
    delg match a.jpg b.jpg
    delg match a.jpg b.jpg --draw pair.png --json
    """
    from opendelg.answers import query_side, result_as_dict, result_evidence
    from opendelg.evidence import write_png
    from opendelg.image import read_image
    from opendelg.search import match_images

    extractor = open_extractor(model, profile, device, threads)
    draft = extractor.config.draft_size
    first, second = (read_image(path, draft_size=draft) for path in (query, database))
    features, result = match_images(extractor, first, second, database)
    if draw is not None:
        write_png(result_evidence(result, features, query_side(query, features)), draw)
    if json:
        values = result_as_dict(result)
        del values["rank"], values["id"]
        print_json({"query": {"path": str(query), "size": list(features.size)}, **values})
        return
    same = result.candidate.same
    print(f"same: {'-' if same is None else f'{same:.0%}'}")
    print(f"similarity: {result.candidate.similarity:.3f}")
    print(f"inliers: {result.candidate.num_inliers}")
    if draw is not None:
        print(f"picture: {shown(draw)}")
