"""`delg weights import` and `delg weights check`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from opendelg.cli.opening import JsonOption, ThreadsOption, print_json, shown

if TYPE_CHECKING:
    from opendelg.runtime import Runtime
    from opendelg.weights import Weights


def import_model(
    path: Annotated[
        Path, typer.Argument(help="Saved model folder, .tar.gz of one, or checkpoint.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File to write; default NAME.safetensors.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="What the weights are called.")] = None,
    score_threshold: Annotated[
        float | None,
        typer.Option("--score-threshold", min=0, help="Lowest attention of a local feature."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Turn an official TensorFlow model into a weights file; TensorFlow is not needed.

    Without --score-threshold a released model gets its own one, any other keeps all cells.

    \b
    delg weights import r50delg_gldv2clean_20200914.tar.gz
    delg weights import training/delf_weights --out mine.safetensors --score-threshold 0.2
    """
    from opendelg.weights import read_weights
    from opendelg.weights.tensorflow import import_weights, title_of

    target = out or Path(f"{name or title_of(path)}.safetensors")
    if target.exists() and path.exists() and target.samefile(path):
        raise typer.BadParameter("out must be another file than PATH", param_hint="--out")
    made = read_weights(import_weights(path, target, name=name, score_threshold=score_threshold))
    values = {
        "path": str(made.path),
        "name": made.name,
        "sha256": made.sha256,
        "parameters": sum(array.size for array in made.state.values()),
        "score_threshold": made.score_threshold,
        "model": made.model,
        "training": made.training,
    }
    if json:
        print_json(values)
    else:
        _print_import(values)


def _print_import(values: dict[str, Any]) -> None:
    model, training = values["model"], values["training"]
    print(f"{shown(values['path'])}: {shown(values['name'])}, {values['parameters']:,} parameters")
    print(f"layout: {model['layout']}, units {model['units']}, widths {model['widths']}")
    print(
        f"dimensions: global {model['num_global_dimensions']}, "
        f"local {model['num_local_dimensions']} at stride {model['local_stride']}, "
        f"resized by the {model['resize_rule']} rule"
    )
    found = ", ".join(f"{head} by {how}" for head, how in training["heads_found_by"].items())
    print(f"heads: {found}{'' if model['has_decoder'] else '; no decoder, only training needs it'}")
    if training["assumed"]:
        assumed = ", ".join(f"{setting} {value}" for setting, value in training["assumed"].items())
        print(f"assumed, as no graph tells it: {assumed}")
    for dropped in training["dropped"]:
        print(f"dropped: {shown(dropped)}")
    threshold = values["score_threshold"]
    hint = "" if threshold else ", keeps all; the model's own one is given by --score-threshold"
    print(f"score threshold: {threshold:g}{hint}")


def check(
    model: Annotated[str, typer.Argument(help="Name or file of the weights.")],
    against: Annotated[
        list[Path], typer.Option("--against", help="Outputs of TensorFlow, .npz; more may follow.")
    ],
    images: Annotated[Path, typer.Option("--images", help="Folder of the photos they are of.")],
    more: Annotated[list[Path] | None, typer.Argument(metavar="[EXPECTED]...")] = None,
    runtime: Annotated[
        Literal["both", "onnx", "torch"], typer.Option("--runtime", help="What runs the network.")
    ] = "both",
    threads: ThreadsOption = None,
    json: JsonOption = False,
) -> None:
    """Compare a network with what TensorFlow gave for the same photos.

    Of two runtimes the larger difference is told.  The exit status is 1 beyond the tolerance: 1e-4
    for descriptors and scores, 0.01 px for keypoints.

    \b
    delg weights check r50.safetensors --against expected_0.npz expected_1.npz --images photos/
    """
    from opendelg.image import read_image
    from opendelg.parity import compare, find_photo, read_expected, report
    from opendelg.weights import load_weights

    files = [*against, *(more or [])]
    if model.endswith(".npz"):
        raise typer.BadParameter(
            f"model must come before --against, got {model!r}", param_hint="MODEL"
        )
    loaded = load_weights(model)
    expected = [read_expected(file) for file in files]
    photos = [find_photo(one, images) for one in expected]
    runtimes = _runtimes(loaded, runtime, threads)
    reports: list[dict[str, Any]] = []
    for file, one, photo in zip(files, expected, photos, strict=True):
        differences = compare(loaded, runtimes, one, read_image(photo))
        reports.append({"file": str(file), "image": one.image, **report(differences)})
    is_ok = all(values["ok"] for values in reports)
    if json:
        print_json({"files": reports, "ok": is_ok})
    else:
        _print_reports(reports)
    if not is_ok:
        raise typer.Exit(1)


def _runtimes(loaded: "Weights", kind: str, threads: int | None) -> list["Runtime"]:
    """CPU runtimes: a GPU computes in bfloat16, which no tolerance of this size allows."""
    from opendelg.runtime.onnx_runtime import OnnxRuntime

    made: list[Runtime] = []
    if kind in ("both", "onnx"):
        made.append(OnnxRuntime(loaded, threads))
    if kind in ("both", "torch"):
        from opendelg.runtime.torch_runtime import TorchRuntime

        made.append(TorchRuntime(loaded, "cpu", threads))
    return made


def _print_reports(reports: list[dict[str, Any]]) -> None:
    columns = ("global", "keypoints", "scores", "descriptors")
    for values in reports:
        print(f"{shown(values['file'])}: {'equal' if values['ok'] else 'DIFFERENT'}")
        print("  scale  " + "".join(f"{name:>13}" for name in columns))
        rows = [(f"{of['scale']:.4f}", of) for of in values["scales"]]
        for label, row in [*rows, ("all", values)]:
            print(f"  {label:<7}" + "".join(f"{row[name]:>13.2g}" for name in columns))
