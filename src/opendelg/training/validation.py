"""Retrieval on labelled photos while a model is trained: mAP, and the best model so far."""

import logging
import math
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
from lightning.pytorch.callbacks import Callback

from opendelg.collection import Collection
from opendelg.datasets.groups import GroupsDataset, read_groups
from opendelg.errors import OpenDelgError
from opendelg.evaluation.groups import (
    evaluate_groups,
    index_whole,
    plan_groups,
    report_groups,
    require_positives,
)
from opendelg.image import find_images
from opendelg.recipes import make_extractor, recipe_of
from opendelg.training.config import ValidationConfig

logger = logging.getLogger(__name__)


class Validation(Callback):
    """Evaluates every some steps, logs both stages, and keeps the best model.

    The best by mAP after verification is ``best.ckpt``, and ``best.safetensors`` for every command.

    Args:
        config: Photos, and how often.
        root: What their relative paths refer to.
        folder: The run's folder.
        write: Writes the weights of now to a file.
        log: Takes figures by name.
    """

    def __init__(
        self,
        config: ValidationConfig,
        root: Path,
        folder: Path,
        write: Callable[[Path], None],
        log: Callable[[lightning.Trainer, dict[str, float]], None],
    ) -> None:
        self._config, self._folder, self._write, self._log = config, folder, write, log
        self._dataset = validation_set(config, root)
        self._last_step, self._best = 0, -math.inf

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run goes on with."""
        return {"last_step": self._last_step, "best": self._best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with a saved state."""
        self._last_step, self._best = state_dict["last_step"], state_dict["best"]

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Evaluate when it is due; one process does, the others wait."""
        step = trainer.global_step
        is_due = step % self._config.every == 0 or step == trainer.max_steps
        if step == self._last_step or not is_due:
            return
        self._last_step = step
        candidate = self._folder / "candidate.safetensors"
        score = 0.0
        if trainer.is_global_zero:
            self._write(candidate)
            figures = validate(candidate, self._dataset)
            score = figures["validation_verified_mAP"]
            self._log(trainer, figures)
            logger.info("validation at step %d: %s", step, figures)
        score = trainer.strategy.broadcast(score)
        if score > self._best:
            self._best = score
            trainer.save_checkpoint(self._folder / "best.ckpt")
            if trainer.is_global_zero:
                candidate.replace(self._folder / "best.safetensors")
        elif trainer.is_global_zero:
            candidate.unlink()


def validate(weights: Path, dataset: GroupsDataset) -> dict[str, float]:
    """Figures of a search through a dataset with a weights file, under the default profile."""
    extractor = make_extractor(str(weights))
    with tempfile.TemporaryDirectory(prefix="delg-") as folder:
        made = Collection.create(Path(folder), recipe_of(extractor), extractor.config.precision)
        with made as collection:
            index_whole(collection, extractor, plan_groups(dataset, collection))
            run = evaluate_groups(dataset, collection, extractor)
    figures = report_groups(run).figures
    return {
        f"validation_{stage}_{name}": figures[stage][measure]
        for measure, name in (("mAP", "mAP"), ("R@1", "recall_at_1"))
        for stage in ("global", "verified")
    }


def validation_set(config: ValidationConfig, root: Path = Path()) -> GroupsDataset:
    """The photos of a validation, at most ``max_photos``.

    Raises:
        OpenDelgError: If no query can find anything.
    """
    if config.groups:
        dataset = read_groups(root / config.groups, root / config.images)
    else:
        dataset = _of_folders([root / folder for folder in config.folders])
    dataset = _some_groups(dataset, config.max_photos)
    require_positives(dataset)
    return dataset


def _of_folders(folders: list[Path]) -> GroupsDataset:
    """Photos below some folders: those that lie in one show the same thing."""
    for folder in folders:
        if not folder.is_dir():
            raise OpenDelgError(f"validation folder must be a directory, got {str(folder)!r}")
    photos = [photo.absolute() for photo in find_images(folders)]
    groups = np.array([str(photo.parent) for photo in photos], dtype=str)
    ids = np.arange(len(photos))
    positives = tuple(np.flatnonzero((groups == groups[i]) & (ids != i)) for i in ids)
    names = tuple(str(photo) for photo in photos)
    return GroupsDataset(Path("/"), names, tuple(groups.tolist()), ids, ids, positives)


def _some_groups(dataset: GroupsDataset, max_photos: int) -> GroupsDataset:
    """Whole groups, the same ones at every call, of at most so many photos together."""
    if len(dataset.names) <= max_photos:
        return dataset
    groups = np.array(dataset.groups, dtype=str)
    names, counts = np.unique(groups, return_counts=True)
    order = np.random.default_rng(0).permutation(len(names))
    chosen = names[order[np.cumsum(counts[order]) <= max_photos]]
    kept = np.flatnonzero(np.isin(groups, chosen))
    is_kept = np.isin(dataset.query_ids, kept)
    return replace(
        dataset,
        names=tuple(dataset.names[i] for i in kept),
        groups=tuple(dataset.groups[i] for i in kept),
        query_ids=np.searchsorted(kept, dataset.query_ids[is_kept]),
        database_ids=np.searchsorted(kept, np.intersect1d(dataset.database_ids, kept)),
        positives=tuple(
            np.searchsorted(kept, positives)
            for positives, is_asked in zip(dataset.positives, is_kept, strict=True)
            if is_asked
        ),
    )
