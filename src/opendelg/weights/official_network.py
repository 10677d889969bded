"""An official network as settings and tensors of ours, with nothing left over.

Names tell the backbone, the graph the heads (`network_graph`), shapes what is still unknown; each
tensor is checked against the shape that the network gives it.  All that is wrong becomes one error.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from opendelg.errors import WeightsError
from opendelg.weights.network_graph import Convolution, NetworkGraph, read_network_graph
from opendelg.weights.network_layers import (
    ATTENTION_1,
    ATTENTION_2,
    DECODER,
    ENCODER,
    NORM_PARTS,
    WHITENING,
    Layer,
    has_norm,
    norm_of,
)
from opendelg.weights.official_names import (
    NamedLayers,
    Shape,
    guess_heads,
    is_training_only,
    read_names,
)
from opendelg.weights.saved_model import SavedModel

_EPSILON = {"slim": 1e-5, "keras": 1e-3}  # of the layouts in `opendelg.model.resnet`
_EXPANSION = 4
_NEEDED = (WHITENING, ATTENTION_1, ATTENTION_2, ENCODER)
_HEADS = (*_NEEDED, DECODER)


@dataclass(frozen=True)
class OfficialNetwork:
    """Settings of the network and where each of its layers is in the bundle."""

    model: dict[str, Any]  # fields of ModelConfig
    layers: dict[str, Layer]  # by torch name
    epsilons: dict[str, float]  # by the name of a batch norm's variance
    dropped: tuple[str, ...]  # variables that only training needs
    heads_found_by: dict[str, str]  # "name", "graph" or "shape"
    assumed: tuple[str, ...]  # settings that no graph tells

    def state(self, read: Callable[[str], np.ndarray]) -> dict[str, np.ndarray]:
        """Tensors by torch name, float32, read one by one."""
        state: dict[str, np.ndarray] = {}
        for name, layer in self.layers.items():
            state.update(self._tensors(name, layer, read))
        return state

    def _tensors(
        self, name: str, layer: Layer, read: Callable[[str], np.ndarray]
    ) -> Iterator[tuple[str, np.ndarray]]:
        assert layer.weight is not None
        weight = read(layer.weight).astype(np.float32)
        weight = weight.reshape((1, 1, *weight.shape) if weight.ndim == 2 else weight.shape)
        weight = weight.transpose(3, 2, 0, 1)  # height, width, in, out -> out, in, height, width
        zeros = np.zeros(len(weight))
        bias = zeros if layer.bias is None else read(layer.bias).astype(np.float64)
        epsilon = _EPSILON[self.model["layout"]]
        norm = dict.fromkeys(("gamma", "moving_variance"), zeros + 1)
        norm |= dict.fromkeys(("beta", "moving_mean"), zeros)
        norm |= {part: read(stored).astype(np.float64) for part, stored in layer.norm.items()}
        # The file may have another epsilon than the layout: only the sum counts.
        given = self.epsilons.get(layer.norm.get("moving_variance", ""), epsilon)
        norm["moving_variance"] = norm["moving_variance"] + (
            given - epsilon if layer.norm else -epsilon
        )
        if (norm["moving_variance"] + epsilon <= 0).any():
            lowest = norm["moving_variance"].min()
            raise WeightsError(f"variances must be positive, got {lowest:g} in {layer.names[-1]!r}")
        if has_norm(name):
            if self.model["layout"] == "slim":
                norm["moving_mean"] = norm["moving_mean"] - bias
            else:
                yield f"{name}.bias", bias.astype(np.float32)
            for part, torch_part in NORM_PARTS.items():
                yield f"{norm_of(name)}.{torch_part}", norm[part].astype(np.float32)
        else:
            if layer.norm:  # our layer has none: it is folded
                gain = norm["gamma"] / np.sqrt(norm["moving_variance"] + epsilon)
                weight = (weight * gain.reshape(-1, 1, 1, 1)).astype(np.float32)
                bias = (bias - norm["moving_mean"]) * gain + norm["beta"]
            yield f"{name}.bias", bias.astype(np.float32)
        yield f"{name}.weight", weight[:, :, 0, 0] if name == WHITENING else weight


def read_official_network(
    shapes: Mapping[str, Shape], saved: SavedModel | None, where: str
) -> OfficialNetwork:
    """Find out what network the variables are of.

    Args:
        shapes: Shapes of all variables by name.
        saved: The graph, if there is one.
        where: Name of the source, for error messages.

    Raises:
        WeightsError: If variables are absent, left over, ambiguous or of another shape, or the
            graph computes what our network cannot; all are listed.
    """
    named = read_names(shapes)
    if named is None:
        raise WeightsError(
            "variables must be of TF-slim's resnet_v1 or of the open training code, got "
            f"{sorted(shapes)[:5]} ... in {where}"
        )
    faults = [f"names: {fault}" for fault in named.faults]
    graph = NetworkGraph()
    if saved is not None:
        backbone = {
            n for key, layer in named.layers.items() if key not in _HEADS for n in layer.names
        }
        graph = read_network_graph(saved, backbone)
        faults += [f"graph: {fault}" for fault in graph.faults]
        # A head that only its name or shape tells may be computed in another way than ours.
        faults += [
            f"graph: no {role} where DELG has it" for role in _NEEDED if role not in graph.heads
        ]
    layers, found_by = _find_heads(named, graph, shapes, faults)
    model = _settings(named, layers, graph, shapes)
    faults += _graph_faults(named, graph, model)
    faults += _layer_faults(layers, shapes, model)
    used = {name for layer in layers.values() for name in layer.names}
    unused = sorted(set(shapes) - used)
    dropped = tuple(name for name in unused if is_training_only(name))
    faults += [f"left over: {name!r} {shapes[name]}" for name in unused if name not in dropped]
    if faults:
        raise WeightsError(
            f"variables must fit a DELG network, got {len(faults)} faults in {where}: "
            + "; ".join(faults)
        )
    told = {"local_stride", "gem_power", "gem_epsilon", "resize_rule"}
    assumed = tuple(sorted(name for name in told if getattr(graph, name) is None))
    return OfficialNetwork(model, layers, graph.epsilons, dropped, found_by, assumed)


def _find_heads(
    named: NamedLayers, graph: NetworkGraph, shapes: Mapping[str, Shape], faults: list[str]
) -> tuple[dict[str, Layer], dict[str, str]]:
    """All layers, and how the heads were found; the graph counts more than shapes."""
    layers = dict(named.layers)
    found_by = {role: "name" for role in _HEADS if role in layers}
    for role, head in graph.heads.items():
        if role not in layers:
            layers[role], found_by[role] = head, "graph"
        elif layers[role].weight != head.weight:
            faults.append(
                f"{role} is {layers[role].weight!r} by name, {head.weight!r} in the graph"
            )
    channels = tuple(_outputs(layers, shapes, f"backbone.layer{stage}.0.conv3") for stage in (3, 4))
    guessed, ambiguous = guess_heads(shapes, layers, (channels[0], channels[1]))
    layers |= guessed
    found_by |= dict.fromkeys(guessed, "shape")
    faults += ambiguous
    for role, how in found_by.items():
        needs_bias = role != ATTENTION_1 or not layers[role].norm
        # Where the graph shows a layer, what it does not show is not there.
        if how != "graph" and layers[role].bias is None and needs_bias:
            faults.append(f"no bias of {role}")
    return layers, found_by


def _settings(
    named: NamedLayers,
    layers: Mapping[str, Layer],
    graph: NetworkGraph,
    shapes: Mapping[str, Shape],
) -> dict[str, Any]:
    """The fields of ModelConfig; sizes are 0 where their layer is absent."""
    widths = [_outputs(layers, shapes, f"backbone.layer{stage}.0.conv2") for stage in (1, 2, 3, 4)]
    is_slim = named.layout == "slim"
    return {
        "layout": named.layout,
        "block": "bottleneck",
        "units": list(named.units),
        "widths": widths,
        "stem_width": _outputs(layers, shapes, "backbone.conv1"),
        "local_stride": graph.local_stride or 32,
        "num_global_dimensions": _outputs(layers, shapes, WHITENING),
        "num_local_dimensions": _outputs(layers, shapes, ENCODER),
        "attention_width": _outputs(layers, shapes, ATTENTION_1),
        "gem_power": 3.0 if graph.gem_power is None else graph.gem_power,
        "gem_epsilon": 1e-6 if graph.gem_epsilon is None else graph.gem_epsilon,
        "resize_rule": graph.resize_rule or ("legacy" if is_slim else "half_pixel"),
        "has_decoder": DECODER in layers,
    }


def _outputs(layers: Mapping[str, Layer], shapes: Mapping[str, Shape], name: str) -> int:
    weight = layers.get(name, Layer()).weight
    shape = shapes.get(weight, ()) if weight is not None else ()
    return shape[-1] if shape else 0


def _graph_faults(named: NamedLayers, graph: NetworkGraph, model: Mapping[str, Any]) -> list[str]:
    """Where the graph computes something else than our layout of the same name."""
    faults = []
    for name, layer in named.layers.items():
        found = graph.convolutions.get(layer.weight or "")
        if found is None:
            continue
        expected = _convolution(name, model)
        is_pointwise = not (name == "backbone.conv1" or name.endswith("conv2"))
        same = found.padding == expected.padding or (
            # Where nothing is left over, SAME pads one pixel on each side.
            found.stride == 1 and {found.padding, expected.padding} == {"SAME", "1/1"}
        )
        if found.stride != expected.stride or not (same or is_pointwise):
            faults.append(f"graph: {found} where {expected} is expected at {layer.weight!r}")
    pool = "SAME" if named.layout == "slim" else "VALID"
    if graph.pool_padding not in (None, pool):
        faults.append(f"graph: max-pool padded {graph.pool_padding} where {pool} is expected")
    if graph.local_stride not in (None, 16, 32):
        faults.append(f"graph: local features at stride {graph.local_stride}, not 16 or 32")
    if graph.deep_stride not in (None, 32):
        faults.append(f"graph: deep map at stride {graph.deep_stride}, not 32")
    return faults


def _convolution(name: str, model: Mapping[str, Any]) -> Convolution:
    """Stride and padding of a convolution of the backbone (SPEC 1.2, 1.3)."""
    is_slim = model["layout"] == "slim"
    if name == "backbone.conv1":
        return Convolution(2, "3/3" if is_slim else "SAME")
    _, stage_name, unit, conv = name.split(".", 3)
    stage = int(stage_name[-1])
    if is_slim:
        is_last = stage <= 3 and int(unit) == model["units"][stage - 1] - 1
        # A last unit that is also the first has its stride in the projection too.
        is_strided = is_last and conv in ("conv2", "downsample.0")
        return Convolution(2, "1/1") if is_strided else Convolution(1, "SAME")
    is_strided = conv in ("conv1", "downsample.0") and stage >= 2 and int(unit) == 0
    # With local features at stride 32 the shallow map itself is thinned out.
    halved_before = stage == 4 and model["local_stride"] == 32
    return Convolution(2 if is_strided and not halved_before else 1, "SAME")


def _layer_faults(
    layers: Mapping[str, Layer], shapes: Mapping[str, Shape], model: Mapping[str, Any]
) -> list[str]:
    """Layers that are absent, incomplete or of another shape than the network gives them."""
    faults = []
    expected = _expected_shapes(model)
    for name, expected_shape in expected.items():
        layer = layers.get(name, Layer())
        if layer.weight is None:
            if name != DECODER or model["has_decoder"]:
                faults.append(f"no weights of {name}")
            continue
        needs_norm = has_norm(name) and name != ATTENTION_1
        if layer.norm or needs_norm:
            faults += [f"no {part} of {name}" for part in NORM_PARTS if part not in layer.norm]
        if layer.bias is None and model["layout"] == "keras" and needs_norm:
            faults.append(f"no bias of {name}")
        fitting = {layer.weight: expected_shape}
        fitting |= dict.fromkeys(layer.names[1:], expected_shape[-1:])
        for variable, shape in fitting.items():
            actual = shapes.get(variable)
            if actual is None:
                faults.append(f"no {variable!r}, which the graph reads")
            elif actual != shape and not (name in _HEADS and (1, 1, *actual) == shape):
                faults.append(f"{variable!r} of shape {actual}, not {shape}")
    strange = sorted(set(layers) - set(expected))
    return faults + [f"no place for {name} at {layers[name].weight!r}" for name in strange]


def _expected_shapes(model: Mapping[str, Any]) -> dict[str, Shape]:
    """(height, width, in, out) of each layer."""
    channels = model["stem_width"]
    shapes: dict[str, Shape] = {"backbone.conv1": (7, 7, 3, channels)}
    outputs = []
    for stage, (units, width) in enumerate(zip(model["units"], model["widths"], strict=False), 1):
        for unit in range(units):
            prefix = f"backbone.layer{stage}.{unit}"
            shapes[f"{prefix}.conv1"] = (1, 1, channels, width)
            shapes[f"{prefix}.conv2"] = (3, 3, width, width)
            shapes[f"{prefix}.conv3"] = (1, 1, width, _EXPANSION * width)
            if unit == 0:
                shapes[f"{prefix}.downsample.0"] = (1, 1, channels, _EXPANSION * width)
            channels = _EXPANSION * width
        outputs.append(channels)
    shallow, deep = outputs[2:4] if len(outputs) == 4 else (0, 0)
    local, hidden = model["num_local_dimensions"], model["attention_width"]
    shapes[WHITENING] = (1, 1, deep, model["num_global_dimensions"])
    shapes[ATTENTION_1] = (1, 1, shallow, hidden)
    shapes[ATTENTION_2] = (1, 1, hidden, 1)
    shapes[ENCODER] = (1, 1, shallow, local)
    shapes[DECODER] = (1, 1, local, shallow)
    return shapes
