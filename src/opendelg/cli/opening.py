"""Options that several commands share, and what they open."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from opendelg.collection import Collection, Recipe
    from opendelg.extraction import ExtractionConfig, Extractor
    from opendelg.weights import Weights

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
    from opendelg.weights import DEFAULT_MODEL, load_weights

    return make_extractor(
        load_weights(model or DEFAULT_MODEL), profile(profile_name or "balanced"), device, threads
    )


def make_extractor(
    weights: "Weights", config: "ExtractionConfig", device: Device, threads: int | None
) -> "Extractor":
    """An extractor of known parts."""
    from opendelg.extraction import Extractor
    from opendelg.runtime import choose_runtime

    return Extractor(weights, config, choose_runtime(weights, device, threads))


def extractor_of(
    collection: "Collection",
    device: Device,
    threads: int | None,
    model: str | None = None,
    profile_name: str | None = None,
) -> "Extractor":
    """The extractor that made a collection.

    Args:
        collection: Names the weights and settings.
        device: Where the network runs.
        threads: CPU threads.
        model: Where the weights are now, if not where they were.
        profile_name: A profile that must be the collection's.

    Raises:
        FormatError: If the weights or the profile are not the collection's.
    """
    from opendelg.extraction import ExtractionConfig, profile
    from opendelg.settings import read_settings
    from opendelg.weights import load_weights

    recipe = collection.recipe
    weights = load_weights(model or recipe.weights_name)
    config = (
        read_settings(ExtractionConfig, recipe.extraction, str(collection.folder))
        if profile_name is None
        else profile(profile_name)
    )
    collection.require_recipe(recipe_of(weights, config, model or recipe.weights_name))
    return make_extractor(weights, config, device, threads)


def recipe_of(weights: "Weights", config: "ExtractionConfig", name: str) -> "Recipe":
    """What a collection keeps of its extractor; a file goes by its absolute path."""
    from opendelg.collection import Recipe
    from opendelg.settings import settings_as_dict
    from opendelg.weights import PUBLISHED

    known_as = name if name in PUBLISHED else str(Path(name).expanduser().absolute())
    return Recipe(known_as, weights.sha256, settings_as_dict(config), weights.model)


def print_json(value: dict[str, Any]) -> None:
    """Print one object; undecodable bytes of file names become escapes."""
    print(json.dumps(value, ensure_ascii=True))


def shown(path: Path | str) -> str:
    """A path that can be printed whatever its bytes are."""
    return str(path).encode("utf-8", "backslashreplace").decode("utf-8")
