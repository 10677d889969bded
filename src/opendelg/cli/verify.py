"""`delg verify`."""

from typing import Annotated

import typer

from opendelg.cli.opening import CollectionArgument, JsonOption, print_json


def verify(
    collection: CollectionArgument,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair", help="Remove what belongs to no image, and images that lack a part."
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Read a whole collection and list every fault; exit status 1 if there is one.

    Index the photos of images that --repair removed again: it is the same command as before.

    \b
    delg verify photos.delg
    delg verify photos.delg --repair
    """
    from opendelg.collection import Collection

    with Collection.open(collection, read_only=not repair) as opened:
        repaired = opened.repair() if repair else []
        problems = opened.verify()
        num_images = len(opened)
    if json:
        values = {"ok": not problems, "images": num_images, "problems": problems}
        print_json(values | ({"repaired": repaired} if repair else {}))
    else:
        for line in repaired:
            print(line)
        for problem in problems:
            print(problem)
        print(f"{num_images} images, {len(problems)} faults")
    if problems:
        raise typer.Exit(1)
