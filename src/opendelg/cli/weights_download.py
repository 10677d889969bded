"""`delg weights download`."""

from typing import Annotated

import typer

from opendelg.cli.opening import JsonOption, print_json


def download(
    name: Annotated[str, typer.Argument(help="One of the names of `delg weights list`.")],
    base_url: Annotated[
        str | None,
        typer.Option("--base-url", metavar="URL", help="A mirror of the official archives."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Fetch an official model once and convert it; --model takes its name from then on.

    A download that was cut off goes on where it stopped. Files lie in the folder that
    OPENDELG_CACHE names, by default ~/.cache/opendelg.

    \b
    delg weights download r50-gldv2clean
    """
    from opendelg.cli.progress import byte_progress
    from opendelg.weights.download import download

    with byte_progress(name) as show:
        path = download(name, base_url=base_url, progress=show)
    if json:
        print_json({"name": name, "path": str(path), "bytes": path.stat().st_size})
    else:
        print(f"{name}: {path}")
