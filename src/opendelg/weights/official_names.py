"""Which variable is which layer, by the names that DELG's two code bases give them.

TF-slim (released models) has scopes, Keras (open training code) attributes of objects.  The names
of slim's heads are made up by whoever exported a model: there, names only help where the graph
does not tell, and shapes decide.  Sources: SPEC 6.4, 6.5.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from opendelg.weights.network_layers import (
    ATTENTION_1,
    ATTENTION_2,
    DECODER,
    ENCODER,
    NORM_PARTS,
    WHITENING,
    Layer,
)

Shape = tuple[int, ...]

_KERAS_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
_NORM = "(?P<norm>gamma|beta|moving_mean|moving_variance)"
_SLIM_UNIT = re.compile(
    r"(?P<scope>.*/|)block(?P<stage>\d{1,3})/unit_(?P<unit>\d{1,4})/bottleneck_v1/"
    rf"(?P<conv>shortcut|conv[123])/(?P<part>weights|biases|BatchNorm/{_NORM})"
)
_SLIM_STEM = re.compile(rf"conv1/(?P<part>weights|biases|BatchNorm/{_NORM})")
_KERAS_UNIT = re.compile(
    r"(?P<scope>.*/|)backbone/l(?P<stage>\d{1,3})(?P<unit>[a-z]{1,2}\d{0,3})/"
    rf"(?:conv(?P<conv>_shortcut|2[abc])/(?P<part>kernel|bias)|bn(?P<bn>_shortcut|2[abc])/{_NORM})"
)
_KERAS_OTHERS = {
    "backbone/conv1": "backbone.conv1",
    "backbone/bn_conv1": "backbone.conv1",
    "backbone/embedding_layer": WHITENING,
    "attention/conv1": ATTENTION_1,
    "attention/bn_conv1": ATTENTION_1,
    "attention/conv2": ATTENTION_2,
    "autoencoder/conv1": ENCODER,
    "autoencoder/conv2": DECODER,
}
# What training needs beside the network: counters, classifiers, optimiser slots, averages.
_TRAINING_ONLY = re.compile(
    r"(.*/)?(global_step|save_counter|scale_factor|cosine_weights|num_classes)"
    r"|(.*/)?(logits|predictions|attn_classification|attention_classification|desc_classification)"
    r"(/.*)?"
    r"|(.*/)?(optimizer|keras_api|\.OPTIMIZER_SLOT)/.*"
    r"|.*/(Momentum|ExponentialMovingAverage|Adam|Adam_1|RMSProp|RMSProp_1|Adagrad|Ftrl|Ftrl_1)"
    r"|(beta1_power|beta2_power)"
)
_HEAD_NAMES = {
    ATTENTION_1: re.compile(r"atten?t?i?o?n?.*conv_?1|attn_conv1"),
    ATTENTION_2: re.compile(r"atten?t?i?o?n?.*conv_?2|attn_conv2|score"),
    DECODER: re.compile(r"decod|autoenc\w*/conv_?2|autoenc_conv2|reconstr|expan"),
    ENCODER: re.compile(r"encod|autoenc|reduc|compress"),
    WHITENING: re.compile(r"whiten|embed|global|fc|dense|pca"),
}


@dataclass
class NamedLayers:
    """Layers of the network by torch name, and what is wrong with the names."""

    layout: str  # of ModelConfig
    layers: dict[str, Layer] = field(default_factory=dict)
    units: tuple[int, ...] = ()  # per stage
    faults: list[str] = field(default_factory=list)

    def put(self, layer: str, part: str, name: str) -> None:
        """Note that ``name`` is the weight, the bias or a part of the batch norm of a layer."""
        entry = self.layers.setdefault(layer, Layer())
        if part in NORM_PARTS:
            taken, entry.norm[part] = entry.norm.get(part), name
        elif part in ("weights", "kernel"):
            taken, entry.weight = entry.weight, name
        else:
            taken, entry.bias = entry.bias, name
        if taken is not None:
            self.faults.append(f"{layer} both at {taken!r} and {name!r}")


def read_names(names: Collection[str]) -> NamedLayers | None:
    """The layers that names tell, or None if they are of neither code base.

    Slim's backbone is told, Keras' whole network.
    """
    for layout, pattern in (("slim", _SLIM_UNIT), ("keras", _KERAS_UNIT)):
        plain = {n: n.removesuffix(_KERAS_SUFFIX) for n in names if not is_training_only(n)}
        units = {n: found for n, text in plain.items() if (found := pattern.fullmatch(text))}
        if units:
            named = NamedLayers(layout)
            _read_units(named, units)
            scopes = sorted({found["scope"] for found in units.values()})
            if len(scopes) > 1:
                named.faults.append(f"several networks, {', '.join(map(repr, scopes))}")
            _read_others(named, plain, scopes[0])
            return named
    return None


def is_training_only(name: str) -> bool:
    """Whether a variable is of no use after training."""
    return _TRAINING_ONLY.fullmatch(name.removesuffix(_KERAS_SUFFIX)) is not None


def _read_units(named: NamedLayers, units: Mapping[str, re.Match[str]]) -> None:
    """The four stages: places are counted from the labels, which must have no gaps in slim."""
    first_stage = 1 if named.layout == "slim" else 2
    labels: dict[int, set[str]] = {}
    for found in units.values():
        labels.setdefault(int(found["stage"]) - first_stage, set()).add(found["unit"])
    if sorted(labels) != [0, 1, 2, 3]:
        stages = sorted(stage + first_stage for stage in labels)
        named.faults.append(f"stages {stages} where a ResNet has four")
        return
    places = {
        stage: {label: place for place, label in enumerate(sorted(found, key=_unit_order))}
        for stage, found in labels.items()
    }
    named.units = tuple(len(places[stage]) for stage in range(4))
    if named.layout == "slim":
        for stage, found_places in places.items():
            gaps = [label for label, place in found_places.items() if int(label) != place + 1]
            if gaps:
                named.faults.append(f"gaps before unit {gaps[0]} of block{stage + 1}")
    for name, found in units.items():
        stage = int(found["stage"]) - first_stage
        unit = f"backbone.layer{stage + 1}.{places[stage][found['unit']]}"
        parts = found.groupdict()
        conv = (parts["conv"] or parts.get("bn") or "").lstrip("_")
        number = {"2a": "1", "2b": "2", "2c": "3"}.get(conv, conv[-1:])
        layer = f"{unit}.downsample.0" if conv == "shortcut" else f"{unit}.conv{number}"
        named.put(layer, found["norm"] or found["part"], name)


def _unit_order(label: str) -> tuple[int, str, int]:
    """Order of 1, 2, ... 10 and of a, b, ... z, aa, as well as of a, b1, b2, ... b10."""
    letters = label.rstrip("0123456789")
    return len(letters), letters, int(label[len(letters) :] or 0)


def _read_others(named: NamedLayers, plain: Mapping[str, str], scope: str) -> None:
    """The stem; in Keras the heads too."""
    for name, text in plain.items():
        if not text.startswith(scope):
            continue
        rest = text[len(scope) :]
        if named.layout == "slim":
            stem = _SLIM_STEM.fullmatch(rest)
            if stem:
                named.put("backbone.conv1", stem["norm"] or stem["part"], name)
        else:
            path, _, part = rest.rpartition("/")
            if path in _KERAS_OTHERS and part in (*NORM_PARTS, "kernel", "bias"):
                named.put(_KERAS_OTHERS[path], part, name)


def guess_heads(
    shapes: Mapping[str, Shape], known: Mapping[str, Layer], channels: tuple[int, int]
) -> tuple[dict[str, Layer], list[str]]:
    """Heads that neither the graph nor Keras' names tell, by shapes and, among those, by names.

    Args:
        shapes: Shapes of the variables.
        known: Layers that were found otherwise; what they use is not used again.
        channels: Of the shallow and of the deep map.

    Returns:
        The heads, and for each one that could be several variables a text that lists them.
    """
    shallow, deep = channels
    used = {name for layer in known.values() for name in layer.names}
    free = {n: s for n, s in shapes.items() if n not in used and not is_training_only(n)}
    heads: dict[str, Layer] = {}
    faults = []

    def guess(role: str, inputs: int | None, outputs: int | None) -> int | None:
        """Channels that the layer gives, known or guessed."""
        if role in known:
            weight = known[role].weight
            shape = () if weight is None else shapes.get(weight, ())
            return shape[-1] if shape else None
        fitting = [
            name
            for name, shape in free.items()
            if _is_matrix(shape) and inputs in (None, shape[-2]) and outputs in (None, shape[-1])
        ]
        named = [name for name in fitting if _HEAD_NAMES[role].search(name.lower())]
        found = fitting if len(fitting) == 1 else named
        if len(found) == 1:
            heads[role] = _with_vectors(found[0], free)
            return free.pop(found[0])[-1]
        if fitting and role != DECODER:
            faults.append(f"{role} could be any of {fitting}")
        return None

    guess(ATTENTION_2, None, 1)
    second = heads.get(ATTENTION_2) or known.get(ATTENTION_2) or Layer()
    shape = shapes.get(second.weight or "", ())
    guess(ATTENTION_1, shallow, shape[-2] if _is_matrix(shape) else None)
    guess(WHITENING, deep, None)
    encoded = guess(ENCODER, shallow, None)
    if encoded is not None:
        guess(DECODER, encoded, shallow)
    return heads, faults


def _is_matrix(shape: Shape) -> bool:
    """Whether a shape is of a matrix or a 1x1 convolution."""
    return len(shape) in (2, 4) and all(size == 1 for size in shape[:-2])


def _with_vectors(weight: str, shapes: Mapping[str, Shape]) -> Layer:
    """A layer with the bias and batch norm in the scope of its weight."""
    layer = Layer(weight)
    scope = weight.removesuffix(_KERAS_SUFFIX).rpartition("/")[0] + "/"
    for name, shape in shapes.items():
        plain = name.removesuffix(_KERAS_SUFFIX)
        if not plain.startswith(scope) or shape != shapes[weight][-1:]:
            continue
        part = plain.rpartition("/")[2]
        if part in NORM_PARTS:
            layer.norm[part] = name
        elif layer.bias is None and "/" not in plain[len(scope) :]:
            layer.bias = name
    return layer
