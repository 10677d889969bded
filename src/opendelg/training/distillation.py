"""Feature distillation: a frozen teacher's maps and descriptors as targets of a student.

The student starts from random weights and never holds a tensor of the teacher.  Two targets:
its stage outputs shall equal those of a teacher of the same shape on the same view (hints,
Romero et al., "FitNets", ICLR 2015), and its global descriptor of any view shall equal the
partly whitened GeM descriptor that a larger teacher gives to the whole photo, to the view, or
both; of the view it may learn the larger teacher's map too.
"""

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from opendelg.model.pooling import gem
from opendelg.training.teacher import Teacher

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DistillationConfig:
    """What the teachers give, and how much it counts."""

    hint_teacher: str = ""  # .npz of a ResNet-18; its stage outputs are the hints
    descriptor_teacher: str = ""  # .npz of a ResNet-50; its GeM descriptor is the global target
    hint_weight: float = 1.0
    # Share of the steps over which the hints' weight falls in a straight line to 0; 0: it stays.
    hint_until: float = 0.0
    descriptor_weight: float = 1.0  # of the teacher's descriptor of the whole photo
    # The descriptor teacher also looks at each view itself, before its light is changed: its
    # descriptor of the view, and its map, which a linear layer shall tell from the student's.
    view_weight: float = 0.0
    map_weight: float = 0.0
    # Side, in cells of the student's deep map, of square windows of a view; the descriptor of each
    # shall equal the teacher's of that part of its map.  They count as much as the whole view.
    view_windows: tuple[int, ...] = ()
    # Share of every batch that is blended with other views of it until the global loss counts:
    # what the teacher says of a blend is a target like any other, so a small set has more to teach
    # (Beyer et al., "Knowledge distillation: a good teacher is patient and consistent", 2022).
    mixed_share: float = 0.0
    # Hints need no whole view: the first steps learn them alone, from small crops of the views,
    # three times as many a second.
    hint_only_steps: int = 0
    hint_only_size: int = 96  # px, side of the crops
    # Half whitening (power 0.5) beat none and full on the training photos: mAP 0.71 against 0.61
    # and 0.65 on Berlin landmarks among distractors.
    whitening_power: float = 0.5
    photo_side: int = 320  # px, longer side of the photo that the descriptor teacher sees

    def __post_init__(self) -> None:
        weights = (self.hint_weight, self.descriptor_weight, self.view_weight, self.map_weight)
        if not min(weights) >= 0:
            raise ValueError(f"weights of distillation must not be negative, got {weights}")
        if not 0 <= self.hint_until <= 1:
            raise ValueError(f"hint_until must be in [0, 1], got {self.hint_until}")
        if self.asks_about_views and not self.descriptor_teacher:
            raise ValueError("view_weight and map_weight must be 0 without a descriptor_teacher")
        if self.view_windows and not self.view_weight:
            raise ValueError(
                f"view_windows must be empty without view_weight, got {self.view_windows}"
            )
        if min(self.view_windows, default=2) < 2:
            raise ValueError(f"view_windows must be at least 2 cells, got {self.view_windows}")
        if not 0 <= self.mixed_share < 1:
            raise ValueError(f"mixed_share must be in [0, 1), got {self.mixed_share}")
        if min(self.photo_side, self.hint_only_size) < 32:
            raise ValueError(
                f"photo_side and hint_only_size must be at least 32, "
                f"got {self.photo_side} and {self.hint_only_size}"
            )
        if self.hint_only_steps < 0 or (self.hint_only_steps and not self.hint_teacher):
            raise ValueError(
                f"hint_only_steps must be 0 without a hint_teacher and never negative, "
                f"got {self.hint_only_steps}"
            )

    @property
    def asks_about_views(self) -> bool:
        """Whether the descriptor teacher sees every view, not only whole photos."""
        return self.view_weight > 0 or self.map_weight > 0


def hint_loss(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Mean over stages of the squared error relative to the teacher's variance per channel.

    The teacher's maps are brought to unit deviation first, which is where a fresh batch norm
    starts: targets of deviation 0.2 to 0.4, as they are, cost hundreds of steps of shrinking.
    """
    losses = []
    for own, given in zip(student, teacher, strict=True):
        target = given.float() / given.float().std().clamp(min=1e-6)
        variance = target.var(dim=(0, 2, 3), keepdim=True)
        error = (own.float() - target) ** 2 / (variance + 0.2 * variance.mean() + 1e-6)
        losses.append(error.mean())
    return torch.stack(losses).mean()


def descriptor_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean cosine distance of (B, D) student descriptors to (B, D) unit-length targets."""
    return (1 - (functional.normalize(student.float()) * teacher).sum(dim=1)).mean()


def blend(images: Tensor, count: int, weights: Tensor) -> Tensor:
    """Blend each of the first ``count`` of (B, C, H, W) images with the one before it.

    Args:
        images: A batch in random order.
        count: How many are blended; the others stay as they are.
        weights: (B,) share of itself that an image keeps.
    """
    first = images[:count]
    mixed = first.roll(1, 0).lerp(first, weights[:count, None, None, None])
    return torch.cat([mixed, images[count:]])


@torch.no_grad()  # not inference_mode: the teacher goes on to serve in training
def pooled_descriptors(
    teacher: Teacher, photos: Sequence[np.ndarray], photo_side: int, device: torch.device
) -> np.ndarray:
    """GeM descriptors (N, C) float32 of whole (H, W, 3) uint8 photos."""
    import cv2

    teacher = teacher.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    by_size = defaultdict(list)
    for number, pixels in enumerate(photos):
        factor = photo_side / max(pixels.shape[:2])
        height, width = (max(32, round(side * factor / 32) * 32) for side in pixels.shape[:2])
        by_size[width, height].append(number)
    batch_size = 64 if device.type == "cuda" else 1
    batches = [
        (size, numbers[start : start + batch_size])
        for size, numbers in by_size.items()
        for start in range(0, len(numbers), batch_size)
    ]
    pooled: dict[int, np.ndarray] = {}
    for size, numbers in batches:
        resized = [cv2.resize(photos[n], size, interpolation=cv2.INTER_AREA) for n in numbers]
        images = torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).to(device).float()
        images = ((images - 128) / 128).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            maps = teacher(images)[-1]
        pooled |= zip(numbers, gem(maps).cpu().numpy(), strict=True)
        if len(pooled) % 500 < len(numbers):
            logger.info("teacher descriptors: %d of %d photos", len(pooled), len(photos))
    return np.stack([pooled[number] for number in range(len(photos))]).astype(np.float32)


@dataclass(frozen=True)
class Whitening:
    """Principal axes of unit-length descriptors, each stretched by a power of its deviation."""

    mean: Tensor  # (C,) float32
    axes: Tensor  # (C, num_dimensions) float32

    def apply(self, descriptors: Tensor) -> Tensor:
        """Whiten (N, C) descriptors of any length to (N, num_dimensions) rows of unit length."""
        with torch.autocast(descriptors.device.type, enabled=False):
            centred = functional.normalize(descriptors.float()) - self.mean
            return functional.normalize(centred @ self.axes)


def fit_whitening(descriptors: np.ndarray, num_dimensions: int, power: float) -> Whitening:
    """Principal axes of (N, C) descriptors, each divided by its deviation ** ``power``."""
    unit = descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True)
    mean = unit.mean(axis=0)
    centred = unit - mean
    variances, axes = np.linalg.eigh(centred.T @ centred / len(centred))
    axes, variances = axes[:, ::-1][:, :num_dimensions], variances[::-1][:num_dimensions]
    stretched = axes / np.maximum(variances, 1e-12) ** (power / 2)
    return Whitening(
        torch.from_numpy(mean.astype(np.float32)), torch.from_numpy(stretched.astype(np.float32))
    )


@dataclass
class Teachers:
    """What a student learns from; a part that is None gives no target.

    No module, so that nothing of a teacher is trained, saved or shipped.
    """

    hint: Teacher | None = None
    descriptor: Teacher | None = None  # asked about every view
    whitening: Whitening | None = None  # of its descriptors
    photo_descriptors: Tensor | None = None  # (P, D) float32, unit length, of each whole photo

    def move(self, device: torch.device) -> None:
        """Bring networks and targets to the device of the training."""
        for teacher in (self.hint, self.descriptor):
            if teacher is not None:
                teacher.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.whitening is not None:
            parts = (self.whitening.mean, self.whitening.axes)
            self.whitening = Whitening(*(part.to(device) for part in parts))
        if self.photo_descriptors is not None:
            self.photo_descriptors = self.photo_descriptors.to(device)


def cached_pooled_descriptors(
    path: Path,
    names: Sequence[str],
    teacher: Teacher,
    photos: Sequence[np.ndarray],
    photo_side: int,
    device: torch.device,
) -> np.ndarray:
    """As ``pooled_descriptors``, kept in the .npz ``path`` for the next run on the same photos."""
    if path.is_file():
        with np.load(path, allow_pickle=False) as file:
            if file["names"].tolist() == list(names) and int(file["photo_side"]) == photo_side:
                cached: np.ndarray = file["descriptors"]
                return cached
    descriptors = pooled_descriptors(teacher, photos, photo_side, device)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, names=np.array(names), photo_side=photo_side, descriptors=descriptors)
    return descriptors
