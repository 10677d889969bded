"""`delg weights calibrate`."""

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


def calibrate(
    model: Annotated[str, typer.Argument(help="Name or file of the weights.")],
    labelled: Annotated[
        list[Path],
        typer.Argument(help="Folders or tars; in one folder all show the same thing."),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", callback=writable, help="Weights file to write.")
    ],
    distractors: Annotated[
        list[Path], typer.Option("--distractors", help="Photos that show nothing of the labelled.")
    ] = [],  # noqa: B006
    towns: Annotated[
        list[int],
        typer.Option("--town", min=0, help="Seed of a rendered town to fit on as well."),
    ] = [],  # noqa: B006
    profile: ProfileOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    json: JsonOption = False,
) -> None:
    """Fit the probability `same` of a model on your own photos of known places.

    Take photos that the model was not trained on. Every photo searches all others; the pairs that
    are verified, right and wrong, are what the probability is fitted to.

    \b
    delg weights calibrate r50-gldv2clean ~/places --distractors ~/others -o r50-places.safetensors
    """
    from opendelg.finding import require_paths
    from opendelg.training.calibration import find_pairs, fit_pairs, log_loss, store_same
    from opendelg.training.config import CalibrationConfig
    from opendelg.weights import read_weights

    require_paths([*labelled, *distractors])
    extractor = open_extractor(model, profile, device, threads)
    if out.exists() and out.samefile(extractor.weights.path):
        raise typer.BadParameter("out must be another file than MODEL", param_hint="--out")
    config = CalibrationConfig(
        folders=tuple(map(str, labelled)),
        distractors=tuple(map(str, distractors)),
        towns=tuple(towns),
    )
    pairs = find_pairs(extractor, config, progress=progress)
    same = fit_pairs(pairs)
    store_same(extractor.weights, same, pairs, out)
    made = read_weights(out)
    loss = log_loss(same, pairs)
    if json:
        print_json(
            {
                "path": str(out),
                "name": made.name,
                "sha256": made.sha256,
                "pairs": len(pairs),
                "right_pairs": int(pairs.is_same.sum()),
                "log_loss": loss,
                "same": vars(same),
            }
        )
    else:
        print(
            f"{shown(out)}: {shown(made.name)}, fitted on {len(pairs)} pairs, "
            f"{pairs.is_same.sum()} of them right, log loss {loss:.3f}"
        )
