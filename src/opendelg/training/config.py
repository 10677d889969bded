"""Everything that a training run is told, read from one YAML file."""

from dataclasses import dataclass, field
from typing import Literal

from opendelg.model.delg import ModelConfig
from opendelg.training.data import DataConfig
from opendelg.training.distillation import DistillationConfig
from opendelg.training.losses import LossConfig


@dataclass(frozen=True)
class OptimiserConfig:
    """How the weights move; defaults are the open code's (SPEC 2.1)."""

    kind: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.01  # at its highest, falling linearly to 0
    momentum: float = 0.9  # of SGD
    weight_decay: float = 0.0  # none takes effect in the open code
    warm_up_steps: int = 0
    max_gradient_norm: float = 10.0  # of all gradients together; 0 leaves them as they are

    def __post_init__(self) -> None:
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {self.momentum}")
        if not min(self.weight_decay, self.warm_up_steps, self.max_gradient_norm) >= 0:
            raise ValueError(
                "weight_decay, warm_up_steps and max_gradient_norm must not be negative, "
                f"got {self.weight_decay}, {self.warm_up_steps} and {self.max_gradient_norm}"
            )


@dataclass(frozen=True)
class CalibrationConfig:
    """Photos on which the probability `same` is fitted after training.

    The labelled ones must not be trained on: similarity would promise too much.
    """

    folders: tuple[str, ...] = ()  # photos that show the same thing lie in one folder below these
    distractors: tuple[str, ...] = ()  # photos that show nothing of them
    max_distractors: int = 400
    # Seeds of rendered towns, each a search of its own beside the photos: facades full of equal
    # windows, which labelled photos of famous places hardly show.
    towns: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if min(self.towns, default=0) < 0:
            raise ValueError(f"towns must be seeds of at least 0, got {self.towns}")
        if self.max_distractors < 1:
            raise ValueError(f"max_distractors must be positive, got {self.max_distractors}")


@dataclass(frozen=True)
class ValidationConfig:
    """Labelled photos that are searched now and then while training; none to train on."""

    folders: tuple[str, ...] = ()  # photos that show the same thing lie in one folder below these
    groups: str = ""  # or a table as `delg evaluate groups` reads it,
    images: str = ""  # and the folder of its images
    every: int = 1000  # steps
    max_photos: int = 500  # whole groups, chosen by chance, up to so many photos

    def __post_init__(self) -> None:
        if bool(self.folders) == bool(self.groups):
            raise ValueError("validation must have either folders or groups, got both or none")
        if min(self.every, self.max_photos) < 1:
            raise ValueError(
                f"every and max_photos must be positive, got {self.every} and {self.max_photos}"
            )


@dataclass(frozen=True)
class TrainingConfig:
    """One training run."""

    name: str = "delg"
    output: str = "runs/delg"
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    distillation: DistillationConfig | None = None
    calibration: CalibrationConfig | None = None
    validation: ValidationConfig | None = None
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    start_from: str = ""  # weights file that the network begins as; empty: random weights
    # Which heads learn, each with the loss it has; what only the other one trains stays as it is.
    heads: Literal["both", "global", "local"] = "both"
    steps: int = 500_000  # SPEC 2.1
    # Share of the steps before the global loss counts: distillation first shapes the features.
    global_loss_from: float = 0.0
    batch_size: int = 32  # views per step, over all devices
    accumulate: int = 1  # parts that the batch of a step is worked off in
    devices: int = 1  # processes on this machine; torchrun decides where it starts them
    sync_batch_norm: bool = True  # statistics of all devices together, where there are several
    num_workers: int = 1
    precision: Literal["bf16-mixed", "32-true"] = "bf16-mixed"
    compile: bool = False  # torch.compile networks: a minute at the start, then faster steps
    max_minutes: float = 0.0  # the loop ends after so long, wherever the rate is then; 0: never
    checkpoint_every: int = 250  # steps
    log_every: int = 25  # steps
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 2:
            raise ValueError(
                f"steps must be positive and batch_size at least 2, "
                f"got {self.steps} and {self.batch_size}"
            )
        if not 0 <= self.global_loss_from <= 1:
            raise ValueError(f"global_loss_from must be in [0, 1], got {self.global_loss_from}")
        if not self.max_minutes >= 0:
            raise ValueError(f"max_minutes must not be negative, got {self.max_minutes}")
        if self.accumulate < 1 or self.devices < 1:
            raise ValueError(
                f"accumulate and devices must be positive, got {self.accumulate} and {self.devices}"
            )
        if self.batch_size % (self.accumulate * self.devices):
            raise ValueError(
                f"batch_size must be a multiple of accumulate x devices, got {self.batch_size} "
                f"for {self.accumulate} x {self.devices}"
            )
        if self.num_workers < 0:
            raise ValueError(f"num_workers must not be negative, got {self.num_workers}")
        if self.checkpoint_every < 1:
            raise ValueError(f"checkpoint_every must be positive, got {self.checkpoint_every}")
        if (
            self.distillation
            and self.distillation.descriptor_teacher
            and not self.data.is_in_memory
        ):
            raise ValueError("keep_in_memory must be true with a descriptor_teacher, got false")
        cells = self.data.image_size // 32
        if self.distillation and max(self.distillation.view_windows, default=0) > cells:
            raise ValueError(
                f"view_windows must be at most {cells} cells at image_size "
                f"{self.data.image_size}, got {self.distillation.view_windows}"
            )
        if self.heads == "global" and self.global_loss_from > 0 and self.distillation is None:
            raise ValueError("global_loss_from must be 0 where nothing but the global loss counts")
        if self.heads == "local" and self.distillation is not None:
            raise ValueError("distillation must be absent where only the local head learns")
        if self.log_every < 1:
            raise ValueError(f"log_every must be positive, got {self.log_every}")
        if not self.name or "/" in self.name:
            raise ValueError(f"name must be a file name without folders, got {self.name!r}")
