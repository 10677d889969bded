"""Models as TensorFlow writes them, made from seeded networks of ours: bundles and graphs."""

import itertools
import string
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import torch

from opendelg.model import Delg, ModelConfig
from opendelg.model.resnet import LAYOUTS
from opendelg.weights.tensorflow_messages import message_class

SLIM = ModelConfig(
    units=(2, 1, 2, 1),
    widths=(3, 4, 5, 6),
    stem_width=7,
    num_global_dimensions=9,
    num_local_dimensions=8,
    attention_width=11,
)
KERAS = ModelConfig(
    layout="keras",
    units=(1, 2, 1, 2),
    widths=(3, 4, 5, 6),
    stem_width=7,
    num_global_dimensions=9,
    num_local_dimensions=8,
    attention_width=11,
    resize_rule="half_pixel",
)
# Torch name -> TensorFlow's scope; the released heads' names are unknown, so are these.
SLIM_HEADS = {
    "attention.conv1": "attention_block/attention/compute/conv1",
    "attention.conv2": "attention_block/attention/compute/conv2",
    "autoencoder.encoder": "reduction/encode",
    "autoencoder.decoder": "reduction/decode",
    "whitening": "global/fc",
}
_DTYPES = {"float32": 1, "float64": 2, "int32": 3, "int64": 9, "float16": 19}
_NORM = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}
_KERAS_HEADS = {
    "attention.conv1": "attention/conv1",
    "attention.bn1": "attention/bn_conv1",
    "attention.conv2": "attention/conv2",
    "autoencoder.encoder": "autoencoder/conv1",
    "autoencoder.decoder": "autoencoder/conv2",
    "whitening": "backbone/embedding_layer",
    "backbone.conv1": "backbone/conv1",
    "backbone.bn1": "backbone/bn_conv1",
}


def random_state(config: ModelConfig, seed: int = 3) -> dict[str, np.ndarray]:
    """Tensors of a network with random weights, biases and batch norms."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Delg(config)
        for name, tensor in network.state_dict().items():
            if tensor.ndim == 1:
                low = 0.5 if name.endswith("running_var") or ".bn" in name else -0.5
                tensor.copy_(torch.rand(tensor.shape) + low)
    state = network.state_dict()
    return {n: t.numpy().copy() for n, t in state.items() if not n.endswith("num_batches_tracked")}


def slim_variables(
    state: dict[str, np.ndarray], heads: dict[str, str] = SLIM_HEADS, scope: str = "resnet_v1_50/"
) -> dict[str, np.ndarray]:
    """The tensors by TF-slim's names, in TensorFlow's order of axes; the decoder is left out."""
    variables = {}
    for name, array in state.items():
        layer, _, part = name.rpartition(".")
        if layer == "autoencoder.decoder":
            continue
        owner = layer.replace("bn", "conv").replace("downsample.1", "downsample.0")
        path = heads[owner] if owner in heads else _slim_scope(owner, scope)
        if owner != layer:
            variables[f"{path}/BatchNorm/{_NORM[part]}"] = array
        else:
            variables[f"{path}/{'weights' if part == 'weight' else 'biases'}"] = _to_tensorflow(
                array
            )
    return variables


def _slim_scope(layer: str, scope: str) -> str:
    if layer == "backbone.conv1":
        return f"{scope}conv1"
    _, stage, unit, conv = layer.split(".", 3)
    conv = "shortcut" if conv == "downsample.0" else conv
    return f"{scope}block{stage[-1]}/unit_{int(unit) + 1}/bottleneck_v1/{conv}"


def keras_variables(state: dict[str, np.ndarray], prefix: str = "") -> dict[str, np.ndarray]:
    """The tensors by the object paths of the open training code, with what training adds."""
    variables = {"save_counter": np.array(1), "scale_factor": np.array(45.25, np.float32)}
    for name, array in state.items():
        layer, _, part = name.rpartition(".")
        if layer in _KERAS_HEADS:
            path = _KERAS_HEADS[layer]
        else:
            _, stage, unit, rest = layer.split(".", 3)
            labels = {"downsample.0": "conv_shortcut", "downsample.1": "bn_shortcut"}
            label = labels.get(rest) or f"{rest[:-1]}2{'abc'[int(rest[-1]) - 1]}"
            letter = string.ascii_lowercase[int(unit)]
            path = f"backbone/l{int(stage[-1]) + 1}{letter}/{label}"
        is_norm = path.rpartition("/")[2].startswith("bn")
        part = _NORM[part] if is_norm else {"weight": "kernel"}.get(part, part)
        variables[f"{path}/{part}"] = _to_tensorflow(array)
    return {f"{prefix}{n}/.ATTRIBUTES/VARIABLE_VALUE": array for n, array in variables.items()}


def _to_tensorflow(array: np.ndarray) -> np.ndarray:
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    return array.T if array.ndim == 2 else array


def object_graph(stored_names: dict[str, str]) -> bytes:
    """The tree of objects of variables, with a list of all of them beside their attributes."""
    graph = message_class("ObjectGraph")()
    root = graph.nodes.add()
    listed = root.children.add(local_name="variables", node_id=1)
    places = {"": 0, "variables/": listed.node_id}
    graph.nodes.add()
    for number, (name, stored) in enumerate(stored_names.items()):
        path = ""
        for part in name.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE").split("/"):
            parent, path = places[path], f"{path}{part}/"
            if path not in places:
                places[path] = len(graph.nodes)
                graph.nodes[parent].children.add(local_name=part, node_id=places[path])
                graph.nodes.add()
        node = graph.nodes[places[path]]
        node.attributes.add(name="VARIABLE_VALUE", checkpoint_key=stored)
        graph.nodes[1].children.add(local_name=str(number), node_id=places[path])
    return bytes(graph.SerializeToString())


def write_bundle(
    prefix: Path,
    tensors: dict[str, np.ndarray],
    *,
    num_shards: int = 1,
    change: Any = lambda name, entry: None,
    texts: dict[str, bytes] | None = None,
    block_entries: int = 7,
) -> None:
    """A bundle; ``change(name, entry)`` may damage the entry of a tensor."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    shards = [bytearray() for _ in range(num_shards)]
    entries = {b"": message_class("BundleHeader")(num_shards=num_shards).SerializeToString()}
    texts = texts or {}
    for place, name in enumerate(sorted([*tensors, *texts])):
        shard = place % num_shards
        entry = message_class("BundleEntry")(shard_id=shard, offset=len(shards[shard]))
        if name in texts:
            entry.dtype = 7
            data = varint(len(texts[name])) + bytes(4) + texts[name]
        else:
            array = np.asarray(tensors[name])
            data = array.tobytes()
            entry.dtype = _DTYPES[array.dtype.name]
            entry.crc32c = masked_checksum(data)
            for size in array.shape:
                entry.shape.dim.add(size=size)
        entry.size = len(data)
        shards[shard] += data
        change(name, entry)
        entries[name.encode()] = entry.SerializeToString()
    for shard, data in enumerate(shards):
        shard_path(prefix, shard, num_shards).write_bytes(data)
    index = prefix.with_name(prefix.name + ".index")
    index.write_bytes(table_file(sorted(entries.items()), block_entries))


def shard_path(prefix: Path, shard: int = 0, num_shards: int = 1) -> Path:
    return prefix.with_name(f"{prefix.name}.data-{shard:05d}-of-{num_shards:05d}")


def table_file(entries: list[tuple[bytes, bytes]], block_entries: int = 7) -> bytes:
    """A table with blocks of a few entries."""
    data, handles = bytearray(), []
    for start in range(0, len(entries), block_entries):
        part = entries[start : start + block_entries]
        handles.append((part[-1][0], append_block(data, table_block(part))))
    statistics = append_block(data, table_block([]))
    index = append_block(data, table_block(handles))
    footer = (statistics + index).ljust(40, b"\0")
    return bytes(data) + footer + (0xDB4775248B80FB57).to_bytes(8, "little")


def table_block(entries: list[tuple[bytes, bytes]], interval: int = 4) -> bytes:
    """Entries of a block, each name without the start it shares with the one before it."""
    block, restarts, last = bytearray(), [], b""
    for place, (key, value) in enumerate(entries):
        shared = 0
        if place % interval == 0:
            restarts.append(len(block))
        else:
            pairs = itertools.takewhile(
                lambda pair: pair[0] == pair[1], zip(key, last, strict=False)
            )
            shared = len([*pairs])
        block += varint(shared) + varint(len(key) - shared) + varint(len(value))
        block += key[shared:] + value
        last = key
    restarts = restarts or [0]
    numbers = [*restarts, len(restarts)]
    return bytes(block) + b"".join(number.to_bytes(4, "little") for number in numbers)


def append_block(data: bytearray, block: bytes) -> bytes:
    """Append a block with its checksum; returns its handle."""
    handle = varint(len(data)) + varint(len(block))
    stored = block + b"\0"
    data += stored + masked_checksum(stored).to_bytes(4, "little")
    return handle


def varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def masked_checksum(data: bytes) -> int:
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


class GraphBuilder:
    """Nodes of a graph; every method returns the name of what it adds."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []

    def add(self, op: str, name: str, inputs: list[str], **attributes: Any) -> str:
        node = message_class("Node")(op=op, name=name, inputs=inputs)
        for key, value in attributes.items():
            attribute = node.attributes[key]
            match value:
                case bool():
                    attribute.b = value
                case float():
                    attribute.f = value
                case str():
                    attribute.s = value.encode()
                case list():
                    attribute.list.i.extend(value)
                case np.ndarray():
                    attribute.tensor.dtype = _DTYPES[value.dtype.name]
                    attribute.tensor.content = value.tobytes()
        self.nodes.append(node)
        return name

    def constant(self, name: str, value: Any) -> str:
        array = np.asarray(value)
        kind = np.float32 if array.dtype.kind == "f" else np.int32
        return self.add("Const", name, [], value=array.astype(kind))

    def variable(self, name: str) -> str:
        if not any(node.name == name for node in self.nodes):
            self.add("VarHandleOp", name, [], shared_name=name)
        return self.add("ReadVariableOp", f"read{len(self.nodes)}", [name])

    def convolution(self, maps: str, scope: str, stride: int = 1, pad: int = 0) -> str:
        if pad:
            widths = np.array([[0, 0], [pad, pad], [pad, pad], [0, 0]])
            name = f"{scope}/Pad"
            maps = self.add("Pad", name, [maps, self.constant(f"{name}/paddings", widths)])
        return self.add(
            "Conv2D",
            f"{scope}/Conv2D",
            [maps, self.variable(f"{scope}/weights")],
            strides=[1, stride, stride, 1],
            padding="VALID" if pad else "SAME",
        )

    def norm(self, maps: str, scope: str, epsilon: float) -> str:
        parts = [self.variable(f"{scope}/BatchNorm/{part}") for part in _NORM.values()]
        return self.add(
            "FusedBatchNormV3",
            f"{scope}/BatchNorm",
            [maps, *parts],
            epsilon=epsilon,
            is_training=False,
        )

    def biased(self, maps: str, scope: str) -> str:
        convolved = self.convolution(maps, scope)
        return self.add(
            "BiasAdd", f"{scope}/BiasAdd", [convolved, self.variable(f"{scope}/biases")]
        )

    def message(self) -> bytes:
        graph = message_class("Graph")(node=self.nodes)
        meta = message_class("MetaGraph")(graph=graph)
        meta.info.tags.append("serve")
        return message_class("SavedModel")(meta_graphs=[meta]).SerializeToString()


def slim_graph(
    config: ModelConfig,
    heads: dict[str, str] = SLIM_HEADS,
    scope: str = "resnet_v1_50/",
    *,
    epsilon: float = LAYOUTS["slim"].epsilon,
    half_pixel: bool = False,
    mean: float = 128.0,
    power: float = 3.0,
    pool: str = "SAME",
    last_stride: int = 2,
) -> GraphBuilder:
    """The network on one pyramid level, as slim's exporters build it."""
    graph = GraphBuilder()
    image = graph.add("Cast", "Cast", [graph.add("Placeholder", "input_image", [])])
    image = graph.add("Sub", "sub", [image, graph.constant("sub/y", mean)])
    image = graph.add("RealDiv", "truediv", [image, graph.constant("truediv/y", 128.0)])
    size = graph.add("Placeholder", "size", [])
    maps = graph.add("ResizeBilinear", "resize", [image, size], half_pixel_centers=half_pixel)
    stem = f"{scope}conv1"
    maps = graph.norm(graph.convolution(maps, stem, 2, pad=3), stem, epsilon)
    maps = graph.add("Relu", f"{stem}/Relu", [maps])
    maps = graph.add(
        "MaxPool", f"{scope}pool1", [maps], ksize=[1, 3, 3, 1], strides=[1, 2, 2, 1], padding=pool
    )
    shallow = ""
    for stage, units in enumerate(config.units, start=1):
        for unit in range(1, units + 1):
            stride = 2 if unit == units and stage < 4 else 1
            stride = last_stride if unit == units and stage == 3 else stride
            path = f"{scope}block{stage}/unit_{unit}/bottleneck_v1"
            maps = _slim_unit(graph, maps, path, stride, unit == 1, epsilon)
        shallow = maps if stage == 3 else shallow
    one = heads["attention.conv1"]
    hidden = graph.norm(graph.convolution(shallow, one), one, epsilon)
    hidden = graph.add("Relu", f"{one}/Relu", [hidden])
    score = graph.add("Softplus", "Softplus", [graph.biased(hidden, heads["attention.conv2"])])
    graph.add("Identity", "scores", [score])
    graph.add("Identity", "features", [graph.biased(shallow, heads["autoencoder.encoder"])])
    floor = graph.add("Maximum", "Maximum", [maps, graph.constant("Maximum/y", 1e-6)])
    cubes = graph.add("Pow", "Pow", [floor, graph.constant("Pow/y", power)])
    pooled = graph.add("Mean", "Mean", [cubes, graph.constant("Mean/axes", [1, 2])])
    root = graph.add("Pow", "Pow_1", [pooled, graph.constant("Pow_1/y", 1 / power)])
    graph.add("Squeeze", "global_descriptors", [graph.biased(root, heads["whitening"])])
    return graph


def _slim_unit(
    graph: GraphBuilder, maps: str, path: str, stride: int, is_first: bool, epsilon: float
) -> str:
    if is_first:
        shortcut = graph.convolution(maps, f"{path}/shortcut", stride)
        shortcut = graph.norm(shortcut, f"{path}/shortcut", epsilon)
    else:
        steps = [1, stride, stride, 1]
        ones = [1, 1, 1, 1]
        name = f"{path}/shortcut/MaxPool"
        shortcut = graph.add("MaxPool", name, [maps], ksize=ones, strides=steps, padding="SAME")
    for number in (1, 2, 3):
        conv = f"{path}/conv{number}"
        step = stride if number == 2 else 1
        maps = graph.convolution(maps, conv, step, pad=int(step > 1))
        maps = graph.norm(maps, conv, epsilon)
        maps = graph.add("Relu", f"{conv}/Relu", [maps]) if number < 3 else maps
    return graph.add("Relu", f"{path}/Relu", [graph.add("AddV2", f"{path}/add", [shortcut, maps])])


def write_slim_model(
    folder: Path,
    config: ModelConfig = SLIM,
    heads: dict[str, str] = SLIM_HEADS,
    extra: dict[str, np.ndarray] | None = None,
    **graph: Any,
) -> dict[str, np.ndarray]:
    """A saved model folder; returns the torch tensors that are in it."""
    state = random_state(config)
    write_bundle(folder / "variables" / "variables", slim_variables(state, heads) | (extra or {}))
    (folder / "saved_model.pb").write_bytes(slim_graph(config, heads, **graph).message())
    return {name: array for name, array in state.items() if ".decoder" not in name}
