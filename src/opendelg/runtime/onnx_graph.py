"""The network as ONNX graphs, written from the weights without torch.

Exporting a ResNet-18 from torch took 27 s and an import of 2 s; writing its graphs takes 0.2 s,
so nothing has to be cached.  Batch norms are folded into their convolutions in float64.
TensorFlow's SAME padding, which depends on the parity of a side, is ONNX's ``SAME_UPPER``.

There is one graph per part, so that the parts share one copy of the weights and a pyramid scale
pays only for the heads it needs:

    shallow: images (B, H, W, 3) float32 RGB, 0..255 -> shallow (B, C, H / 16, W / 16)
    global:  shallow -> global_descriptor (B, D), before normalisation
    local:   shallow -> attention (B, h, w), local_descriptors (B, h, w, D'), not normalised
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from opendelg.errors import WeightsError
from opendelg.runtime.architecture import Architecture

OPSET = 18  # the first where ReduceMean takes its axes as input
IR_VERSION = 8  # that of opset 18

Part = Literal["shallow", "global", "local"]
_INT_MAX = np.iinfo(np.int64).max


def build_graph(
    part: Part, architecture: Architecture, state: Mapping[str, np.ndarray]
) -> onnx.ModelProto:
    """One part of the network as an ONNX model with any batch and image size.

    Args:
        part: Which part (module docstring).
        architecture: Shape of the network.
        state: Tensors by torch name.

    Raises:
        WeightsError: If tensors are absent or of another shape; all are listed.
    """
    writer = GraphWriter(architecture, state)
    inputs: dict[str, list[str | int | None]]  # sizes by name; a str or None is any size
    match part:
        case "shallow":
            writer.write_shallow()
            inputs = {"images": ["B", "H", "W", 3]}
            outputs = {"shallow": 4}
        case "global":
            writer.write_global()
            inputs = {"shallow": ["B", "C", "h", "w"]}
            outputs = {"global_descriptor": 2}
        case "local":
            writer.write_local()
            inputs = {"shallow": ["B", "C", "h", "w"]}
            outputs = {"attention": 3, "local_descriptors": 4}
    if writer.faults:
        raise WeightsError(f"weights must fit their network, got {', '.join(writer.faults)}")
    graph = helper.make_graph(
        writer.nodes,
        part,
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [
            helper.make_tensor_value_info(n, TensorProto.FLOAT, [None] * r)
            for n, r in outputs.items()
        ],
        writer.constants,
    )
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="opendelg",
    )


class GraphWriter:
    """Collects the nodes and constants of one graph; a value's name is its handle.

    Shapes are checked on the way, since ONNX Runtime would fail only when it runs.
    """

    def __init__(self, architecture: Architecture, state: Mapping[str, np.ndarray]) -> None:
        self.architecture = architecture
        self.state = state
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.faults: list[str] = []  # of the weights, reported together
        shallow = (*state.get("attention.conv1.weight", np.zeros((1, 1))).shape, 0)[1]
        self._channels = {"images": 3, "shallow": shallow}  # by value

    def write_shallow(self) -> None:
        """Normalisation (SPEC 3.1), stem and the first three stages."""
        layout = self.architecture.layout
        images = self._node("Transpose", ["images"], perm=[0, 3, 1, 2])
        images = self._node("Sub", [images, self._constant(np.float32(128))])
        # The division by 128 is a power of two: it folds into the weights without rounding.
        maps = self._convolution(
            images,
            "backbone.conv1",
            "backbone.bn1",
            kernel=7,
            stride=2,
            same=layout.stem_padding == "same",
            input_scale=1 / 128,
        )
        paddings: dict[str, dict[str, Any]] = {
            "symmetric": {"pads": [1, 1, 1, 1]},
            "same": {"auto_pad": "SAME_UPPER"},
            "valid": {},
        }
        padding = paddings[layout.pool_padding]
        maps = self._node(
            "MaxPool", [self._relu(maps)], kernel_shape=[3, 3], strides=[2, 2], **padding
        )
        for stage in (1, 2, 3):
            maps = self._stage(maps, stage)
        self._node("Identity", [maps], ["shallow"])

    def write_global(self) -> None:
        """Stage 4, generalised-mean pooling and whitening."""
        maps = "shallow"
        if self.architecture.layout.stride == "last_conv3x3":
            maps = self._subsample(maps)
        maps = self._stage(maps, 4)
        power = self.architecture.gem_power
        floor = self._constant(np.float32(self.architecture.gem_epsilon))
        cubes = self._node(
            "Pow", [self._node("Max", [maps, floor]), self._constant(np.float32(power))]
        )
        axes = self._constant(np.array([2, 3], np.int64))
        means = self._node("ReduceMean", [cubes, axes], keepdims=0)
        pooled = self._node("Pow", [means, self._constant(np.float32(1 / power))])
        size = self.architecture.num_global_dimensions
        weight = self._constant(self._tensor("whitening.weight", (size, self._channels[maps])))
        bias = self._constant(self._tensor("whitening.bias", (size,)))
        self._node("Gemm", [pooled, weight, bias], ["global_descriptor"], transB=1)

    def write_local(self) -> None:
        """Attention and the encoder of the autoencoder."""
        cells = "shallow"
        if self.architecture.local_stride == 32:
            cells = self._subsample(cells)
        hidden = self._relu(self._convolution(cells, "attention.conv1", "attention.bn1"))
        scores = self._node("Softplus", [self._convolution(hidden, "attention.conv2", width=1)])
        self._node("Squeeze", [scores, self._constant(np.array([1], np.int64))], ["attention"])
        size = self.architecture.num_local_dimensions
        encoded = self._convolution(cells, "autoencoder.encoder", width=size)
        self._node("Transpose", [encoded], ["local_descriptors"], perm=[0, 2, 3, 1])

    def _stage(self, maps: str, stage: int) -> str:
        for unit in range(self.architecture.units[stage - 1]):
            prefix = f"backbone.layer{stage}.{unit}"
            stride = self.architecture.unit_stride(stage, unit)
            maps = self._unit(maps, prefix, stride)
        return maps

    def _unit(self, maps: str, prefix: str, stride: int) -> str:
        """One residual unit; the strides sit where the layout has them."""
        if self.architecture.block == "basic":
            strides, kernels = [stride, 1], [3, 3]
        elif self.architecture.layout.stride == "first_conv1x1":
            strides, kernels = [stride, 1, 1], [1, 3, 1]
        else:
            strides, kernels = [1, stride, 1], [1, 3, 1]
        out = maps
        for number, (step, kernel) in enumerate(zip(strides, kernels, strict=True), start=1):
            out = self._relu(out) if number > 1 else out
            names = f"{prefix}.conv{number}", f"{prefix}.bn{number}"
            out = self._convolution(out, *names, kernel=kernel, stride=step)
        if f"{prefix}.downsample.0.weight" in self.state:
            names = f"{prefix}.downsample.0", f"{prefix}.downsample.1"
            maps = self._convolution(maps, *names, stride=stride, width=self._channels[out])
        elif stride != 1:
            maps = self._subsample(maps)
        if self._channels[out] != self._channels[maps]:
            self.faults.append(f"no {prefix}.downsample.0.weight")
        return self._relu(self._node("Add", [out, maps]))

    def _convolution(
        self,
        maps: str,
        name: str,
        norm: str | None = None,
        *,
        kernel: int = 1,
        stride: int = 1,
        width: int | None = None,
        same: bool = False,
        input_scale: float = 1.0,
    ) -> str:
        """A convolution of ``width`` channels with the batch norm ``norm`` folded into it."""
        shape = (width, self._channels[maps], kernel, kernel)
        weight = self._tensor(f"{name}.weight", shape).astype(np.float64) * input_scale
        width = len(weight)
        bias = np.zeros(width)
        if f"{name}.bias" in self.state or norm is None:
            bias = self._tensor(f"{name}.bias", (width,)).astype(np.float64)
        if norm is not None:
            gain, shift, mean, variance = (
                self._tensor(f"{norm}.{part}", (width,)).astype(np.float64)
                for part in ("weight", "bias", "running_mean", "running_var")
            )
            gain = gain / np.sqrt(variance + self.architecture.layout.epsilon)
            weight = weight * gain.reshape(-1, 1, 1, 1)
            bias = (bias - mean) * gain + shift
        padding: dict[str, Any] = (
            {"auto_pad": "SAME_UPPER"} if same else {"pads": [kernel // 2] * 4}
        )
        inputs = [maps, self._constant(weight.astype(np.float32), f"{name}.weight")]
        inputs.append(self._constant(bias.astype(np.float32), f"{name}.bias"))
        convolved = self._node(
            "Conv", inputs, kernel_shape=[kernel] * 2, strides=[stride] * 2, **padding
        )
        self._channels[convolved] = width
        return convolved

    def _relu(self, maps: str) -> str:
        return self._node("Relu", [maps])

    def _subsample(self, maps: str) -> str:
        """Every second cell, the first one kept."""
        starts, ends, axes, steps = ([0, 0], [_INT_MAX] * 2, [2, 3], [2, 2])
        limits = [self._constant(np.array(v, np.int64)) for v in (starts, ends, axes, steps)]
        return self._node("Slice", [maps, *limits])

    def _tensor(self, name: str, shape: tuple[int | None, ...]) -> np.ndarray:
        """A tensor of the weights; None in ``shape`` fits any size.  Faults give zeros."""
        array = self.state.get(name)
        if array is None:
            self.faults.append(f"no {name}")
        elif len(array.shape) != len(shape) or any(
            size not in (None, actual) for size, actual in zip(shape, array.shape, strict=True)
        ):
            self.faults.append(f"{name} of shape {array.shape}")
        else:
            return array.astype(np.float32)
        return np.zeros([1 if size is None else size for size in shape], np.float32)

    def _constant(self, value: np.ndarray | np.float32, name: str = "") -> str:
        name = name or f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def _node(
        self, kind: str, inputs: Sequence[str], outputs: Sequence[str] = (), **attributes: Any
    ) -> str:
        outputs = outputs or [f"value{len(self.nodes)}"]
        self.nodes.append(helper.make_node(kind, inputs, outputs, **attributes))
        self._channels[outputs[0]] = self._channels.get(inputs[0], 0)
        return outputs[0]
