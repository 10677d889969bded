"""A training run from settings to a weights file."""

import ctypes
import logging
import platform
import time
from pathlib import Path

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

from opendelg.settings import settings_as_dict
from opendelg.training.config import TrainingConfig
from opendelg.training.data import PhotoList, Views, list_photos
from opendelg.training.distillation import cached_pooled_descriptors, half_whiten
from opendelg.training.module import DelgTraining
from opendelg.training.teacher import load_teacher
from opendelg.weights.checkpoint import write_weights

logger = logging.getLogger(__name__)


def train(config: TrainingConfig, root: Path = Path()) -> Path:
    """Train, resuming from ``last.ckpt`` in the output folder where there is one.

    Args:
        config: The run's settings.
        root: What relative paths of photos and teachers refer to.

    Returns:
        The weights file written, ``<output>/<name>.safetensors``.
    """
    keep_freed_memory()
    lightning.seed_everything(config.seed, verbose=False)
    output = Path(config.output)
    started = time.monotonic()
    photo_list = list_photos(config.data.folders, root)
    views = Views(photo_list, config.data, config.seed)
    logger.info("%d photos of %d classes", len(views), len(photo_list.class_names))
    module = _module(config, photo_list, views, root)
    loader = DataLoader(
        views,
        batch_size=config.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=config.num_workers,
        persistent_workers=config.num_workers > 0,
        pin_memory=torch.cuda.is_available(),
    )
    trainer = lightning.Trainer(
        max_steps=config.steps,
        precision=config.precision,
        gradient_clip_val=config.optimiser.max_gradient_norm,
        default_root_dir=output,
        logger=CSVLogger(output, name="log"),
        log_every_n_steps=25,
        callbacks=[
            ModelCheckpoint(
                output, save_last=True, save_top_k=0, every_n_train_steps=config.checkpoint_every
            )
        ],
        enable_model_summary=False,
    )
    last = output / "last.ckpt"
    trainer.fit(module, loader, ckpt_path=last if last.is_file() else None)
    seconds = time.monotonic() - started
    path = output / f"{config.name}.safetensors"
    write_weights(
        path,
        config.name,
        {name: tensor.float().cpu().numpy() for name, tensor in module.model_state().items()},
        config.model,
        float(torch.as_tensor(module.median_attention)),
        training={
            "photos": len(views),
            "classes": len(photo_list.class_names),
            "seconds": round(seconds),
            "settings": settings_as_dict(config),
        },
    )
    return path


def _module(
    config: TrainingConfig, photo_list: PhotoList, views: Views, root: Path
) -> DelgTraining:
    teacher, targets = None, None
    distillation = config.distillation
    if distillation is not None and distillation.hint_teacher:
        teacher = load_teacher(root / distillation.hint_teacher)
    if distillation is not None and distillation.descriptor_teacher:
        pooled = cached_pooled_descriptors(
            Path(config.output) / "descriptors.npz",
            [str(photo.path) for photo in views.photos],
            load_teacher(root / distillation.descriptor_teacher),
            views.pixels,
            distillation.photo_side,
            torch.device("cuda" if torch.cuda.is_available() else "cpu"),
        )
        whitened = half_whiten(
            np.asarray(pooled), config.model.num_global_dimensions, distillation.whitening_power
        )
        targets = torch.from_numpy(whitened)
    return DelgTraining(config, len(photo_list.class_names), teacher, targets)


def keep_freed_memory() -> None:
    """Tell glibc to keep what is freed: a step's tensors come back in the next.

    By default every tensor above 32 MiB is mapped anew, and clearing its pages took 90 % of a
    step on a virtual machine of two cores: 64 views a second with this, 6 without.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # malloc.h
    libc.mallopt(mmap_threshold, 1 << 30)
    libc.mallopt(trim_threshold, (1 << 31) - 1)
    libc.mallopt(top_pad, 1 << 28)
