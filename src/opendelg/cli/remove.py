"""`delg remove`."""

from pathlib import Path
from typing import Annotated

import typer

from opendelg.cli.opening import CollectionArgument, JsonOption, print_json


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
    from opendelg.cli.search import ID_PREFIX
    from opendelg.collection import Collection

    items: list[int | Path] = []
    for text in images:
        number = text.removeprefix(ID_PREFIX)
        is_id = text.startswith(ID_PREFIX) and number.isdecimal()
        items.append(int(number) if is_id else Path(text))
    with Collection.open(collection) as opened:
        with opened.batch():
            num_removed = opened.remove(items)
        opened.update_index()
        num_images = len(opened)
    if json:
        print_json({"removed": num_removed, "images": num_images})
    else:
        print(f"{num_removed} removed, {num_images} images left")
