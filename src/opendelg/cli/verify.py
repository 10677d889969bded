"""`delg verify`."""

import typer

from opendelg.cli.opening import CollectionArgument, JsonOption, print_json


def verify(collection: CollectionArgument, json: JsonOption = False) -> None:
    """Read a whole collection and list every fault; exit status 1 if there is one.

    \b
    delg verify photos.delg
    """
    from opendelg.collection import Collection

    with Collection.open(collection, read_only=True) as opened:
        problems = opened.verify()
        num_images = len(opened)
    if json:
        print_json({"ok": not problems, "images": num_images, "problems": problems})
    else:
        for problem in problems:
            print(problem)
        print(f"{num_images} images, {len(problems)} faults")
    if problems:
        raise typer.Exit(1)
