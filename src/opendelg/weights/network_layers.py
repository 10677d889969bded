"""Convolutions by what they are in the network, whatever a code base calls their variables."""

from dataclasses import dataclass, field

# Layers of the heads, by their torch name.
ATTENTION_1 = "attention.conv1"
ATTENTION_2 = "attention.conv2"
ENCODER = "autoencoder.encoder"
DECODER = "autoencoder.decoder"
WHITENING = "whitening"

# Torch name of each vector of a batch norm, by TensorFlow's.
NORM_PARTS = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


@dataclass
class Layer:
    """A convolution or matrix with its bias and batch norm, by the names of their variables."""

    weight: str | None = None
    bias: str | None = None
    norm: dict[str, str] = field(default_factory=dict)  # gamma, beta, moving_mean, moving_variance

    @property
    def names(self) -> list[str]:
        """The variables, in the order weight, bias, batch norm."""
        return [name for name in (self.weight, self.bias, *self.norm.values()) if name is not None]


def norm_of(layer: str) -> str:
    """Torch name of the batch norm behind a layer: ``a.conv2`` has ``a.bn2``."""
    if layer.endswith("downsample.0"):
        return layer[:-1] + "1"
    return layer.replace("conv", "bn")


def has_norm(layer: str) -> bool:
    """Whether a batch norm is behind a layer."""
    return layer.startswith("backbone.") or layer == ATTENTION_1
