"""`delg info`."""

import dataclasses

from opendelg.cli.opening import CollectionArgument, JsonOption, print_json, shown


def info(collection: CollectionArgument, json: JsonOption = False) -> None:
    """Describe a collection: photos, model, size on disk, files that could not be read.

    \b
    delg info photos.delg
    delg info photos.delg --json
    """
    from opendelg.collection import Collection

    with Collection.open(collection, read_only=True) as opened:
        found, recipe, failures = opened.info(), opened.recipe, opened.failures()
    values = {
        name: [str(part) for part in value] if isinstance(value, tuple) else value
        for name, value in dataclasses.asdict(found).items()
    }
    values["bytes_per_image"] = round(found.num_bytes / max(1, found.num_images))
    values["extraction"] = dict(recipe.extraction)
    values["failures"] = [{"path": str(f.path), "reason": f.reason} for f in failures]
    if json:
        print_json(values)
        return
    for name, value in values.items():
        if name == "failures":
            for failure in failures:
                print(f"unreadable: {shown(failure.path)}: {shown(failure.reason)}")
        elif name == "roots":
            print("photos below: " + ", ".join(shown(root) for root in found.roots))
        else:
            print(f"{name.replace('_', ' ')}: {shown(str(value))}")
