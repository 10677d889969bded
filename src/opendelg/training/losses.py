"""DELG's three losses (SPEC 1.1, 1.3) and where their gradients stop.

The global loss alone trains the backbone, unless the settings say otherwise.  The local losses see
the shallow map behind ``detach``: as the input of attention and autoencoder, and as the target of
the reconstruction.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from opendelg.model.delg import Delg

# Which local losses send gradients into the backbone: none, the attention's, or both.
LocalGradients = Literal["stopped", "attention", "all"]

# acos has an infinite slope at 1: cosines are kept this far inside (SPEC 1.3).
COSINE_LIMIT = 1.0 - 1e-7


@dataclass(frozen=True)
class LossConfig:
    """Weights and constants of DELG's losses; defaults are the published ones (SPEC 1.1)."""

    margin: float = 0.1  # radians, added to the true class's angle
    scale: float = math.sqrt(2048.0)  # gamma's first value: the root of the descriptor's size
    is_scale_trainable: bool = True  # the paper learns it, the open code does not
    global_weight: float = 1.0
    reconstruction_weight: float = 10.0  # lambda
    attention_weight: float = 1.0  # beta
    # The open code averages unit-length cells (SPEC 1.3), the paper sums them as they are.
    attention_pooling: Literal["mean_of_normalised", "sum"] = "mean_of_normalised"
    local_gradients: LocalGradients = "stopped"  # SPEC 1.1; the others are for comparison

    def __post_init__(self) -> None:
        if not 0 <= self.margin < math.pi:
            raise ValueError(f"margin must be in [0, pi), got {self.margin}")
        if not self.scale > 0:
            raise ValueError(f"scale must be positive, got {self.scale}")
        weights = (self.global_weight, self.reconstruction_weight, self.attention_weight)
        if not min(weights) >= 0:
            raise ValueError(f"weights of losses must not be negative, got {weights}")


def arcface_cosines(cosines: Tensor, labels: Tensor, margin: float) -> Tensor:
    """Float32 cosines (B, classes), the margin added to the angle of each row's true class.

    Beyond ``pi - margin`` the angle stays as it is: adding would turn it round (SPEC 1.3).
    """
    true = cosines.gather(1, labels[:, None]).clamp(-COSINE_LIMIT, COSINE_LIMIT)
    angle = torch.acos(true)
    with_margin = torch.where(angle <= math.pi - margin, torch.cos(angle + margin), true)
    return cosines.scatter(1, labels[:, None], with_margin.to(cosines.dtype))


class ArcFace(nn.Module):
    """Cosine classifier with an angular margin over whitened global descriptors."""

    def __init__(self, num_dimensions: int, num_classes: int, config: LossConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_classes, num_dimensions))
        nn.init.xavier_uniform_(self.weight)
        self.scale = nn.Parameter(
            torch.tensor(config.scale), requires_grad=config.is_scale_trainable
        )
        self.margin = config.margin

    def forward(self, descriptors: Tensor, labels: Tensor | None) -> Tensor:
        """Logits (B, classes) float32 of (B, D) descriptors; without labels, no margin.

        Autocast is off: in bfloat16 a cosine above 0.998 is 1, where the slope of acos is infinite
        and one such photo would make every weight NaN.
        """
        with torch.autocast(descriptors.device.type, enabled=False):
            units = functional.normalize(descriptors.float())
            cosines = units @ functional.normalize(self.weight).T
            if labels is not None:
                cosines = arcface_cosines(cosines, labels, self.margin)
            return cosines * self.scale


def pool_attended(
    features: Tensor, attention: Tensor, pooling: Literal["mean_of_normalised", "sum"]
) -> Tensor:
    """Pool (B, C, h, w) features with (B, h, w) attention to (B, C)."""
    weights = attention[:, None]
    if pooling == "sum":
        return (features.float() * weights).sum(dim=(2, 3))
    return (functional.normalize(features.float(), dim=1, eps=1e-12) * weights).mean(dim=(2, 3))


@dataclass(frozen=True)
class LocalLosses:
    """The two losses of the local head and what was measured on the way."""

    reconstruction: Tensor  # scalar, mean squared error over batch, cells and channels
    attention_logits: Tensor  # (B, classes)
    attention: Tensor  # (B, h, w), detached


def local_losses(
    model: Delg,
    classifier: nn.Linear,
    shallow: Tensor,
    pooling: Literal["mean_of_normalised", "sum"] = "mean_of_normalised",
    gradients: LocalGradients = "stopped",
) -> LocalLosses:
    """Run the local head in training on the shallow map (B, C, H / 16, W / 16).

    Attention is computed on S and pools the reconstruction S': its classification loss trains
    attention and autoencoder together, the backbone only where ``gradients`` let it.
    """
    cells = model.local_map(shallow)
    attended = cells.detach() if gradients == "stopped" else cells
    rebuilt = cells if gradients == "all" else cells.detach()
    attention = model.attention(attended)
    reconstructed = model.autoencoder(attended)
    pooled = pool_attended(reconstructed, attention, pooling)
    if gradients == "attention":
        reconstructed = model.autoencoder(rebuilt)
    return LocalLosses(
        reconstruction=functional.mse_loss(reconstructed.float(), rebuilt.float()),
        attention_logits=classifier(pooled),
        attention=attention.detach(),
    )
