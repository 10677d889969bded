"""Feature distillation: a frozen teacher's maps and descriptors as targets of a student.

The student starts from random weights and never holds a tensor of the teacher.  Two targets:
its stage outputs shall equal those of a teacher of the same shape on the same view (hints,
Romero et al., "FitNets", ICLR 2015), and its global descriptor of any view shall equal the
half-whitened GeM descriptor that a larger teacher gives to the whole photo.
"""

import logging
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
    descriptor_weight: float = 1.0
    # Hints need no whole view: the first steps learn them alone, from small crops of the views,
    # three times as many a second.
    hint_only_steps: int = 0
    hint_only_size: int = 96  # px, side of the crops
    # Half whitening (power 0.5) beat none and full on the training photos: mAP 0.71 against 0.61
    # and 0.65 on Berlin landmarks among distractors.
    whitening_power: float = 0.5
    photo_side: int = 320  # px, longer side of the photo that the descriptor teacher sees

    def __post_init__(self) -> None:
        if not (self.hint_weight >= 0 and self.descriptor_weight >= 0):
            raise ValueError(
                f"hint_weight and descriptor_weight must not be negative, "
                f"got {self.hint_weight} and {self.descriptor_weight}"
            )
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


@torch.inference_mode()
def pooled_descriptors(
    teacher: Teacher, photos: Sequence[np.ndarray], photo_side: int, device: torch.device
) -> np.ndarray:
    """GeM descriptors (N, C) float32 of whole (H, W, 3) uint8 photos."""
    import cv2

    teacher = teacher.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    pooled = []
    for number, pixels in enumerate(photos):
        factor = photo_side / max(pixels.shape[:2])
        height, width = (max(32, round(side * factor / 32) * 32) for side in pixels.shape[:2])
        resized = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
        images = torch.from_numpy(resized).permute(2, 0, 1)[None].to(device).float()
        images = ((images - 128) / 128).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            maps = teacher.stages(images)[-1]
        pooled.append(gem(maps)[0].cpu().numpy())
        if number % 500 == 499:
            logger.info("teacher descriptors: %d of %d photos", number + 1, len(photos))
    return np.stack(pooled).astype(np.float32)


def half_whiten(descriptors: np.ndarray, num_dimensions: int, power: float) -> np.ndarray:
    """Rotate (N, C) descriptors to their principal axes and divide by deviation ** ``power``.

    Returns:
        (N, num_dimensions) float32 rows of unit length.
    """
    unit = descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True)
    centred = unit - unit.mean(axis=0)
    variances, axes = np.linalg.eigh(centred.T @ centred / len(centred))
    axes, variances = axes[:, ::-1][:, :num_dimensions], variances[::-1][:num_dimensions]
    projected = centred @ axes / np.maximum(variances, 1e-12) ** (power / 2)
    rows: np.ndarray = projected / np.linalg.norm(projected, axis=1, keepdims=True)
    return rows.astype(np.float32)


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
