"""The paper's ablations, small: what each part of DELG is worth on the photos at hand.

    python benchmarks/ablations.py --root DATA --imagenet FILE.npz --out runs/ablations
    python benchmarks/ablations.py --root DATA --imagenet FILE.npz --out runs/ablations --json

Trains `configs/ablations.yaml` in variants with ``delg train`` and evaluates each as ``delg
evaluate groups`` does, before and after re-ranking.  All variants of a seed start from the same
weights: an ImageNet ResNet-18 up to layer3, the rest random.

    joint      both heads at once, local gradients stopped: the paper's
    unstopped  as joint, but the local losses train the backbone too
    pca        joint, its encoder replaced by a PCA of the shallow map
    separate   retrieval with joint, whose local losses change nothing of its global part;
               local features of a second network, that the local losses alone trained:
               the attention's through the backbone, the reconstruction's not
    frozen     joint, but the local head is trained again behind the finished backbone
    rebuilt    as frozen, but the reconstruction weighs 100 times as much

What is finished stays in the output folder and is not done again; ``delg train`` goes on with a run
that was stopped.  Each evaluation is kept as a run too, such as ``joint0_uva.zip``, for ``delg
evaluate compare``.  Tables are those of ``--root``: data/eval and the classes left out of training.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import nn

from opendelg.cli.progress import progress
from opendelg.collection import Collection
from opendelg.datasets.groups import read_groups
from opendelg.evaluation.groups import evaluate_groups, index_whole, plan_groups, report_groups
from opendelg.evaluation.runs import Run, write_run
from opendelg.extraction import Extractor, profile
from opendelg.image import find_images
from opendelg.model.delg import Delg
from opendelg.recipes import recipe_of
from opendelg.runtime import RawFeatures, Runtime, choose_runtime
from opendelg.runtime.torch_runtime import load_network
from opendelg.settings import read_settings
from opendelg.training.config import TrainingConfig
from opendelg.training.data import read_photo
from opendelg.training.photos import list_photos
from opendelg.training.run import keep_freed_memory
from opendelg.training.teacher import load_teacher
from opendelg.weights import Weights, read_weights, write_weights
from opendelg.whole_files import replacing

RECIPE = Path(__file__).parents[1] / "configs" / "ablations.yaml"
HELD_OUT = ("berlin11", "wonders7")  # folders of data/train that nothing is trained on
TABLES = ("held_out", "smvs_landmarks", "uva")
VARIANTS = ("joint", "unstopped", "pca", "separate", "frozen", "rebuilt")
Figures = dict[str, Any]  # as `delg evaluate groups --json` prints them
NUM_PHOTOS = 100  # that statistics are taken of, evenly spread over those trained on


@dataclass(frozen=True)
class Ablation:
    """Where things are."""

    root: Path
    out: Path
    imagenet: Path
    overrides: tuple[str, ...]  # KEY=VALUE of every run
    threads: int | None

    @property
    def config(self) -> TrainingConfig:
        """The recipe, without the overrides: the photos and the network."""
        return read_settings(TrainingConfig, yaml.safe_load(RECIPE.read_text()), str(RECIPE))


def main() -> None:
    """Train and measure what is missing, then print a table or one JSON object."""
    options = read_options()
    torch.set_num_threads(options.threads or torch.get_num_threads())
    keep_freed_memory()
    ablation = Ablation(
        options.root, options.out, options.imagenet, tuple(options.override), options.threads
    )
    options.out.mkdir(parents=True, exist_ok=True)
    runs = [(variant, seed) for seed in options.seeds for variant in options.variants]
    parts = {run: networks(ablation, *run) for run in runs}
    if options.train_only:
        return
    results: dict[str, dict[str, dict[str, Figures]]] = {}
    for table in options.tables:
        for variant, seed in runs:
            scores = evaluated(ablation, variant, seed, table, parts[variant, seed])
            results.setdefault(table, {}).setdefault(variant, {})[str(seed)] = scores
    lost = {
        f"{variant}{seed}": lost_of(ablation, parts[variant, seed][1]) for variant, seed in runs
    }
    if options.json:
        print(json.dumps(results | {"lost": lost}))
    else:
        print_tables(results)
        print(f"\n{'lost by the encoder':26}% of the shallow map")
        print(*(f"{run:26}{100 * share:.0f}" for run, share in lost.items()), sep="\n")


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True, help="folder that holds data/")
    parser.add_argument("--imagenet", type=Path, required=True, help=".npz of a ResNet-18")
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES)
    parser.add_argument("--override", nargs="*", default=[], help="KEY=VALUE of every training")
    parser.add_argument("--train-only", action="store_true", help="evaluate nothing")
    parser.add_argument("--threads", type=int, help="of torch and of extraction")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


# Training.


def networks(ablation: Ablation, variant: str, seed: int) -> tuple[Path, Path]:
    """Weights files of a variant: of the global and of the local features; trained if absent."""
    start = made(
        ablation.out / f"start{seed}.safetensors", lambda path: _start(ablation, seed, path)
    )
    if variant == "unstopped":
        unstopped = trained(ablation, "unstopped", seed, start, "loss.local_gradients=all")
        return unstopped, unstopped
    joint = trained(ablation, "joint", seed, start)
    match variant:
        case "pca":
            target = ablation.out / f"pca{seed}.safetensors"
            return joint, made(target, lambda path: _with_pca(ablation, joint, path))
        case "separate":
            settings = ("heads=local", "loss.local_gradients=attention")
            return joint, trained(ablation, "local", seed, start, *settings)
        case "frozen" | "rebuilt":
            # The local head of the start, not the one that learnt beside the backbone.
            target = ablation.out / f"backbone{seed}.safetensors"
            began = made(target, lambda path: _with_head_of(start, joint, path))
            more = ("loss.reconstruction_weight=1000",) if variant == "rebuilt" else ()
            return joint, trained(ablation, variant, seed, began, "heads=local", *more)
    return joint, joint


def made(path: Path, make: Callable[[Path], None]) -> Path:
    """A file, made if it is absent."""
    if not path.is_file():
        make(path)
    return path


def trained(ablation: Ablation, name: str, seed: int, start: Path, *settings: str) -> Path:
    """Weights of a run of the recipe, as the command line trains it."""
    output = ablation.out / f"{name}{seed}"
    weights = output / f"{name}{seed}.safetensors"
    if weights.is_file():
        return weights
    command = [sys.executable, "-m", "opendelg", "train", str(RECIPE), "--root", str(ablation.root)]
    command += [f"name={name}{seed}", f"output={output}", f"seed={seed}"]
    command += [f"start_from={start.absolute()}", *settings, *ablation.overrides]
    print("+", *command[1:], file=sys.stderr, flush=True)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return weights


def _start(ablation: Ablation, seed: int, path: Path) -> None:
    """Write the weights that all variants of a seed begin as: ImageNet's, the rest random."""
    torch.manual_seed(seed)
    network = Delg(ablation.config.model).eval()
    fill_backbone(network, load_teacher(ablation.imagenet).backbone)
    normalise_as_measured(network, sample(ablation))
    _write(path, network, ablation, score_threshold=0.0)


def fill_backbone(network: Delg, imagenet: nn.Module) -> None:
    """Give a network the layers of torchvision's ResNet-18, for pixels as DELG takes them.

    torchvision's take ``(value / 255 - mean) / deviation`` where DELG has ``value / 128 - 1``: the
    first convolution is scaled, and what the shift adds goes into the bias behind it.
    """
    state = {name: tensor.clone() for name, tensor in imagenet.state_dict().items()}
    mean = torch.tensor([0.485, 0.456, 0.406])
    deviation = torch.tensor([0.229, 0.224, 0.225])
    weight = state["conv1.weight"]
    shift = ((128 / 255 - mean) / deviation)[None, :, None, None]
    state["bn1.bias"] += (weight * shift).sum(dim=(1, 2, 3))
    state["conv1.weight"] = weight * (128 / 255 / deviation)[None, :, None, None]
    network.backbone.load_state_dict(network.backbone.state_dict() | state)


@torch.no_grad()
def normalise_as_measured(network: Delg, photos: Sequence[np.ndarray]) -> None:
    """Let the ImageNet layers' batch norms normalise, without a change of what they give.

    The file has them folded: they add a bias and no more, and would change everything once they
    normalise by the batch.  Their statistics become those of some photos, and their scale and bias
    what undoes them.
    """
    layers = ("conv1", "bn1", "layer1", "layer2", "layer3")
    norms = [
        module
        for name, module in network.backbone.named_modules()
        if isinstance(module, nn.BatchNorm2d) and name.split(".")[0] in layers
    ]
    moments: dict[nn.Module, list[torch.Tensor]] = {norm: [] for norm in norms}

    def add(norm: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        variance, mean = torch.var_mean(inputs[0], dim=(0, 2, 3), correction=0)
        moments[norm].append(torch.stack([mean, variance + mean**2]).double())

    hooks = [norm.register_forward_pre_hook(add) for norm in norms]
    for pixels in photos:
        network.shallow(_input(pixels))
    for hook in hooks:
        hook.remove()
    for norm in norms:
        mean, square = torch.stack(moments[norm]).mean(dim=0)  # every photo counts the same
        variance = square - mean**2
        bias = norm.bias - norm.running_mean  # of the folded file: scale 1
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.copy_(bias + mean)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)


@torch.no_grad()
def _with_pca(ablation: Ablation, weights: Path, path: Path) -> None:
    """Write weights whose encoder projects the shallow map onto its principal axes."""
    read = read_weights(weights)
    network = load_network(read)
    cells = [
        network.local_map(network.shallow(_input(pixels))).flatten(2)[0].T.double()
        for pixels in sample(ablation)
    ]
    mean, axes = principal_axes(torch.cat(cells), network.config.num_local_dimensions)
    encoder, decoder = network.autoencoder.encoder, network.autoencoder.decoder
    encoder.weight.copy_(axes[:, :, None, None])
    encoder.bias.copy_(-axes @ mean)
    decoder.weight.copy_(axes.T[:, :, None, None])
    decoder.bias.copy_(mean)
    _write(path, network, ablation, read.score_threshold)


def principal_axes(cells: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean (C,) of cells (N, C) and their axes (count, C) of largest variance, in order."""
    mean = cells.mean(dim=0)
    centred = cells - mean
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(cells))
    share = values[-count:].sum() / values.sum()
    print(f"{count} axes hold {100 * share:.1f} % of the variance", file=sys.stderr)
    return mean, vectors.flip(1)[:, :count].T


def _with_head_of(start: Path, joint: Path, path: Path) -> None:
    """Write the weights of ``joint`` with the local head of ``start``."""
    weights, other = read_weights(joint), read_weights(start)
    head = {
        name: array
        for name, array in other.state.items()
        if name.startswith(("attention.", "autoencoder."))
    }
    write_weights(path, path.stem, weights.state | head, weights.model, 0.0, precision="float32")


def _write(path: Path, network: Delg, ablation: Ablation, score_threshold: float) -> None:
    state = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    model = ablation.config.model
    write_weights(path, path.stem, state, model, score_threshold, precision="float32")


def sample(ablation: Ablation) -> list[np.ndarray]:
    """Some of the photos that are trained on, (H, W, 3) uint8."""
    data = ablation.config.data
    photos = list_photos(data.folders, ablation.root).photos
    chosen = np.linspace(0, len(photos) - 1, NUM_PHOTOS).astype(int)
    return [read_photo(photos[position], data.max_side) for position in chosen.tolist()]


def _input(pixels: np.ndarray) -> torch.Tensor:
    """A photo (H, W, 3) as the network takes it (1, 3, H, W)."""
    return (torch.from_numpy(pixels).permute(2, 0, 1)[None].float() - 128) / 128


# Evaluation.


@torch.no_grad()
def lost_of(ablation: Ablation, of_local: Path) -> float:
    """Share of the shallow map that decoding its codes does not bring back, in squares.

    Over some photos that were trained on; 1 is what codes of nothing would lose.
    """
    network = load_network(read_weights(of_local)).eval()
    lost = total = 0.0
    for pixels in sample(ablation):
        cells = network.local_map(network.shallow(_input(pixels)))
        lost += float((network.autoencoder(cells) - cells).square().sum())
        total += float(cells.square().sum())
    return lost / total


class TwoNetworks:
    """A runtime with the global features of one network and the local ones of another."""

    def __init__(self, of_global: Runtime, of_local: Runtime) -> None:
        self.device, self.architecture = of_local.device, of_local.architecture
        self._of_global, self._of_local = of_global, of_local

    def run(self, images: np.ndarray, want_global: bool, want_local: bool) -> RawFeatures:
        """As `Runtime.run`."""
        features = RawFeatures(None, None, None)
        if want_local:
            features = self._of_local.run(images, False, True)
        if want_global:
            given = self._of_global.run(images, True, False)
            features = replace(features, global_descriptors=given.global_descriptors)
        return features


def evaluated(
    ablation: Ablation, variant: str, seed: int, table: str, parts: tuple[Path, Path]
) -> Figures:
    """Figures of a variant on a table, as ``delg evaluate groups --json`` gives them."""
    path = ablation.out / f"{variant}{seed}_{table}.json"
    if not path.is_file():
        print(f"{variant}, seed {seed}, on {table}", file=sys.stderr, flush=True)
        run = _evaluate(ablation, table, *(read_weights(part) for part in parts))
        write_run(path.with_suffix(".zip"), run)
        scores = report_groups(run).json
        with replacing(path) as written:
            written.write_text(json.dumps(scores) + "\n", encoding="utf-8")
    return dict(json.loads(path.read_text(encoding="utf-8")))


def _evaluate(ablation: Ablation, table: str, of_global: Weights, of_local: Weights) -> Run:
    dataset = read_groups(*_table(ablation, table))
    runtime: Runtime = choose_runtime(of_local, "auto", ablation.threads)
    if of_global.path != of_local.path:
        runtime = TwoNetworks(choose_runtime(of_global, "auto", ablation.threads), runtime)
    extractor = Extractor(of_local, profile("fast"), runtime)
    with tempfile.TemporaryDirectory(prefix="delg-") as folder:
        recipe, precision = recipe_of(extractor), extractor.config.precision
        with Collection.create(Path(folder), recipe, precision) as collection:
            plan = plan_groups(dataset, collection)
            with progress("extracting", len(plan.work(update=True))) as advance:
                index_whole(collection, extractor, plan, advance)
            with progress("searching", len(dataset.query_ids)) as advance:
                return evaluate_groups(dataset, collection, extractor, progress=advance)


def _table(ablation: Ablation, name: str) -> tuple[Path, Path]:
    """A table of `delg evaluate groups` and the folder of its images."""
    if name != "held_out":
        folder = ablation.root / "data" / "eval"
        return folder / f"{name}.csv", folder / name
    images, path = ablation.root / "data" / "train", ablation.out / "held_out.csv"
    photos = [photo.relative_to(images) for photo in find_images([images / n for n in HELD_OUT])]
    with replacing(path) as written, written.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "group", "role"])
        rows.writerows([photo.as_posix(), photo.parent.as_posix(), "both"] for photo in photos)
    return path, images


def print_tables(results: dict[str, dict[str, dict[str, Figures]]]) -> None:
    """MAP in percent of every variant and seed, before and after re-ranking."""
    print(f"{'mAP':14}{'variant':12}{'seed':>4}{'global':>9}{'verified':>10}")
    for table, variants in results.items():
        for variant, seeds in variants.items():
            for seed, scores in seeds.items():
                figures = [100 * scores[stage]["mAP"] for stage in ("global", "verified")]
                print(f"{table:14}{variant:12}{seed:>4}{figures[0]:9.1f}{figures[1]:10.1f}")


if __name__ == "__main__":
    main()
