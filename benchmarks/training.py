r"""Views per second of `delg train`'s loop, against the bare forward and backward passes.

    python benchmarks/training.py              a ResNet-18 at 160 px, batches of 32
    python benchmarks/training.py --workers 0  views cut out between the steps, not beside them
    python benchmarks/training.py --views-on device --workers 0 --size 224 --batch 256 \
        --precision bf16-mixed                 on a GPU

The bare passes are those of the same network and losses on one batch that stays in memory, with the
same optimiser and precision.  Both take turns, since machines change their pace.
"""

import argparse
import contextlib
import io
import json
import logging
import statistics
import tempfile
import time
from pathlib import Path

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from PIL import Image

from opendelg.model.delg import RESNET18
from opendelg.training.config import OptimiserConfig, TrainingConfig
from opendelg.training.data import DataConfig
from opendelg.training.module import DelgTraining
from opendelg.training.photos import PhotoFolder
from opendelg.training.run import keep_freed_memory, train

CLASSES, PHOTOS = 16, 256
WARM_UP = 3  # steps that are not counted


class Clock(Callback):
    """Notes when each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *_: object) -> None:
        """Wait for the device, then note the time."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())


def main() -> None:
    """Measure, then print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=160, help="px, side of the views")
    parser.add_argument("--steps", type=int, default=12, help="counted steps of a turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--views-on", choices=["loader", "device"], default="loader")
    parser.add_argument("--precision", choices=["bf16-mixed", "32-true"], default="32-true")
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        draw_photos(Path(folder) / "photos")
        config = TrainingConfig(
            model=RESNET18,
            data=DataConfig(
                (PhotoFolder(f"{folder}/photos"),),
                image_size=options.size,
                views_on=options.views_on,
            ),
            optimiser=OptimiserConfig(learning_rate=1e-3),
            steps=options.steps + WARM_UP,
            batch_size=options.batch,
            num_workers=options.workers,
            precision=options.precision,
            checkpoint_every=10**6,
        )
        bare, loop = [], []
        for turn in range(options.rounds):
            bare.append(bare_rate(config))
            loop.append(loop_rate(config, Path(folder) / f"run{turn}"))
    result = {
        "bare_views_per_s": statistics.median(bare),
        "loop_views_per_s": statistics.median(loop),
        "ratio": statistics.median(a / b for a, b in zip(loop, bare, strict=True)),
    }
    print(json.dumps({name: round(value, 3) for name, value in result.items()}))


def draw_photos(folder: Path) -> None:
    """Noise of four sizes, as JPEG files."""
    random = np.random.default_rng(0)
    for number in range(PHOTOS):
        path = folder / f"{number % CLASSES}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = random.integers(0, 256, (12, 16, 3), np.uint8)
        Image.fromarray(coarse).resize((384, 288)).save(path)


def bare_rate(config: TrainingConfig) -> float:
    """Views per second of forward and backward passes and the optimiser's step, and no more."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module = DelgTraining(config, CLASSES).to(device).train()
    optimiser = torch.optim.SGD(module.parameters(), lr=1e-3, momentum=0.9)
    shape = (config.batch_size, 3, config.data.image_size, config.data.image_size)
    images = torch.randn(shape, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(config.batch_size, device=device) % CLASSES
    ends = []
    for _ in range(config.steps):
        optimiser.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision != "32-true"):
            shallow = module.model.shallow(images)
            losses = module._local_losses(shallow, labels)
            losses |= module._global_losses(shallow, labels, labels, images)
        sum(weight * loss for loss, weight in losses.values()).backward()
        optimiser.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        ends.append(time.perf_counter())
    return rate(ends, config.batch_size)


def loop_rate(config: TrainingConfig, output: Path) -> float:
    """Views per second of a run, from its photos on disk to its checkpoint."""
    clock = Clock()
    original = lightning.Trainer.__init__

    def clocked(self: lightning.Trainer, *arguments: object, **settings: object) -> None:
        settings["callbacks"] = [clock, *settings["callbacks"]]
        original(self, *arguments, **settings)

    lightning.Trainer.__init__ = clocked
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            train(TrainingConfig(**(vars(config) | {"output": str(output)})))
    finally:
        lightning.Trainer.__init__ = original
    return rate(clock.ends, config.batch_size)


def rate(ends: list[float], batch_size: int) -> float:
    """Views per second of the steps after the warm-up."""
    return (len(ends) - WARM_UP) * batch_size / (ends[-1] - ends[WARM_UP - 1])


if __name__ == "__main__":
    main()
