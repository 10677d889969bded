"""`delg weights`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from opendelg.cli.opening import JsonOption, print_json, shown
from opendelg.cli.weights_download import download

if TYPE_CHECKING:
    from opendelg.weights.published import Published

weights = typer.Typer(help="List, describe and download weights.", no_args_is_help=True)
weights.command()(download)


@weights.command("list")
def list_weights(json: JsonOption = False) -> None:
    """List the weights that --model accepts by name.

    \b
    delg weights list
    """
    from opendelg.weights import DEFAULT_MODEL, PUBLISHED

    if json:
        print_json(
            {
                "weights": [
                    _published_as_dict(known) | {"is_default": name == DEFAULT_MODEL}
                    for name, known in PUBLISHED.items()
                ]
            }
        )
        return
    for name, known in PUBLISHED.items():
        default = " (default)" if name == DEFAULT_MODEL else ""
        here = f"{known.file.stat().st_size / 1e6:.0f} MB" if known.file.is_file() else "not here"
        print(f"{name}{default}: {known.description}; {here}")


def _published_as_dict(known: "Published") -> dict[str, Any]:
    is_here = known.file.is_file()
    return {
        "name": known.name,
        "description": known.description,
        "licence": known.licence,
        "url": known.url,
        "score_threshold": known.score_threshold,
        "is_here": is_here,
        "bytes": known.file.stat().st_size if is_here else None,
    }


@weights.command()
def info(
    model: Annotated[str, typer.Argument(help="Name or file of the weights.")] = "starter",
    json: JsonOption = False,
) -> None:
    """Describe weights: shape of the network, checksum, threshold, training.

    \b
    delg weights info starter
    delg weights info runs/mine/mine.safetensors --json
    """
    from opendelg.weights import PUBLISHED

    known = PUBLISHED.get(model)
    if known is not None and known.url is not None and not known.file.is_file():
        values = _published_as_dict(known) | {"to_get_it": f"delg weights download {known.name}"}
    else:
        values = _loaded_as_dict(model)
    if json:
        print_json(values)
        return
    for name, value in values.items():
        if isinstance(value, dict):
            print(f"{name}:")
            for key, item in value.items():
                print(shown(f"  {key}: {item}"))
        else:
            print(shown(f"{name}: {value}"))


def _loaded_as_dict(model: str) -> dict[str, Any]:
    from opendelg.settings import settings_as_dict
    from opendelg.weights import load_weights

    loaded = load_weights(model)
    return {
        "name": loaded.name,
        "path": str(loaded.path),
        "sha256": loaded.sha256,
        "bytes": loaded.path.stat().st_size,
        "parameters": sum(array.size for array in loaded.state.values()),
        "score_threshold": loaded.score_threshold,
        "same": None if loaded.same is None else settings_as_dict(loaded.same),
        "model": loaded.model,
        "training": loaded.training,
    }
