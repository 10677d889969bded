"""`delg remove`."""

from pathlib import Path
from typing import Annotated

import typer

from opendelg.cli.opening import CollectionArgument, JsonOption, parse_id, print_json


def remove(
    collection: CollectionArgument,
    images: Annotated[list[str], typer.Argument(help="Paths of photos, or id:N for image N.")],
    json: JsonOption = False,
) -> None:
    """Remove images from a collection: all that are named, or none if one is not there.

    The photos themselves stay.  They come back if their folder is indexed again.

    \b
    delg remove photos.delg ~/Photos/private.jpg id:17
    """
    from opendelg.collection import Collection

    items: list[int | Path] = []
    for text in images:
        image_id = parse_id(text)
        items.append(Path(text) if image_id is None else image_id)
    with Collection.open(collection) as opened:
        with opened.batch():
            num_removed = opened.remove(items)
        opened.update_index()
        num_images = len(opened)
    if json:
        print_json({"removed": num_removed, "images": num_images})
    else:
        print(f"{num_removed} removed, {num_images} images left")
