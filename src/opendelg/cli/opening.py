"""Options that several commands share, and what they open."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from opendelg.collection import Collection
    from opendelg.extraction import Extractor

ProfileName = Literal["fast", "balanced", "accurate", "paper"]
Device = Literal["auto", "cpu", "cuda"]

CollectionArgument = Annotated[Path, typer.Argument(help="Folder that `delg index` made.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
ModelOption = Annotated[
    str | None, typer.Option("--model", help="Name (`delg weights list`) or file of the weights.")
]
ProfileOption = Annotated[
    ProfileName | None, typer.Option("--profile", help="Speed against quality; default balanced.")
]
DeviceOption = Annotated[
    Device, typer.Option("--device", help="Where the network runs; auto takes a GPU if there is.")
]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", min=1, help="CPU threads; default all.")
]
BoxOption = Annotated[
    str | None,
    typer.Option("--box", metavar="X1,Y1,X2,Y2", help="Part of the query, in its pixels."),
]


def parse_box(text: str | None) -> tuple[float, float, float, float] | None:
    """The four numbers of a --box option."""
    if text is None:
        return None
    try:
        x1, y1, x2, y2 = (float(part) for part in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(
            f"box must be four numbers x1,y1,x2,y2, got {text!r}", param_hint="--box"
        ) from error
    return x1, y1, x2, y2


def open_extractor(
    model: str | None, profile_name: str | None, device: Device, threads: int | None
) -> "Extractor":
    """An extractor by names; None is the default."""
    from opendelg.extraction import profile
    from opendelg.recipes import DEFAULT_PROFILE, make_extractor
    from opendelg.weights import DEFAULT_MODEL

    config = profile(profile_name or DEFAULT_PROFILE)
    return make_extractor(model or DEFAULT_MODEL, config, device, threads)


def open_or_create(folder: Path, extractor: "Extractor") -> "Collection":
    """The collection in `folder`, a new one if there is none, made by the extractor or refused."""
    from opendelg.collection import Collection
    from opendelg.recipes import recipe_of

    recipe = recipe_of(extractor)
    if not Collection.exists(folder):
        return Collection.create(folder, recipe, extractor.config.precision)
    collection = Collection.open(folder)
    try:
        collection.require_recipe(recipe)
    except BaseException:
        collection.close()
        raise
    return collection


def print_json(value: dict[str, Any]) -> None:
    """Print one object; undecodable bytes of file names become escapes."""
    print(json.dumps(value, ensure_ascii=True))


def shown(path: Path | str) -> str:
    """A path that can be printed whatever its bytes are."""
    return str(path).encode("utf-8", "backslashreplace").decode("utf-8")
