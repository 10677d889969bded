"""A training run from settings to a weights file."""

import ctypes
import logging
import platform
from datetime import timedelta
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, Timer
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

from opendelg.errors import OpenDelgError
from opendelg.settings import settings_as_dict
from opendelg.training.audit import write_audit
from opendelg.training.config import TrainingConfig
from opendelg.training.data import Views
from opendelg.training.distillation import Teachers, cached_pooled_descriptors, fit_whitening
from opendelg.training.module import DelgTraining
from opendelg.training.photos import PhotoList, list_photos
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

    Raises:
        OpenDelgError: If a folder or a teacher does not fit, or the photos fill no batch.
    """
    keep_freed_memory()
    output = Path(config.output)
    last = output / "last.ckpt"
    # A resumed run shuffles and crops anew instead of repeating its first epoch.
    lightning.seed_everything(config.seed + _saved_step(last), verbose=False)
    photo_list = list_photos(config.data.folders, root, cache=output)
    views = Views(photo_list, config.data)
    if len(views) < config.batch_size:
        raise OpenDelgError(
            f"photos must fill a batch of {config.batch_size}, got {len(views)}; "
            "add photos or lower batch_size"
        )
    write_audit(photo_list, views, output, is_resumed=last.is_file())
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
    limit = timedelta(minutes=config.max_minutes) if config.max_minutes > 0 else None
    timer = Timer(limit, verbose=False)
    trainer = lightning.Trainer(
        max_steps=config.steps,
        devices=1,
        precision=config.precision,
        gradient_clip_val=config.optimiser.max_gradient_norm,
        default_root_dir=output,
        logger=CSVLogger(output, name="log"),
        log_every_n_steps=25,
        callbacks=[
            ModelCheckpoint(
                output,
                save_last=True,
                save_top_k=0,
                every_n_train_steps=config.checkpoint_every,
                enable_version_counter=False,  # else a run folder that moved keeps an old last.ckpt
            ),
            timer,
        ],
        enable_model_summary=False,
    )
    trainer.fit(module, loader, ckpt_path=last if last.is_file() else None, weights_only=True)
    if views.num_unreadable:
        logger.warning("%d photos could not be read and were left out", views.num_unreadable)
    path = output / f"{config.name}.safetensors"
    write_weights(
        path,
        config.name,
        {name: tensor.float().cpu().numpy() for name, tensor in module.model_state().items()},
        config.model,
        float(torch.as_tensor(module.median_attention)),
        training={
            "photos": len(views),
            "unreadable": views.num_unreadable,
            "classes": len(photo_list.class_names),
            "seconds": round(timer.time_elapsed()),  # of the loop, those before resuming included
            "settings": settings_as_dict(config),
        },
    )
    if config.calibration is not None:
        # Imported here: calibration needs faiss, which a machine that only trains can do without.
        from opendelg.training.calibration import calibrate

        calibrate(path, config.calibration, root)
    return path


def _module(
    config: TrainingConfig, photo_list: PhotoList, views: Views, root: Path
) -> DelgTraining:
    teachers = Teachers()
    distillation = config.distillation
    if distillation is not None and distillation.hint_teacher:
        teachers.hint = load_teacher(root / distillation.hint_teacher)
    if distillation is not None and distillation.descriptor_teacher:
        teachers.descriptor = load_teacher(root / distillation.descriptor_teacher)
        pooled = cached_pooled_descriptors(
            Path(config.output) / "descriptors.npz",
            [str(photo.path) for photo in views.photos],
            teachers.descriptor,
            views.pixels,
            distillation.photo_side,
            torch.device("cuda" if torch.cuda.is_available() else "cpu"),
        )
        whitening = fit_whitening(
            pooled, config.model.num_global_dimensions, distillation.whitening_power
        )
        if whitening.axes.shape[1] != config.model.num_global_dimensions:
            raise OpenDelgError(
                f"num_global_dimensions must be at most the descriptor teacher's "
                f"{whitening.axes.shape[1]}, got {config.model.num_global_dimensions}"
            )
        teachers.whitening = whitening
        teachers.photo_descriptors = whitening.apply(torch.from_numpy(pooled))
    pixels = views.pixels if config.data.views_on == "device" else None
    return DelgTraining(config, len(photo_list.class_names), teachers, pixels)


def _saved_step(checkpoint: Path) -> int:
    """Steps done by the run that wrote ``checkpoint``; 0 if there is none."""
    if not checkpoint.is_file():
        return 0
    # Mapped: the tensors are read by Lightning, only once.
    saved = torch.load(checkpoint, map_location="cpu", mmap=True, weights_only=True)
    return int(saved["global_step"])


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
