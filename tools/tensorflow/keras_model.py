"""DELG with the attribute names of the open training code, in Keras (SPEC 1.3 and 6.5)."""

from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

from pyramid import Maps

layers = tf.keras.layers
NUM_UNITS = (3, 4, 6, 3)  # of stages 2 to 5
NUM_CLASSES = 9


class Unit(tf.keras.Model):
    """Bottleneck; the stride is in the first 1x1 convolution and in the shortcut."""

    def __init__(self, width: int, stride: int, is_first: bool) -> None:
        super().__init__()
        self.conv2a = layers.Conv2D(width, 1, stride)
        self.bn2a = layers.BatchNormalization()
        self.conv2b = layers.Conv2D(width, 3, padding="same")
        self.bn2b = layers.BatchNormalization()
        self.conv2c = layers.Conv2D(4 * width, 1)
        self.bn2c = layers.BatchNormalization()
        self.is_first = is_first
        if is_first:
            self.conv_shortcut = layers.Conv2D(4 * width, 1, stride)
            self.bn_shortcut = layers.BatchNormalization()

    def call(self, maps: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Map (B, h, w, C) to (B, h / stride, w / stride, 4 width)."""
        residual = tf.nn.relu(self.bn2a(self.conv2a(maps), training))
        residual = tf.nn.relu(self.bn2b(self.conv2b(residual), training))
        residual = self.bn2c(self.conv2c(residual), training)
        shortcut = self.bn_shortcut(self.conv_shortcut(maps), training) if self.is_first else maps
        return tf.nn.relu(residual + shortcut)


class Backbone(tf.keras.Model):
    """ResNet-50 with its global head."""

    def __init__(self, stem: int, widths: tuple[int, ...], descriptor: int) -> None:
        super().__init__()
        self.conv1 = layers.Conv2D(stem, 7, 2, padding="same")
        self.bn_conv1 = layers.BatchNormalization()
        self.max_pool = layers.MaxPooling2D(3, 2)
        self.subsampling_layer = layers.MaxPooling2D(1, 2)
        for stage, (num_units, width) in enumerate(zip(NUM_UNITS, widths, strict=True), start=2):
            for index, letter in enumerate("abcdef"[:num_units]):
                # Stage 5 has no stride: the subsampling before it has (block3_strides).
                stride = 2 if stage in (3, 4) and index == 0 else 1
                setattr(self, f"l{stage}{letter}", Unit(width, stride, index == 0))
        self.embedding_layer = layers.Dense(descriptor)

    def layers_of(self, images: tf.Tensor, training: bool) -> Iterator[tuple[str, tf.Tensor]]:
        """Every intermediate result by the names that `layers.py` compares."""
        maps = tf.nn.relu(self.bn_conv1(self.conv1(images), training))
        yield "root", maps
        maps = self.max_pool(maps)
        yield "pool", maps
        for stage, num_units in enumerate(NUM_UNITS, start=2):
            for index, letter in enumerate("abcdef"[:num_units], start=1):
                maps = getattr(self, f"l{stage}{letter}")(maps, training)
                yield f"block{stage - 1}/unit_{index}", maps
            if stage == 4:
                maps = self.subsampling_layer(maps)
                yield "shallow", maps
        pooled = tf.reduce_mean(tf.maximum(maps, 1e-6) ** 3.0, [1, 2]) ** (1.0 / 3.0)
        yield "pooled", pooled
        yield "whitened", self.embedding_layer(pooled)


class Attention(tf.keras.Model):
    """Scores of the cells."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = layers.Conv2D(width, 1)
        self.bn_conv1 = layers.BatchNormalization()
        self.conv2 = layers.Conv2D(1, 1)

    def call(self, maps: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Scores (B, h, w, 1) of maps (B, h, w, C)."""
        hidden = tf.nn.relu(self.bn_conv1(self.conv1(maps), training))
        return tf.nn.softplus(self.conv2(hidden))


class Autoencoder(tf.keras.Model):
    """Encoder and decoder of the local descriptors."""

    def __init__(self, local: int, channels: int) -> None:
        super().__init__()
        self.conv1 = layers.Conv2D(local, 1)
        self.conv2 = layers.Conv2D(channels, 1, activation="relu")

    def call(self, maps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Descriptors (B, h, w, D') and their reconstruction (B, h, w, C)."""
        encoded = self.conv1(maps)
        return encoded, self.conv2(encoded)


class Delg(tf.keras.Model):
    """The whole of what training saves."""

    def __init__(
        self, stem: int, widths: tuple[int, ...], attention: int, local: int, descriptor: int
    ) -> None:
        super().__init__()
        self.backbone = Backbone(stem, widths, descriptor)
        self.attention = Attention(attention)
        self.autoencoder = Autoencoder(local, 4 * widths[2])
        self.cosine_weights = self.add_weight("cosine_weights", (descriptor, NUM_CLASSES))
        self.scale_factor = self.add_weight("scale_factor", (), trainable=False)
        self.attn_classification = layers.Dense(NUM_CLASSES)

    def layers_of(self, images: tf.Tensor, training: bool = False) -> dict[str, tf.Tensor]:
        """Every intermediate result, heads included; builds all variables."""
        outputs = dict(self.backbone.layers_of(images, training))
        shallow = outputs["shallow"]
        outputs["attention"] = self.attention(shallow, training)
        outputs["encoded"], decoded = self.autoencoder(shallow)
        self.attn_classification(tf.reduce_mean(decoded, [1, 2]))
        return outputs

    def maps(self, images: tf.Tensor) -> Maps:
        """What the pyramid takes of normalised images (1, h, w, 3)."""
        outputs = self.layers_of(images)
        return Maps(outputs["attention"], outputs["encoded"], outputs["whitened"])


def load_checkpoint(prefix: Path) -> Delg:
    """The network of a checkpoint; the widths are those of its tensors."""
    shapes = tf.train.load_checkpoint(str(prefix)).get_variable_to_shape_map()

    def width(path: str) -> int:
        return shapes[f"{path}/.ATTRIBUTES/VARIABLE_VALUE"][-1]

    network = Delg(
        width("backbone/conv1/kernel"),
        tuple(width(f"backbone/l{stage}a/conv2a/kernel") for stage in (2, 3, 4, 5)),
        width("attention/conv1/kernel"),
        width("autoencoder/conv1/kernel"),
        width("backbone/embedding_layer/kernel"),
    )
    network.layers_of(tf.zeros([1, 64, 64, 3]))
    network.load_weights(str(prefix)).assert_existing_objects_matched().expect_partial()
    return network
