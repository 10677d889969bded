"""`delg extract`."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from opendelg.cli.opening import (
    ConfigOption,
    DeviceOption,
    JsonOption,
    ModelOption,
    ProfileOption,
    ThreadsOption,
    open_extractor,
    print_json,
    read_config,
    shown,
)
from opendelg.cli.progress import progress


def extract(
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of images.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the feature files.")],
    format: Annotated[
        Literal["npz", "delg", "h5", "kapture"],
        typer.Option("--format", help="Kind of files: our own, DELG's, hloc's or kapture's."),
    ] = "npz",
    model: ModelOption = None,
    profile: ProfileOption = None,
    config: ConfigOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    json: JsonOption = False,
) -> None:
    """Write the features of each image to files.

    Features that the same model and settings made are kept unless the image is newer, so an
    interrupted run continues.  Images that cannot be read are listed and the exit status is 3.

    \b
    delg extract photos/ --out features/
    delg extract a.jpg b.jpg --out features/ --profile paper
    delg extract photos/ --out features/ --format delg --config r50delg_gldv2clean_config.pbtxt
    """
    from opendelg.errors import ImageError
    from opendelg.extraction import extract_stream
    from opendelg.feature_files import open_folder
    from opendelg.image import find_images
    from opendelg.recipes import recipe_of

    settings = read_config(config, profile)
    failures: list[tuple[Path, str]] = []

    def tell(path: Path, reason: str) -> None:
        failures.append((path, reason))
        print(f"unreadable: {shown(path)}: {shown(reason)}", file=sys.stderr)

    def tell_folder(error: OSError) -> None:
        reason = (error.strerror or str(error)).lower()
        tell(Path(error.filename), f"folder must be readable, got {reason!r}")

    folder = open_folder(
        format,
        out,
        find_images(images, tell_folder),
        images,
        want_local=settings is None or settings.want_local,
        want_global=settings is None or settings.want_global,
    )
    extractor = open_extractor(model, profile, device, threads, settings)
    folder.claim(recipe_of(extractor))
    work = [image for image in folder.images if not folder.is_current(image)]
    num_kept = len(folder.images) - len(work)
    num_written = 0
    with progress("extracting", len(work)) as advance:
        for image, features in extract_stream(work, extractor, decode_threads=2):
            if isinstance(features, ImageError):
                tell(image, str(features))
            else:
                folder.write(image, features)
                num_written += 1
            advance(image)
    folder.finish()
    if json:
        print_json(
            {
                "out": str(out),
                "written": num_written,
                "kept": num_kept,
                "failures": [{"path": str(path), "reason": reason} for path, reason in failures],
            }
        )
    else:
        print(f"{shown(out)}: {num_written} written, {num_kept} kept, {len(failures)} unreadable")
    if failures:
        raise typer.Exit(3)
