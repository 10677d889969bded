"""DELG on TF-slim's ResNet-v1, written in TensorFlow operations (SPEC 1.2 and 6.4).

`network` is the forward pass.  Where its values come from is up to the `Parameters` it is given:
`RandomParameters` draws them when they are first asked for, and `export_slim.py` has variables.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import tensorflow as tf

from pyramid import Maps

EPSILON = 1e-5  # of every batch norm
NUM_UNITS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


@dataclass(frozen=True)
class HeadNames:
    """Scopes of the heads; those of the released models are not known."""

    attention1: str
    attention2: str
    encoder: str
    decoder: str
    whitening: str


HEADS = {
    "delf": HeadNames(
        "attention_block/attention/compute/conv1",
        "attention_block/attention/compute/conv2",
        "autoencoder/encoder",
        "autoencoder/decoder",
        "global_descriptor/whitening",
    ),
    "short": HeadNames(
        "local/attn_conv1", "local/attn_conv2", "local/conv1", "local/conv2", "embedding_layer"
    ),
    # Nothing in these names tells what the tensors are for.
    "opaque": HeadNames("head/a", "head/b", "head/c", "head/d", "head/e"),
}


@dataclass(frozen=True)
class Shape:
    """Depth and widths of a network."""

    depth: int
    stem: int
    widths: tuple[int, int, int, int]  # of the 3x3 convolutions
    attention: int
    local: int
    descriptor: int  # global

    @classmethod
    def scaled(cls, depth: int, factor: float) -> "Shape":
        """The released widths times a factor."""
        sizes = (64, 64, 128, 256, 512, 512, 128, 2048)
        stem, *widths, attention, local, descriptor = (max(3, round(s * factor)) for s in sizes)
        return cls(depth, stem, tuple(widths), attention, local, descriptor)


class Parameters(Protocol):
    """Where `network` takes its tensors from, all by TF-slim name."""

    def conv(self, scope: str, shape: tuple[int, int, int, int]) -> tf.Tensor:
        """Kernel of a convolution, (height, width, in, out)."""

    def bias(self, scope: str, size: int) -> tf.Tensor:
        """Bias of a convolution without batch norm."""

    def batch_norm(self, scope: str, maps: tf.Tensor) -> tf.Tensor:
        """Maps normalised by the batch norm of this scope."""

    def dense(self, scope: str, pooled: tf.Tensor, size: int) -> tf.Tensor:
        """Whiten (1, C) to (1, size), with bias."""


def network(
    images: tf.Tensor,
    shape: Shape,
    heads: HeadNames,
    parameters: Parameters,
    scope: str = "",
    with_decoder: bool = False,
) -> Maps:
    """Maps of normalised images (1, h, w, 3); ``scope`` goes before every name."""

    def conv(
        maps: tf.Tensor,
        name: str,
        width: int,
        kernel: int = 1,
        stride: int = 1,
        activation: Callable[[tf.Tensor], tf.Tensor] | None = tf.nn.relu,
        with_norm: bool = True,
    ) -> tf.Tensor:
        with tf.name_scope(scope + name):
            if stride > 1:  # conv2d_same: symmetric zeros whatever the parity of the side
                edge = [(kernel - 1) // 2] * 2
                maps = tf.pad(maps, [[0, 0], edge, edge, [0, 0]])
            weights = parameters.conv(scope + name, (kernel, kernel, maps.shape[3], width))
            maps = tf.nn.conv2d(maps, weights, stride, "VALID" if stride > 1 else "SAME")
            if with_norm:
                maps = parameters.batch_norm(scope + name, maps)
            else:
                maps = tf.nn.bias_add(maps, parameters.bias(scope + name, width))
            return maps if activation is None else activation(maps)

    def unit(maps: tf.Tensor, name: str, width: int, stride: int, is_first: bool) -> tf.Tensor:
        if is_first:
            shortcut = conv(maps, f"{name}/shortcut", 4 * width, activation=None)
        elif stride > 1:
            with tf.name_scope(f"{scope}{name}/shortcut"):
                shortcut = tf.nn.max_pool2d(maps, 1, stride, "SAME", name="MaxPool")
        else:
            shortcut = maps
        residual = conv(maps, f"{name}/conv1", width)
        residual = conv(residual, f"{name}/conv2", width, 3, stride)
        residual = conv(residual, f"{name}/conv3", 4 * width, activation=None)
        with tf.name_scope(scope + name):
            return tf.nn.relu(shortcut + residual)

    backbone = f"resnet_v1_{shape.depth}"
    maps = conv(images, f"{backbone}/conv1", shape.stem, 7, 2)
    with tf.name_scope(f"{scope}{backbone}/pool1"):
        maps = tf.nn.max_pool2d(maps, 3, 2, "SAME", name="MaxPool")
    outputs = []
    for block, (num_units, width) in enumerate(
        zip(NUM_UNITS[shape.depth], shape.widths, strict=True), start=1
    ):
        for index in range(1, num_units + 1):
            stride = 2 if block < 4 and index == num_units else 1
            name = f"{backbone}/block{block}/unit_{index}/bottleneck_v1"
            maps = unit(maps, name, width, stride, is_first=index == 1)
        outputs.append(maps)
    shallow, deep = outputs[2:]

    hidden = conv(shallow, heads.attention1, shape.attention)
    scores = conv(hidden, heads.attention2, 1, activation=tf.nn.softplus, with_norm=False)
    encoded = conv(shallow, heads.encoder, shape.local, activation=None, with_norm=False)
    if with_decoder:
        conv(encoded, heads.decoder, shallow.shape[3], with_norm=False)
    cubes = tf.pow(tf.maximum(deep, 1e-6), 3.0)
    pooled = tf.pow(tf.reduce_mean(cubes, [1, 2]), 1.0 / 3.0)
    with tf.name_scope(scope + heads.whitening):
        whitened = parameters.dense(scope + heads.whitening, pooled, shape.descriptor)
    return Maps(scores, encoded, whitened)


class RandomParameters:
    """Seeded random values; batch norms take the statistics of the maps they first see."""

    def __init__(self, heads: HeadNames, seed: int, dense_rank: int = 4) -> None:
        self.values: dict[str, np.ndarray] = {}
        self._heads = heads
        self._dense_rank = dense_rank
        self._random = np.random.default_rng(seed)

    def _normal(self, name: str, shape: tuple[int, ...], mean: float, spread: float) -> np.ndarray:
        if name not in self.values:
            drawn = self._random.standard_normal(shape, np.float32)
            self.values[name] = drawn * np.float32(spread) + np.float32(mean)
        return self.values[name]

    def conv(self, scope: str, shape: tuple[int, int, int, int]) -> tf.Tensor:
        """He initialisation; scores get a spread of about 100, as in the released models."""
        spread = np.sqrt(2 / np.prod(shape[:3]))
        if scope.endswith(self._heads.attention2):
            spread *= 100
        return tf.constant(self._normal(f"{scope}/weights", shape, 0.0, float(spread)))

    def bias(self, scope: str, size: int) -> tf.Tensor:
        """Small values, but scores are about 200 (SPEC 3.4: thresholds of 166 to 455)."""
        mean = 200.0 if scope.endswith(self._heads.attention2) else 0.0
        return tf.constant(self._normal(f"{scope}/biases", (size,), mean, 0.1))

    def batch_norm(self, scope: str, maps: tf.Tensor) -> tf.Tensor:
        """Normalise by the maps' own mean and variance, and keep those."""
        name = f"{scope}/BatchNorm"
        size = (maps.shape[3],)
        # A third on the residual branch keeps the sum of 30 units from growing.
        gamma = self._normal(f"{name}/gamma", size, 0.33 if scope.endswith("/conv3") else 1.0, 0.1)
        beta = self._normal(f"{name}/beta", size, 0.0, 0.1)
        mean, variance = tf.nn.moments(maps, [0, 1, 2])
        self.values[f"{name}/moving_mean"] = mean.numpy()
        self.values[f"{name}/moving_variance"] = variance.numpy()
        return tf.nn.batch_normalization(maps, mean, variance, beta, gamma, EPSILON)

    def dense(self, scope: str, pooled: tf.Tensor, size: int) -> tf.Tensor:
        """Whitening as a matrix, stored as a 1x1 convolution or as a matrix (``dense_rank``)."""
        channels = pooled.shape[1]
        shape = (1, 1, channels, size)[-self._dense_rank :]
        weights = self._normal(f"{scope}/weights", shape, 0.0, channels**-0.5)
        bias = self._normal(f"{scope}/biases", (size,), 0.0, 0.1)
        return pooled @ weights.reshape(channels, size) + bias
