"""A training run from settings to a weights file."""

import ctypes
import logging
import platform
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import lightning
import torch
from filelock import FileLock
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, Timer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torch.utils.data import DataLoader

from opendelg.errors import OpenDelgError
from opendelg.model.delg import Delg
from opendelg.runtime.torch_runtime import load_network
from opendelg.settings import settings_as_dict
from opendelg.training.audit import write_audit
from opendelg.training.batch_norm import synchronise_batch_norms
from opendelg.training.config import TrainingConfig
from opendelg.training.data import Views, use_one_thread
from opendelg.training.distillation import Teachers, cached_pooled_descriptors, fit_whitening
from opendelg.training.log import TrainingLog
from opendelg.training.module import DelgTraining
from opendelg.training.order import PhotoNumbers, SeededViews, Visits
from opendelg.training.photos import PhotoList, list_photos
from opendelg.training.processes import (
    is_started_by_torchrun,
    num_processes,
    num_processes_here,
    process_number,
    run_in_processes,
)
from opendelg.training.teacher import load_teacher
from opendelg.weights.checkpoint import read_weights, write_weights

logger = logging.getLogger(__name__)


def train(config: TrainingConfig, root: Path = Path()) -> Path:
    """Train, resuming from ``last.ckpt`` in the output folder where there is one.

    A run on several devices starts a process for each, unless torchrun did so.  The processes
    import the main module: a script that calls this function does so below ``if __name__ ==
    "__main__"``.

    Args:
        config: The run's settings.
        root: What relative paths of photos, teachers and ``start_from`` refer to.

    Returns:
        The weights file written, ``<output>/<name>.safetensors``.

    Raises:
        OpenDelgError: If a folder or a teacher does not fit, the photos fill no batch, the batch
            cannot be shared by the processes, or a loss is not finite.
    """
    if config.devices > 1 and not is_started_by_torchrun():
        run_in_processes(config.devices, _train, config, root)
    else:
        _train(config, root)
    path = _weights_path(config)
    if config.calibration is not None and process_number() == 0:
        # Imported here: calibration needs faiss, which a machine that only trains can do without.
        from opendelg.training.calibration import calibrate

        calibrate(path, config.calibration, root)
    return path


def _train(config: TrainingConfig, root: Path) -> None:
    """Train in this process, which may be one of several, up to the written weights."""
    keep_freed_memory()
    output = Path(config.output)
    output.mkdir(parents=True, exist_ok=True)
    last = output / "last.ckpt"
    lightning.seed_everything(config.seed, verbose=False)
    photo_list = list_photos(config.data.folders, root, cache=output)
    views = Views(photo_list, config.data)
    if len(views) < config.batch_size:
        raise OpenDelgError(
            f"photos must fill a batch of {config.batch_size}, got {len(views)}; "
            "add photos or lower batch_size"
        )
    write_audit(photo_list, views, output, is_resumed=last.is_file())
    module = _module(config, photo_list, views, root)
    if config.start_from and not last.is_file():
        _start(module.model, root / config.start_from)
    limit = timedelta(minutes=config.max_minutes) if config.max_minutes > 0 else None
    timer = Timer(limit, verbose=False)

    def write(path: Path) -> None:
        write_weights(
            path,
            config.name,
            {name: tensor.float().cpu().numpy() for name, tensor in module.model_state().items()},
            config.model,
            module.score_threshold,
            training={
                "photos": len(views),
                "unreadable": views.num_unreadable,
                "classes": len(photo_list.class_names),
                "seconds": round(timer.time_elapsed()),  # of the loop, before resuming included
                "settings": settings_as_dict(config),
            },
        )

    trainer = _trainer(config, root, timer, write)
    loader = _loader(config, views, _saved_step(last))
    trainer.fit(module, loader, ckpt_path=last if last.is_file() else None, weights_only=True)
    if views.num_unreadable:
        logger.warning("%d photos could not be read and were left out", views.num_unreadable)
    if trainer.is_global_zero:
        write(_weights_path(config))


def _weights_path(config: TrainingConfig) -> Path:
    return Path(config.output) / f"{config.name}.safetensors"


def _loader(
    config: TrainingConfig, views: Views, first_step: int
) -> DataLoader[tuple[Tensor, ...]]:
    """This process's share of every batch from a step on."""
    shares = config.accumulate * num_processes()
    if config.batch_size % shares:
        raise OpenDelgError(
            f"batch_size must be a multiple of accumulate x processes, got {config.batch_size} "
            f"for {config.accumulate} x {num_processes()}"
        )
    visits = Visits(
        len(views),
        config.batch_size,
        config.steps,
        config.seed,
        first_step=first_step,
        process=process_number(),
        num_processes=num_processes(),
        accumulate=config.accumulate,
    )
    if config.data.views_on == "device":
        return DataLoader(
            PhotoNumbers(views.labels),
            batch_size=None,
            sampler=visits,
            pin_memory=torch.cuda.is_available(),
        )
    return DataLoader(
        SeededViews(views, config.seed),
        batch_sampler=visits,
        num_workers=config.num_workers,
        worker_init_fn=use_one_thread,
        persistent_workers=config.num_workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


def _trainer(
    config: TrainingConfig, root: Path, timer: Timer, write: Callable[[Path], None]
) -> lightning.Trainer:
    """The loop, with what looks on; last the one that keeps ``last.ckpt``."""
    output = Path(config.output)
    log = TrainingLog(output, config.log_every)
    callbacks: list[Callback] = [timer, log]
    if config.validation is not None:
        # Imported here: searching needs faiss.
        from opendelg.training.validation import Validation

        callbacks.append(Validation(config.validation, root, output, write, log.write))
    last = ModelCheckpoint(
        output,
        save_last=True,
        save_top_k=0,
        every_n_train_steps=config.checkpoint_every,
        enable_version_counter=False,  # else a run folder that moved keeps an old last.ckpt
    )
    strategy: str | DDPStrategy = "auto"
    if num_processes() > 1:
        # Not every step has every loss: some weights are without a gradient then.
        is_partial = config.distillation is not None or config.global_loss_from > 0
        strategy = DDPStrategy(find_unused_parameters=is_partial)
    return lightning.Trainer(
        max_steps=config.steps,
        devices=num_processes_here(),
        num_nodes=num_processes() // num_processes_here(),
        strategy=strategy,
        use_distributed_sampler=False,
        precision=config.precision,
        accumulate_grad_batches=config.accumulate,
        default_root_dir=output,
        logger=TensorBoardLogger(output, name="log"),
        callbacks=[*callbacks, last],
        enable_model_summary=False,
        enable_progress_bar=False,
    )


def _module(
    config: TrainingConfig, photo_list: PhotoList, views: Views, root: Path
) -> DelgTraining:
    teachers = Teachers()
    distillation = config.distillation
    if distillation is not None and distillation.hint_teacher:
        teachers.hint = load_teacher(root / distillation.hint_teacher)
    if distillation is not None and distillation.descriptor_teacher:
        teachers.descriptor = load_teacher(root / distillation.descriptor_teacher)
        file = Path(config.output) / "descriptors.npz"
        with FileLock(f"{file}.lock"):  # one process asks the teacher, the others read
            pooled = cached_pooled_descriptors(
                file,
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
    module = DelgTraining(config, len(photo_list.class_names), teachers, pixels)
    if config.sync_batch_norm and num_processes() > 1:
        synchronise_batch_norms(module, torch.cuda.is_available())
    return module


def _start(network: Delg, path: Path) -> None:
    """Give a network the tensors of a weights file."""
    weights = load_network(read_weights(path))
    if weights.config != network.config:
        raise OpenDelgError(
            f"start_from must have the model settings of the run, got {weights.config} in "
            f"{str(path)!r} for {network.config}"
        )
    network.load_state_dict(weights.state_dict())


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
