"""`delg train`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from opendelg.cli.opening import JsonOption, print_json, shown


def train(
    config: Annotated[Path, typer.Argument(help="YAML file of the run's settings.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="Settings that differ from the file; dots lead inside: optimiser.kind=adamw.",
        ),
    ] = None,
    root: Annotated[
        Path, typer.Option("--root", help="Folder below which photos, teachers and start_from lie.")
    ] = Path(),
    json: JsonOption = False,
) -> None:
    """Train a model as a YAML file says; run again to resume.

    \b
    delg train configs/starter.yaml --root ~/training-data
    delg train configs/starter.yaml --root ~/training-data steps=200 output=/tmp/trial
    """
    import logging
    import sys
    from contextlib import redirect_stdout

    from opendelg.errors import OpenDelgError
    from opendelg.settings import read_settings
    from opendelg.training.config import TrainingConfig

    values = _read_yaml(config)
    for override in overrides or []:
        names, value = _parse_override(override)
        values = _overridden(values, names, value)
    settings = read_settings(TrainingConfig, values, repr(shown(config)))
    try:
        from opendelg.training.run import train as run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "lightning":
            raise
        raise OpenDelgError(
            "lightning must be installed for training, got no such package; "
            "pip install 'opendelg[train]'"
        ) from error
    # Lightning tells its tips at INFO, whatever the root logger's level is.
    logging.getLogger("lightning.pytorch").setLevel(logging.getLogger().level)
    # Its progress bar goes to stdout, which is kept for the result.
    with redirect_stdout(sys.stderr):
        weights = run(settings, root)
    if json:
        print_json({"weights": str(weights)})
    else:
        print(shown(weights))


def _read_yaml(path: Path) -> Any:
    import yaml

    from opendelg.errors import FormatError

    if not path.is_file():
        raise FileNotFoundError(f"config must be a file, got {shown(path)!r}")
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise FormatError(f"config must be YAML, got {reason} in {shown(path)!r}") from error


def _parse_override(override: str) -> tuple[list[str], Any]:
    """Names and value of one KEY=VALUE."""
    import yaml

    key, equals, text = override.partition("=")
    names = key.split(".")
    if not equals or not all(names):
        raise typer.BadParameter(f"setting must be KEY=VALUE, got {override!r}")
    try:
        return names, yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise typer.BadParameter(f"value must be YAML, got {override!r}") from error


def _overridden(values: Any, names: list[str], value: Any) -> dict[str, Any]:
    """Nested settings with one of them set; a section without content is None in YAML."""
    section = {} if values is None else values
    if not isinstance(section, dict):
        raise typer.BadParameter(f"setting must be in a section, got {names[0]!r} in {section!r}")
    first, *rest = names
    return section | {first: _overridden(section.get(first), rest, value) if rest else value}
