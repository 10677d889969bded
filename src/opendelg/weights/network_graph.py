"""What a saved model's graph says of a DELG network: its heads, strides and constants.

The names of the released heads are unknown, their place is not: the attention's last convolution
feeds the softplus and its first one reads the shallow map; the encoder reads that map too and the
decoder what the encoder gives; the whitening follows the mean over the deep map (SPEC 1).
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

import numpy as np

from opendelg.weights.network_layers import (
    ATTENTION_1,
    ATTENTION_2,
    DECODER,
    ENCODER,
    WHITENING,
    Layer,
)
from opendelg.weights.saved_model import Operation, SavedModel, constant

_PRODUCTS = ("Conv2D", "MatMul")
_NORMS = ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
_SUMS = ("BiasAdd", "Add", "AddV2")
_RESHAPES = ("Squeeze", "Reshape", "ExpandDims", "StridedSlice")
_MAX_PATH = 2000  # operations between a map and the image; a ResNet-101 has about 500
_MAX_AHEAD = 100  # operations between two layers; a handful


@dataclass
class Convolution:
    """How the graph computes one convolution."""

    stride: int
    padding: str  # SAME, VALID, or the pixels that are padded by hand, as "3/3"


@dataclass
class NetworkGraph:
    """What was found; None and empty where the graph does not say it."""

    heads: dict[str, Layer] = field(default_factory=dict)
    convolutions: dict[str, Convolution] = field(default_factory=dict)  # by variable
    epsilons: dict[str, float] = field(default_factory=dict)  # by the batch norm's variance
    pool_padding: str | None = None  # of the 3x3 max-pool, as of a Convolution
    local_stride: int | None = None  # px per cell of the shallow map
    deep_stride: int | None = None
    gem_power: float | None = None
    gem_epsilon: float | None = None
    resize_rule: str | None = None
    faults: list[str] = field(default_factory=list)  # what no network of ours can compute


def read_network_graph(model: SavedModel, backbone: Collection[str]) -> NetworkGraph:
    """Find the heads and settings in the graph of a saved model.

    Args:
        model: Operations of the graph.
        backbone: Variables that are known to be of the backbone.
    """
    reader = _Reader(model, backbone)
    reader.read_convolutions()
    reader.read_attention()
    reader.read_autoencoder()
    reader.read_pooling()
    reader.read_resizing()
    return reader.graph


class _Reader:
    """Collects into ``graph``; each step looks for one part of the network.

    The network may stand in the graph more than once (a loop's first round, its body): the copies
    must agree.
    """

    def __init__(self, model: SavedModel, backbone: Collection[str]) -> None:
        self.model = model
        self.backbone = backbone
        self.graph = NetworkGraph()
        self.shallow: list[Operation] = []  # what gives the shallow map, in each copy

    def read_convolutions(self) -> None:
        """Strides and padding of the backbone, the epsilon of every batch norm."""
        for operation in self.model.of_kind("Conv2D"):
            name = self.model.variable(operation, 1)
            if name is None or name not in self.backbone:
                continue
            found = Convolution(max(operation.strides), _padding(operation))
            dilations = operation.attribute("dilations").list.i
            if min(operation.strides) != found.stride or any(step != 1 for step in dilations):
                self._fault(f"uneven strides or dilations in {operation.name}")
            if self.graph.convolutions.setdefault(name, found) != found:
                self._fault(f"different strides or padding for {name!r}")
        for operation in self.model.of_kind(*_NORMS):
            variance = self.model.variable(operation, 4)
            if variance is None:
                continue
            training = "is_training" not in operation.attributes
            if training or operation.attribute("is_training").b:
                self._fault(f"statistics of the batch in {operation.name}")
            given = "epsilon" in operation.attributes
            # Absent attributes have TensorFlow's defaults.
            self._norm(variance, _shortest(operation.attribute("epsilon").f) if given else 1e-4)
        for operation in self.model.of_kind("Rsqrt"):  # a batch norm in its arithmetic
            for total in _origins(operation, *_SUMS):
                variance = self._any_variable(total)
                if variance is not None:
                    self._norm(variance, self._number(total, 1))
        for operation in self.model.of_kind("MaxPool"):
            if [*operation.attribute("ksize").list.i] == [1, 3, 3, 1]:
                self._agree("pool_padding", _padding(operation))

    def read_attention(self) -> None:
        """Both convolutions before the softplus, and the shallow map before them."""
        for softplus in self.model.of_kind("Softplus"):
            second = _back(softplus, (*_SUMS, *_RESHAPES), _PRODUCTS)
            first = second and _back(second, ("Relu", "Mul", *_NORMS, *_SUMS), _PRODUCTS)
            if second is None or first is None or not first.inputs[0]:
                continue
            if _back(second, ("Mul", *_NORMS, *_SUMS), ("Relu",)) is None:
                self._fault(f"no ReLU between the attention's convolutions in {second.name}")
            self._found(ATTENTION_2, second)
            self._found(ATTENTION_1, first)
            self.shallow += first.inputs[0]
            self._agree("local_stride", self._total_stride(first))

    def read_autoencoder(self) -> None:
        """The linear convolution on the shallow map, and the one on its output."""
        attention = self.graph.heads.get(ATTENTION_1, Layer()).weight
        known = {*self.backbone, attention}
        shallow = set(self.shallow)
        for encoder in self.model.of_kind(*_PRODUCTS):
            reads = encoder.inputs and shallow.intersection(encoder.inputs[0])
            name = self.model.variable(encoder, 1)
            if not reads or name is None or name in known or _is_activated(encoder):
                continue
            self._found(ENCODER, encoder)
            for decoder in _ahead(encoder, (*_SUMS, *_RESHAPES), _PRODUCTS):
                self._found(DECODER, decoder)

    def read_pooling(self) -> None:
        """The mean over the deep map, its power and floor, and the matrix behind it."""
        for mean in self.model.of_kind("Mean"):
            axes = constant(mean.inputs[1]) if len(mean.inputs) > 1 else None
            if axes is None or sorted(axes.tolist()) != [1, 2]:
                continue
            behind = ("Pow", *_RESHAPES)
            whitenings = [w for w in _ahead(mean, behind, _PRODUCTS) if self._is_free(w)]
            for whitening in whitenings:
                self._found(WHITENING, whitening)
            if whitenings:
                self._read_mean(mean)
                self._agree("deep_stride", self._total_stride(mean))

    def _read_mean(self, mean: Operation) -> None:
        power, floor = 1.0, 0.0
        origin = _first(mean, 0)
        if origin is not None and origin.op == "Pow":
            power = self._number(origin, 1)
            origin = _first(origin, 0)
        if origin is not None and origin.op == "Maximum":
            numbers = [constant(inputs) for inputs in origin.inputs]
            found = [_shortest(number[0]) for number in numbers if number is not None]
            floor = found[0] if found else 0.0
        elif origin is None or origin.op not in ("Relu", "MaxPool"):
            self._fault(f"another pooling than a power mean in {mean.name}")
        for root in (user for user in mean.users if user.op == "Pow"):
            if not abs(self._number(root, 1) * power - 1) < 1e-3:
                self._fault(f"another root than that of the power {power} in {root.name}")
        self._agree("gem_power", power)
        self._agree("gem_epsilon", floor)

    def read_resizing(self) -> None:
        """How the pyramid is resampled, and that pixels enter as (value - 128) / 128."""
        for resize in self.model.of_kind("ResizeBilinear"):
            half = resize.attribute("half_pixel_centers").b
            if resize.attribute("align_corners").b:
                self._fault(f"aligned corners in {resize.name}")
            self._agree("resize_rule", "half_pixel" if half else "legacy")
        for stem in self.model.of_kind("Conv2D"):
            if self.model.variable(stem, 1) in self.backbone and _reads_image(stem):
                values = _entering(stem)
                if values is None or np.abs(values - [-1, 1]).max() > 1e-6:
                    self._fault(f"pixels other than (value - 128) / 128 in {stem.name}")

    def _found(self, role: str, product: Operation) -> None:
        layer = self._layer(product)
        if self.graph.heads.setdefault(role, layer) != layer:
            self._fault(f"{role} both at {self.graph.heads[role].weight!r} and {layer.weight!r}")
        if product.op == "MatMul" and product.attribute("transpose_b").b:
            self._fault(f"a transposed matrix in {product.name}")

    def _layer(self, product: Operation) -> Layer:
        """The variables of a convolution or matrix and of what follows it."""
        layer = Layer(self.model.variable(product, 1))
        for bias in _ahead(product, _RESHAPES, _SUMS):
            layer.bias = layer.bias or self._any_variable(bias)
        for norm in _ahead(product, (*_RESHAPES, *_SUMS), _NORMS):
            parts = ("gamma", "beta", "moving_mean", "moving_variance")
            for place, part in enumerate(parts, start=1):
                name = self.model.variable(norm, place)
                if name is not None:
                    layer.norm.setdefault(part, name)
        for gain in _ahead(product, (*_RESHAPES, *_SUMS), ("Mul",)):
            layer.norm = layer.norm or self._norm_in_arithmetic(gain)
        return layer

    def _norm_in_arithmetic(self, scaled: Operation) -> dict[str, str]:
        """Parts of x * gain + (beta - mean * gain); gain is gamma / sqrt(variance + epsilon)."""
        gain = _origins(scaled, "Mul")
        roots = [root for factor in gain for root in _origins(factor, "Rsqrt")]
        shifts = [shift for user in scaled.users for shift in _origins(user, "Sub")]
        parts = {
            "gamma": gain,
            "beta": shifts,
            "moving_mean": [mean for shift in shifts for mean in _origins(shift, "Mul")],
            "moving_variance": [total for root in roots for total in _origins(root, *_SUMS)],
        }
        names = {part: [self._any_variable(o) for o in found] for part, found in parts.items()}
        return {part: found[0] for part, found in names.items() if found and found[0]}

    def _any_variable(self, operation: Operation) -> str | None:
        """The first variable among an operation's inputs."""
        names = (self.model.variable(operation, place) for place in range(len(operation.inputs)))
        return next((name for name in names if name is not None), None)

    def _norm(self, variance: str, epsilon: float) -> None:
        if self.graph.epsilons.setdefault(variance, epsilon) != epsilon:
            self._fault(f"different epsilons for {variance!r}")

    def _is_free(self, product: Operation) -> bool:
        name = self.model.variable(product, 1)
        return name is not None and name not in self.backbone

    def _total_stride(self, operation: Operation) -> int:
        """Pixels of the image per cell of what an operation reads."""
        stride = 1
        for origin in _path(operation):
            if origin.op in ("Conv2D", "MaxPool"):
                stride *= max(origin.strides)
            if origin.op.startswith("Resize"):
                break
        return stride

    def _number(self, operation: Operation, place: int) -> float:
        values = constant(operation.inputs[place]) if place < len(operation.inputs) else None
        if values is None or len(values) != 1:
            self._fault(f"no constant in {operation.name}")
            return 1.0
        return _shortest(values[0])

    def _agree(self, name: str, value: str | float) -> None:
        known = getattr(self.graph, name)
        if known is None:
            setattr(self.graph, name, value)
        elif known != value:
            self._fault(f"{name} both {known} and {value}")

    def _fault(self, text: str) -> None:
        if text not in self.graph.faults:
            self.graph.faults.append(text)


def _shortest(number: float) -> float:
    """The float32 number as people write it: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(number)))


def _first(operation: Operation, place: int) -> Operation | None:
    if place >= len(operation.inputs) or not operation.inputs[place]:
        return None
    return operation.inputs[place][0]


def _origins(operation: Operation, *kinds: str) -> list[Operation]:
    """The operations of some kinds among an operation's inputs."""
    return [o for origins in operation.inputs for o in origins if o.op in kinds]


def _path(operation: Operation) -> Iterator[Operation]:
    """What an operation reads, what that reads, and so on: always the first input."""
    origin = _first(operation, 0)
    for _ in range(_MAX_PATH):
        if origin is None:
            return
        yield origin
        origin = _first(origin, 0)


def _back(
    operation: Operation, through: Collection[str], kinds: Collection[str]
) -> Operation | None:
    """The nearest operation of some kinds before this one."""
    for origin in _path(operation):
        if origin.op in kinds:
            return origin
        if origin.op not in through:
            return None
    return None


def _ahead(
    operation: Operation, through: Collection[str], kinds: Collection[str]
) -> Iterator[Operation]:
    """The nearest operations of some kinds that read what this one gives, nearest first."""
    waiting, seen = [operation], {operation}
    for reached in waiting:
        for user in reached.users:
            if len(seen) > _MAX_AHEAD:
                return
            if user in seen or not user.inputs or reached not in user.inputs[0]:
                continue
            seen.add(user)
            if user.op in kinds:
                yield user
            if user.op in through:
                waiting.append(user)


def _is_activated(product: Operation) -> bool:
    return any(_ahead(product, _SUMS, ("Relu", "Relu6", "Elu")))


def _padding(operation: Operation) -> str:
    origin = _first(operation, 0)
    if origin is not None and origin.op in ("Pad", "PadV2") and operation.padding == "VALID":
        widths = constant(origin.inputs[1]) if len(origin.inputs) > 1 else None
        if widths is not None and len(widths) == 8 and not widths[[0, 1, 6, 7]].any():
            top, bottom, left, right = widths[2:6].tolist()
            return f"{top}/{bottom}" if (top, bottom) == (left, right) else "uneven"
        return "unknown"
    return operation.padding


def _reads_image(operation: Operation) -> bool:
    """Whether nothing but resizing, padding and arithmetic is between it and the image."""
    return not any(
        origin.op in ("Conv2D", "MaxPool", "Relu", *_NORMS) for origin in _path(operation)
    )


def _entering(stem: Operation) -> np.ndarray | None:
    """What the network sees of the pixel values 0 and 256, (2,); None if it cannot be told."""
    values = np.array([0.0, 256.0])
    for operation in reversed([*_path(stem)]):
        if operation.op not in ("Sub", "RealDiv", "Mul", "Add", "AddV2"):
            continue
        other = constant(operation.inputs[1]) if len(operation.inputs) > 1 else None
        if other is None or len(other) != 1:
            return None
        number = float(other[0])
        with np.errstate(all="ignore"):
            match operation.op:
                case "Sub":
                    values = values - number
                case "RealDiv":
                    values = values / number
                case "Mul":
                    values = values * number
                case _:
                    values = values + number
    return values
