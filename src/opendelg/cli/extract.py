"""`delg extract`."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from opendelg.cli.opening import (
    DeviceOption,
    JsonOption,
    ModelOption,
    ProfileOption,
    ThreadsOption,
    open_extractor,
    print_json,
    shown,
)
from opendelg.cli.progress import progress


def extract(
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of images.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the feature files.")],
    format: Annotated[Literal["npz"], typer.Option("--format", help="Kind of file.")] = "npz",
    model: ModelOption = None,
    profile: ProfileOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    json: JsonOption = False,
) -> None:
    """Write the features of each image to a file of its own.

    Files that the same model and profile wrote are kept unless the image is newer, so an
    interrupted run continues.  Images that cannot be read are listed and the exit status is 3.

    \b
    delg extract photos/ --out features/
    delg extract a.jpg b.jpg --out features/ --profile paper
    """
    from opendelg.errors import ImageError, OpenDelgError
    from opendelg.extraction import extract_stream
    from opendelg.feature_files import feature_paths, is_current, write_npz
    from opendelg.image import find_images
    from opendelg.recipes import recipe_of

    if out.exists() and not out.is_dir():
        raise OpenDelgError(f"out must be a folder, got {str(out)!r}; choose another one")
    targets = feature_paths(find_images(images), images, out)
    extractor = open_extractor(model, profile, device, threads)
    recipe = recipe_of(extractor).to_json()
    work = [image for image, path in targets.items() if not is_current(path, image, recipe)]
    failures = []
    with progress("extracting", len(work)) as advance:
        for image, features in extract_stream(work, extractor, decode_threads=2):
            if isinstance(features, ImageError):
                failures.append((image, str(features)))
                print(f"unreadable: {shown(image)}: {shown(str(features))}", file=sys.stderr)
            else:
                write_npz(targets[image], features, recipe)
            advance(image)
    if json:
        print_json(
            {
                "out": str(out),
                "written": len(work) - len(failures),
                "kept": len(targets) - len(work),
                "failures": [{"path": str(path), "reason": reason} for path, reason in failures],
            }
        )
    else:
        print(
            f"{shown(out)}: {len(work) - len(failures)} written, {len(targets) - len(work)} kept, "
            f"{len(failures)} unreadable"
        )
    if failures:
        raise typer.Exit(3)
