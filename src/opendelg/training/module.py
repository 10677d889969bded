"""One training step of DELG as a Lightning module."""

from collections.abc import Sequence
from typing import Any, Self

import lightning
import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional

from opendelg.model.delg import Delg
from opendelg.model.pooling import gem, gem_of_windows
from opendelg.training.augmentation import change_light
from opendelg.training.chance import CROP, LIGHT, MIX, Chance, seeds_of
from opendelg.training.config import TrainingConfig
from opendelg.training.distillation import (
    Teachers,
    Whitening,
    blend,
    descriptor_loss,
    hint_loss,
)
from opendelg.training.losses import ArcFace, local_losses
from opendelg.training.resident import ResidentPhotos

# Decay per step of the running mean of the attention's median, which is the score threshold.
THRESHOLD_MOMENTUM = 0.99

Losses = dict[str, tuple[Tensor, float]]  # value and weight by name


class DelgTraining(lightning.LightningModule):
    """DELG with its classifiers, its losses and, when distilling, its teachers' targets.

    Args:
        config: The run's settings.
        num_classes: Classes of both classifiers.
        teachers: The frozen networks and their targets.
        photos: What views are made of on the device, or None where the loader makes them.
    """

    def __init__(
        self,
        config: TrainingConfig,
        num_classes: int,
        teachers: Teachers | None = None,
        photos: Sequence[np.ndarray] | None = None,
    ) -> None:
        super().__init__()
        self.config, self.num_classes = config, num_classes
        self.model: Delg = Delg(config.model).to(  # type: ignore[call-overload]
            memory_format=torch.channels_last
        )
        self.global_classifier = ArcFace(
            config.model.num_global_dimensions, num_classes, config.loss
        )
        self.attention_classifier = nn.Linear(config.model.num_shallow_channels, num_classes)
        self.teachers = teachers or Teachers()
        distillation = config.distillation
        descriptor_teacher = self.teachers.descriptor
        if distillation is not None and distillation.map_weight > 0 and descriptor_teacher:
            self.map_predictor = nn.Conv2d(
                config.model.num_shallow_channels, descriptor_teacher.num_channels, 1
            )
        self._frozen = self._parts_without_a_loss()
        for part in self._frozen:
            part.requires_grad_(False)
        self._pixels = photos
        self._photos: ResidentPhotos | None = None
        self.register_buffer("median_attention", torch.tensor(float("nan")))
        self.measured: dict[str, Tensor] = {}  # of the last step, for whoever logs it

    def _parts_without_a_loss(self) -> list[nn.Module]:
        """What no loss of this run trains: it stays bit for bit, batch statistics included."""
        model = self.model
        match self.config.heads:
            case "both":
                return []
            case "global":
                return [model.attention, model.autoencoder, self.attention_classifier]
        backbone: nn.Module = model.backbone
        if self.config.loss.local_gradients != "stopped":
            backbone = model.backbone.get_submodule("layer4")
        return [backbone, model.whitening, self.global_classifier]

    def train(self, mode: bool = True) -> Self:
        """Set the mode of what learns; the rest is always evaluated."""
        super().train(mode)
        for part in self._frozen:
            part.eval()
        return self

    def on_train_start(self) -> None:
        """Move the teacher and the photos to the device, and what does not learn out of the way."""
        self.train()  # not before: Lightning warns of parts that it finds in evaluation mode
        self.teachers.move(self.device)
        if self.config.compile:
            backbone, teachers = self.model.backbone, self.teachers
            deep = backbone.get_submodule("layer4")
            for network in (backbone, deep, teachers.hint, teachers.descriptor):
                if network is not None:
                    network.compile()
        if self._pixels is not None:
            self._photos = ResidentPhotos(self._pixels, self.device)

    def transfer_batch_to_device(
        self, batch: list[Tensor], device: torch.device, dataloader_idx: int
    ) -> list[Tensor]:
        """Leave the numbers of views here: reading them back would make every step wait."""
        *others, numbers = batch
        return [*(tensor.to(device, non_blocking=True) for tensor in others), numbers]

    def training_step(self, batch: list[Tensor], batch_index: int) -> Tensor:
        """Sum the weighted losses of a batch.

        Args:
            batch: Views (B, 3, S, S) uint8, labels, positions of photos and numbers of views (B,).
            batch_index: Parts of steps so far.
        """
        views, labels, positions, numbers = batch
        data = self.config.data
        seeds = seeds_of(self.config.seed, LIGHT, numbers.numpy())
        chance = Chance(seeds, self.device)
        if self._photos is not None:
            views = self._photos.views(positions, data.image_size, data.augmentation, chance)
        clean = ((views.float() - 128) / 128).contiguous(memory_format=torch.channels_last)
        num_mixed = self._num_mixed(len(clean))
        if num_mixed:
            seeds = seeds_of(self.config.seed, MIX, numbers.numpy())
            clean = blend(clean, num_mixed, (Chance(seeds, self.device).uniform() + 1) / 2)
        images = change_light(clean, data.augmentation, chance)
        if self._learns_hints_only:
            images = self._small_crop(images)
        stages = self.model.backbone(images.contiguous(memory_format=torch.channels_last))
        losses: Losses = {}
        if self.config.heads != "global":
            losses |= self._local_losses(stages[-1][num_mixed:], labels[num_mixed:])
        losses |= self._hint_losses(images, stages)
        if self.config.heads != "local" and not self._learns_hints_only:
            losses |= self._global_losses(stages[-1], labels, positions, clean, num_mixed)
        total = torch.stack([weight * loss for loss, weight in losses.values()]).sum()
        self.measured |= {name: loss.detach() for name, (loss, _) in losses.items()}
        self.measured["loss"] = total.detach()
        return total

    @property
    def _counts_global_loss(self) -> bool:
        return self.global_step >= self.config.global_loss_from * self.config.steps

    def _num_mixed(self, batch_size: int) -> int:
        """How many of a batch, from its first, are blends and have no label."""
        config = self.config.distillation
        if config is None or self._counts_global_loss:
            return 0
        return round(config.mixed_share * batch_size)

    @property
    def _learns_hints_only(self) -> bool:
        config = self.config.distillation
        return config is not None and self.global_step < config.hint_only_steps

    def _small_crop(self, images: Tensor) -> Tensor:
        """The same random square of all images, for the steps that learn hints only."""
        assert self.config.distillation is not None
        side = min(self.config.distillation.hint_only_size, images.shape[-1])
        seeds = seeds_of(self.config.seed, CROP, np.array([self.global_step]))
        share = (Chance(seeds, torch.device("cpu")).uniform(2)[0] + 1) / 2
        top, left = (share * (images.shape[-1] - side + 1)).int().tolist()
        return images[:, :, top : top + side, left : left + side]

    def _local_losses(self, shallow: Tensor, labels: Tensor) -> Losses:
        config = self.config.loss
        local = local_losses(
            self.model,
            self.attention_classifier,
            shallow,
            config.attention_pooling,
            config.local_gradients,
        )
        self._track_attention(local.attention)
        attention = functional.cross_entropy(local.attention_logits, labels)
        return {
            "reconstruction": (local.reconstruction, config.reconstruction_weight),
            "attention": (attention, config.attention_weight),
        }

    def _global_losses(
        self,
        shallow: Tensor,
        labels: Tensor,
        positions: Tensor,
        clean: Tensor,
        num_mixed: int = 0,
    ) -> Losses:
        deep = self.model.backbone.deep(shallow)
        descriptors = self.model.pooled_descriptor(deep)
        losses: Losses = {}
        if self._counts_global_loss:
            logits = self.global_classifier(descriptors, labels)
            loss = functional.cross_entropy(logits, labels)
            losses["global"] = (loss, self.config.loss.global_weight)
        config, teachers = self.config.distillation, self.teachers
        if config is None:
            return losses
        if config.descriptor_weight > 0 and teachers.photo_descriptors is not None:
            loss = descriptor_loss(
                descriptors[num_mixed:], teachers.photo_descriptors[positions[num_mixed:]]
            )
            losses["descriptor"] = (loss, config.descriptor_weight)
        if config.asks_about_views and teachers.descriptor is not None:
            with torch.no_grad():
                given = teachers.descriptor(clean)[-1]
            if config.view_weight > 0 and teachers.whitening is not None:
                loss = descriptor_loss(descriptors, teachers.whitening.apply(gem(given)))
                losses["view"] = (loss, config.view_weight)
                losses |= self._window_losses(deep, given, teachers.whitening)
            if config.map_weight > 0:
                loss = hint_loss([self.map_predictor(shallow)], [given])
                losses["map"] = (loss, config.map_weight)
        return losses

    def _window_losses(self, deep: Tensor, given: Tensor, whitening: Whitening) -> Losses:
        """As the loss of whole views, of windows: a map says more than the one descriptor of it."""
        config = self.config.distillation
        assert config is not None
        losses: Losses = {}
        for side in config.view_windows:
            own = self.model.whitening(gem_of_windows(deep, side, stride=2))
            # Two of the teacher's cells are one of the deep map.
            wanted = whitening.apply(gem_of_windows(given, 2 * side, stride=4))
            losses[f"windows_{side}"] = (descriptor_loss(own, wanted), config.view_weight)
        return losses

    def _hint_losses(self, images: Tensor, stages: list[Tensor]) -> Losses:
        config, teacher = self.config.distillation, self.teachers.hint
        if config is None or teacher is None:
            return {}
        weight = config.hint_weight
        if config.hint_until > 0:
            weight *= max(0.0, 1 - self.global_step / (config.hint_until * self.config.steps))
        if weight == 0:
            return {}
        with torch.no_grad():
            given = teacher(images)
        return {"hint": (hint_loss(stages, given), weight)}

    def _track_attention(self, attention: Tensor) -> None:
        """Average the median attention: the score threshold of the trained model (SPEC 3.4)."""
        attention = attention.float()
        self.measured["attention_mean"] = attention.mean()
        self.measured["attention_deviation"] = attention.std()
        gathered = self.all_gather(attention) if self._trainer is not None else attention
        assert isinstance(gathered, Tensor)
        median, past = gathered.median(), torch.as_tensor(self.median_attention)
        kept = torch.where(past.isnan(), median, past)
        past.copy_(THRESHOLD_MOMENTUM * kept + (1 - THRESHOLD_MOMENTUM) * median)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Shorten the gradient of all weights together, and note how long it was."""
        longest = self.config.optimiser.max_gradient_norm
        norm = nn.utils.clip_grad_norm_(self.parameters(), longest or float("inf"))
        self.measured["gradient_norm"] = norm

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Optimise all weights with one rate: warm-up, then a straight line to 0."""
        config = self.config.optimiser
        parameters = [weight for weight in self.parameters() if weight.requires_grad]
        optimiser: torch.optim.Optimizer
        if config.kind == "sgd":
            optimiser = torch.optim.SGD(
                parameters, config.learning_rate, config.momentum, weight_decay=config.weight_decay
            )
        else:
            optimiser = torch.optim.AdamW(
                parameters, config.learning_rate, weight_decay=config.weight_decay
            )

        def rate(step: int) -> float:
            warm = min(1.0, (step + 1) / max(1, config.warm_up_steps))
            return warm * max(0.0, 1 - step / self.config.steps)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
        return {
            "optimizer": optimiser,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    @property
    def score_threshold(self) -> float:
        """Attention below which the trained model has no local feature."""
        if self.config.heads == "global":
            return 0.0  # nothing was learnt of attention: no cell is worse than another
        return float(torch.as_tensor(self.median_attention))

    def model_state(self) -> dict[str, Any]:
        """What is shipped: the network without its classifiers."""
        state: dict[str, Any] = self.model.state_dict()
        return state
