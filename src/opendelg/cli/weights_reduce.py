"""`delg weights reduce`."""

from pathlib import Path
from typing import Annotated

import typer

from opendelg.cli.opening import (
    DeviceOption,
    JsonOption,
    ProfileOption,
    ThreadsOption,
    open_extractor,
    print_json,
    shown,
    writable,
)
from opendelg.cli.progress import progress


def reduce(
    model: Annotated[str, typer.Argument(help="Name or file of the weights.")],
    photos: Annotated[list[Path], typer.Argument(help="Photos, folders or tars to learn on.")],
    dimensions: Annotated[
        int, typer.Option("--dimensions", min=1, help="Length of the new global descriptors.")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", callback=writable, help="Weights file to write.")
    ],
    profile: ProfileOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    json: JsonOption = False,
) -> None:
    """Make a model with shorter global descriptors: PCA, learnt on photos like those to be indexed.

    The new file is a model like any other; local features stay the same.

    \b
    delg weights reduce r50-gldv2clean ~/Photos --dimensions 512 --out r50-512.safetensors
    delg index ~/Photos --collection photos.delg --model r50-512.safetensors
    """
    from opendelg.finding import find_photos, require_paths
    from opendelg.reduction import chosen, learn_axes, write_reduced
    from opendelg.weights import read_weights

    require_paths(photos)
    extractor = open_extractor(model, profile, device, threads)
    if out.exists() and out.samefile(extractor.weights.path):
        raise typer.BadParameter("out must be another file than MODEL", param_hint="--out")
    found = find_photos(photos)
    with progress("learning", len(chosen(found))) as advance:
        axes, kept = learn_axes(extractor, found, dimensions, advance)
    write_reduced(extractor.weights, axes, kept, out)
    made = read_weights(out)
    if json:
        print_json(
            {
                "path": str(out),
                "name": made.name,
                "sha256": made.sha256,
                "dimensions": dimensions,
                "dimensions_before": len(axes),
                "kept": kept,
            }
        )
    else:
        print(
            f"{shown(out)}: {shown(made.name)}, {dimensions} of {len(axes)} dimensions, "
            f"{100 * kept:.2f} % of the squared length kept"
        )
