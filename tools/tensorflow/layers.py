"""Compare a model layer by layer: TensorFlow's network against this project's.

    python layers.py dump MODEL photo.png --scale 0.7071 --out layers.npz      (TensorFlow)
    python layers.py compare layers.npz WEIGHTS.safetensors                    (opendelg)

The two halves run in two environments, as the two libraries need different versions of NumPy.
The second prints the largest difference of every layer and names the first one that departs.
"""

import argparse
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np

TOLERANCE = 1e-4  # of the largest value of a layer


def dump(options: argparse.Namespace) -> None:
    """Write the layers of one image at one scale, as (h, w, C) or (C,)."""
    import tensorflow as tf

    from expected import read_png

    image = read_png(options.image)
    if options.model.is_dir():
        layers = saved_model_layers(options.model, image, options.scale)
    else:
        from keras_model import load_checkpoint
        from pyramid import half_pixel_resize, normalise

        size = np.round(np.float32(image.shape[:2]) * np.float32(options.scale)).astype(np.int32)
        images = half_pixel_resize(normalise(tf.constant(image)), size)
        network = load_checkpoint(options.model)
        layers = {"resized": images, **network.layers_of(images)}
        layers = {name: layer.numpy() for name, layer in layers.items()}
    layers = {
        name: layer.ravel() if name in ("pooled", "whitened") else layer[0]
        for name, layer in layers.items()
    }
    np.savez(options.out, image=image, scale=np.float32(options.scale), **layers)
    print(f"{len(layers)} layers of {options.image.name} at scale {options.scale}")


def saved_model_layers(path: Path, image: np.ndarray, scale: float) -> dict[str, np.ndarray]:
    """Run the first pass of the pyramid, which must lie outside of its loop."""
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")  # loading is "deprecated"
    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph, v1.Session() as session:
        v1.saved_model.load(session, ["serve"], str(path))
        tensors = find_layers(graph.get_operations())
        inputs = {
            "input_image:0": image,
            "input_scales:0": [scale],
            "input_abs_thres:0": 0.0,
            "input_max_feature_num:0": 1,
            "input_global_scales_ind:0": [0],
        }
        return session.run({name: op.outputs[0] for name, op in tensors.items()}, inputs)


def find_layers(operations: list[Any]) -> dict[str, Any]:
    """Operations whose outputs are the layers: units by name, heads by their place in the graph."""
    layers = {}
    names = {
        r"conv1/Relu": "root",
        r"pool1/MaxPool": "pool",
        r"(block\d)/(unit_\d+)/bottleneck_v1/Relu": r"\1/\2",
    }
    for op in operations:
        place = re.fullmatch(r"(?:.*/)?resnet_v1_\d+/(.*)", op.name)
        for pattern, name in names.items():
            if place and (match := re.fullmatch(pattern, place[1])):
                layers.setdefault(match.expand(name), op)  # the loop's come later
    if len(layers) < 2 + 16:  # units of a ResNet-50
        raise SystemExit(
            f"model must hold a ResNet outside of the loop over scales, got layers {list(layers)}"
        )
    resize = next(op for op in operations if op.type.startswith("Resize"))
    layers = {"resized": resize, **layers}
    shallow = layers[[name for name in layers if name.startswith("block3")][-1]]
    layers["attention"] = next(op for op in operations if op.type == "Softplus")
    # The deep map is cubed, averaged and its cube root taken: the second power is the pooled map.
    layers["pooled"] = [op for op in operations if op.type == "Pow"][1]
    layers["whitened"] = follow(layers["pooled"], "BiasAdd")
    [encoder] = [
        conv
        for conv in consumers(shallow)
        if conv.type == "Conv2D"
        and not re.search(r"resnet_v1_\d+/", conv.name)
        and layers["attention"] is not follow(follow(conv, "BiasAdd"), "Softplus")
    ]
    layers["encoded"] = follow(encoder, "BiasAdd")
    return layers


def consumers(op: Any) -> list[Any]:
    """Operations that read this operation's outputs."""
    return [consumer for output in op.outputs for consumer in output.consumers()]


def follow(op: Any, kind: str) -> Any:
    """The nearest operation of a type that depends on this one; None if there is none."""
    queue = [op] if op is not None else []
    for current in queue:
        for consumer in consumers(current):
            if consumer.type == kind:
                return consumer
            if consumer not in queue:
                queue.append(consumer)
    return None


def compare(options: argparse.Namespace) -> None:
    """Print the differences; exit 1 if a layer departs."""
    with np.load(options.layers) as file:
        expected = dict(file)
    actual = torch_layers(options.weights, expected.pop("image"), float(expected.pop("scale")))
    departed = []
    print(f"{'layer':20}{'shape':>16}{'largest':>12}{'difference':>12}{'relative':>12}")
    for name, layer in expected.items():
        ours = actual[name]
        if ours.shape != layer.shape and ours[::2, ::2].shape == layer.shape:
            # Slim's last unit of block3 is strided; here the deep half takes every second cell.
            ours = ours[::2, ::2]
        largest = float(np.abs(layer).max())
        difference = float(np.abs(ours - layer).max()) if ours.shape == layer.shape else np.inf
        relative = difference / max(largest, 1e-12)
        shape = "x".join(map(str, layer.shape))
        print(f"{name:20}{shape:>16}{largest:12.4g}{difference:12.2g}{relative:12.2g}")
        if not relative <= TOLERANCE:
            departed.append(name)
    if departed:
        sys.exit(f"{len(departed)} layers depart by more than {TOLERANCE:g}, first {departed[0]}")
    print(f"all {len(expected)} layers agree within {TOLERANCE:g} of their largest value")


def torch_layers(path: Path, image: np.ndarray, scale: float) -> dict[str, np.ndarray]:
    """The same layers of this project's network, (h, w, C) or (C,)."""
    import torch

    from opendelg.image import resize_bilinear, scale_size
    from opendelg.runtime.torch_runtime import load_network
    from opendelg.weights import read_weights

    network = load_network(read_weights(path))
    layers: dict[str, torch.Tensor] = {}

    def keep(module: torch.nn.Module, name: str) -> None:
        def store(_module: object, _inputs: object, output: torch.Tensor) -> None:
            layers[name] = output

        module.register_forward_hook(store)

    def keep_input(module: torch.nn.Module, name: str) -> None:
        module.register_forward_pre_hook(lambda _, inputs: layers.update({name: inputs[0]}))

    backbone = network.backbone
    keep(backbone.bn1, "root")
    keep_input(backbone.layer1, "pool")
    for block in (1, 2, 3, 4):
        for index, unit in enumerate(backbone.get_submodule(f"layer{block}"), start=1):
            keep(unit, f"block{block}/unit_{index}")
    keep_input(network.attention, "shallow")
    keep(network.attention, "attention")
    keep(network.autoencoder.encoder, "encoded")
    keep_input(network.whitening, "pooled")
    keep(network.whitening, "whitened")

    size = scale_size((image.shape[1], image.shape[0]), scale)
    pixels = (resize_bilinear(image, size, network.config.resize_rule) - 128) / 128
    layers["resized"] = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None]
    with torch.inference_mode():
        network(layers["resized"])
    layers["root"] = layers["root"].relu()
    layers["attention"] = layers["attention"][:, None]
    return {
        name: layer[0].movedim(0, -1).numpy()
        for name, layer in layers.items()  # channels last
    }


def main() -> None:
    """Run one half."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    halves = parser.add_subparsers(required=True)
    first = halves.add_parser("dump", help="needs TensorFlow")
    first.add_argument("model", type=Path, help="SavedModel folder or prefix of a checkpoint")
    first.add_argument("image", type=Path, help="PNG")
    first.add_argument("--scale", type=float, default=1.0)
    first.add_argument("--out", type=Path, default=Path("layers.npz"))
    first.set_defaults(run=dump)
    second = halves.add_parser("compare", help="needs opendelg")
    second.add_argument("layers", type=Path, help="what dump wrote")
    second.add_argument("weights", type=Path, help="what delg weights import wrote")
    second.set_defaults(run=compare)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
