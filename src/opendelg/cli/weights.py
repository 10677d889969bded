"""`delg weights`."""

from typing import Annotated

import typer

from opendelg.cli.opening import JsonOption, print_json

weights = typer.Typer(help="List and describe weights.", no_args_is_help=True)


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
                    {
                        "name": name,
                        "description": known.description,
                        "is_default": name == DEFAULT_MODEL,
                        "is_here": known.file.is_file(),
                    }
                    for name, known in PUBLISHED.items()
                ]
            }
        )
        return
    for name, known in PUBLISHED.items():
        default = " (default)" if name == DEFAULT_MODEL else ""
        print(f"{name}{default}: {known.description}")


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
    from opendelg.settings import settings_as_dict
    from opendelg.weights import load_weights

    loaded = load_weights(model)
    values = {
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
    if json:
        print_json(values)
        return
    for name, value in values.items():
        if isinstance(value, dict):
            print(f"{name}:")
            for key, item in value.items():
                print(f"  {key}: {item}")
        else:
            print(f"{name}: {value}")
