"""What a run tells while it learns: log.jsonl, TensorBoard, a line on stderr, and alarms."""

import json
import logging
import math
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from opendelg.errors import OpenDelgError
from opendelg.training.module import DelgTraining

logger = logging.getLogger(__name__)

LINE_SECONDS = 30.0  # between lines where stderr is no terminal
# Attention that is nowhere above the first, or varies less than the second share of its mean over
# cells and photos, tells no cell from another.
DEAD_ATTENTION, CONSTANT_ATTENTION = 1e-6, 1e-4


class TrainingLog(Callback):
    """Means over the steps since the last entry, and over all processes.

    Args:
        folder: Where log.jsonl is.
        every: Steps between two entries.
    """

    def __init__(self, folder: Path, every: int) -> None:
        self._path, self._every = folder / "log.jsonl", every
        self._alarms = Alarms()
        self._sums: dict[str, list[Tensor]] = {}
        self._started = self._told = 0.0
        self._first_step = self._last_step = 0

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Start the clock, and take back what was told of steps that are to be repeated."""
        self._started = time.monotonic()
        self._first_step = self._last_step = trainer.global_step
        if trainer.is_global_zero:
            _cut_log(self._path, trainer.global_step)

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Gather what the step measured, without waiting for the device; tell it when due."""
        assert isinstance(module, DelgTraining)
        for name, value in module.measured.items():
            self._sums.setdefault(name, []).append(value)
        module.measured = {}
        step, config = trainer.global_step, module.config
        is_due = step % self._every == 0 or step == config.steps
        # Also before a checkpoint is written: it must not hold what cannot be learnt from.
        is_due = is_due or step % config.checkpoint_every == 0
        if step == self._last_step or not is_due:
            return
        means = self._means(trainer)
        require_finite(means, step, self._last_step, self._path.parent)
        now = time.monotonic()
        rate = (step - self._first_step) * config.batch_size / max(now - self._started, 1e-9)
        self._last_step = step
        entry = dict(means)
        entry["learning_rate"] = trainer.optimizers[0].param_groups[0]["lr"]
        entry["images_per_second"] = round(rate, 1)
        self._alarms.check(means, step, module)
        if trainer.is_global_zero:
            self.write(trainer, entry)
            self._tell(entry, step, config.steps, (config.steps - step) * config.batch_size / rate)

    def write(self, trainer: lightning.Trainer, figures: dict[str, float]) -> None:
        """Add an entry to both logs."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": trainer.global_step, **figures}) + "\n")
        if trainer.logger is not None:
            trainer.logger.log_metrics(figures, trainer.global_step)

    def _means(self, trainer: lightning.Trainer) -> dict[str, float]:
        """Means by name, NaN included; the same in every process."""
        names = sorted(self._sums)
        means = torch.stack([torch.stack(self._sums[name]).float().mean() for name in names])
        self._sums = {}
        reduced = trainer.strategy.reduce(means, reduce_op="mean")
        return dict(zip(names, reduced.tolist(), strict=True))

    def _tell(self, entry: dict[str, float], step: int, steps: int, left_s: float) -> None:
        is_terminal, now, is_last = sys.stderr.isatty(), time.monotonic(), step == steps
        if not is_terminal and now - self._told < LINE_SECONDS and not is_last:
            return
        self._told = now
        left = timedelta(seconds=round(left_s))
        losses = ", ".join(f"{name} {value:.3g}" for name, value in entry.items() if name in SHOWN)
        line = f"step {step} of {steps}, {entry['images_per_second']:.1f} images/s, "
        line += f"{left} left: {losses}"
        ending = "\r" if is_terminal and not is_last else "\n"
        print(line + ("\033[K" if is_terminal else ""), end=ending, file=sys.stderr, flush=True)


SHOWN = ("loss", "global", "attention", "reconstruction", "hint", "descriptor", "view", "map")


class Alarms:
    """Warnings, each told once, of a run that learns nothing."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def check(self, means: dict[str, float], step: int, module: DelgTraining) -> None:
        """Look at the means of some steps up to ``step``."""
        config, chance = module.config, math.log(module.num_classes)
        settled = config.global_loss_from * config.steps + config.optimiser.warm_up_steps
        settled += min(1000, config.steps // 10)
        if step > settled and means.get("global", 0.0) > chance:
            self._tell_once(
                "global",
                f"global loss must fall below ln(classes) = {chance:.2f} after warm-up, got "
                f"{means['global']:.2f} at step {step}; the classes are not learnt: lower "
                "optimiser.learning_rate or look at the labels",
            )
        if "attention_mean" not in means:  # the local head does not learn
            return
        level, deviation = means["attention_mean"], means["attention_deviation"]
        if level < DEAD_ATTENTION or deviation < CONSTANT_ATTENTION * level:
            self._tell_once(
                "attention",
                f"attention must tell cells apart, got mean {level:.2g} and deviation "
                f"{deviation:.2g} at step {step}; it is dead: local features will be arbitrary",
            )

    def _tell_once(self, kind: str, text: str) -> None:
        if kind not in self._told:
            self._told.add(kind)
            logger.warning(text)


def require_finite(means: dict[str, float], step: int, last_step: int, folder: Path) -> None:
    """Stop a run whose losses or gradients are no numbers any more.

    Raises:
        OpenDelgError: If a mean is not finite; names steps, losses and the last checkpoint.
    """
    broken = [name for name, value in means.items() if not math.isfinite(value)]
    if broken:
        last = folder / "last.ckpt"
        checkpoint = f"last checkpoint is {str(last)!r}" if last.is_file() else "no checkpoint yet"
        raise OpenDelgError(
            f"losses must be finite, got {', '.join(f'{n} {means[n]}' for n in broken)} between "
            f"steps {last_step + 1} and {step}; {checkpoint}, lower optimiser.learning_rate"
        )


def _cut_log(path: Path, step: int) -> None:
    """Remove entries after ``step``, and a last line that a kill cut off."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except ValueError:
            continue
    path.write_text("".join(kept), encoding="utf-8")
