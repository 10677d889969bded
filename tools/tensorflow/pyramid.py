"""What the official exporters do around the network, in TensorFlow operations (SPEC 3.2, 3.4).

Every function works in a TensorFlow 1 graph and, called eagerly, in TensorFlow 2.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

SCALES = (0.25, 0.35355338, 0.5, 0.70710677, 1.0, 1.4142135, 2.0)
GLOBAL_SCALES = (3, 4, 5)  # positions in SCALES
OUTPUTS = ("boxes", "features", "scales", "scores", "global_descriptors")

# Receptive box of a cell of block3 with stride 32, px (SPEC 3.4).
FIELD, STRIDE, PADDING = 291.0, 32.0, 145.0

Resize = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


class Maps(NamedTuple):
    """What a network gives for one image of one size."""

    attention: tf.Tensor  # (1, h, w, 1), after softplus
    encoded: tf.Tensor  # (1, h, w, D')
    whitened: tf.Tensor  # (1, D), before normalisation


class Level(NamedTuple):
    """Output of one pyramid scale."""

    boxes: tf.Tensor  # (N, 4) ymin, xmin, ymax, xmax, px of the image
    features: tf.Tensor  # (N, D')
    scales: tf.Tensor  # (N,), 1 / pyramid scale
    scores: tf.Tensor  # (N,)
    global_descriptors: tf.Tensor  # (1, D)


def legacy_resize(images: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """TensorFlow 1's bilinear kernel: no half-pixel centres."""
    return tf.compat.v1.image.resize_bilinear(images, size)


def half_pixel_resize(images: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """TensorFlow 2's bilinear kernel, without antialiasing."""
    return tf.image.resize(images, size)


def normalise(image: tf.Tensor) -> tf.Tensor:
    """(h, w, 3) uint8 as (1, h, w, 3) float32."""
    return tf.expand_dims((tf.cast(image, tf.float32) - 128.0) / 128.0, 0)


def run_level(
    network: Callable[[tf.Tensor], Maps],
    images: tf.Tensor,
    scale: tf.Tensor,
    threshold: tf.Tensor,
    resize: Resize,
) -> Level:
    """Resize, run the network, and keep the cells whose score reaches the threshold."""
    size = tf.cast(tf.shape(images)[1:3], tf.float32)
    maps = network(resize(images, tf.cast(tf.round(size * scale), tf.int32)))
    scores = tf.reshape(maps.attention, [-1])
    kept = tf.reshape(tf.where(scores >= threshold), [-1])
    features = tf.reshape(maps.encoded, [-1, maps.encoded.shape[3]])
    scores = tf.gather(scores, kept)
    return Level(
        tf.gather(_boxes(tf.shape(maps.attention)) / scale, kept),
        tf.gather(features, kept),
        tf.ones_like(scores) / scale,
        scores,
        maps.whitened,
    )


def _boxes(shape: tf.Tensor) -> tf.Tensor:
    """Receptive boxes (h w, 4) of a map of this shape (1, h, w, 1), px of the resized image."""
    rows, columns = tf.meshgrid(tf.range(shape[1]), tf.range(shape[2]), indexing="ij")
    cells = tf.cast(tf.reshape(tf.stack([rows, columns], axis=2), [-1, 2]), tf.float32)
    first = STRIDE * cells - PADDING
    return tf.concat([first, first + FIELD - 1.0], axis=1)


def select(levels: Level, max_features: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """The best cells of the concatenated levels, in the order of OUTPUTS but for the last.

    Non-maximum suppression at an overlap of 1 suppresses nothing: it sorts (SPEC 3.4).
    """
    count = tf.minimum(max_features, tf.shape(levels.scores)[0])
    best = tf.image.non_max_suppression(levels.boxes, levels.scores, count, iou_threshold=1.0)
    boxes, features, scales, scores = (tf.gather(part, best) for part in levels[:4])
    return boxes, features, scales, tf.expand_dims(scores, 1)
