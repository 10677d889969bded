"""Export a DELG on TF-slim's ResNet-v1 with random weights as a TensorFlow 1 SavedModel.

    python export_slim.py r50 --depth 50
    python export_slim.py narrow.tar.gz --depth 101 --width 0.1 --heads opaque --decoder

Feeds and fetches are those of the released models (SPEC 6.3).  The further options write what the
released models may hold or other exporters do: any of them must import to the same numbers.
"""

import argparse
import dataclasses
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf

from pyramid import OUTPUTS, Level, Maps, legacy_resize, normalise, run_level, select
from slim import EPSILON, HEADS, RandomParameters, Shape, network

v1 = tf.compat.v1


class Variables:
    """The parameters as variables of the default graph."""

    def __init__(self, values: dict[str, np.ndarray], options: argparse.Namespace) -> None:
        self._decomposed = options.batch_norm == "decomposed"
        # Slices of the last axis, as parameter servers hold them.
        partitioner = v1.fixed_size_partitioner(options.partitions, axis=-1)
        self._variables = {
            name: v1.get_variable(
                name,
                value.shape,
                initializer=v1.zeros_initializer(),
                use_resource=options.variables == "resource",
                partitioner=partitioner if 1 < options.partitions <= value.shape[-1] else None,
            )
            for name, value in values.items()
        }

    def _tensor(self, name: str) -> tf.Tensor:
        return tf.convert_to_tensor(self._variables[name])

    def conv(self, scope: str, shape: tuple[int, int, int, int]) -> tf.Tensor:
        """Kernel of a convolution."""
        kernel = self._tensor(f"{scope}/weights")
        assert kernel.shape == shape
        return kernel

    def bias(self, scope: str, size: int) -> tf.Tensor:
        """Bias of a convolution without batch norm."""
        return self._tensor(f"{scope}/biases")

    def batch_norm(self, scope: str, maps: tf.Tensor) -> tf.Tensor:
        """Normalise by the stored statistics, in one operation or in its arithmetic."""
        with tf.name_scope("BatchNorm"):
            gamma, beta, mean, variance = (
                self._tensor(f"{scope}/BatchNorm/{part}")
                for part in ("gamma", "beta", "moving_mean", "moving_variance")
            )
            if self._decomposed:
                return tf.nn.batch_normalization(maps, mean, variance, beta, gamma, EPSILON)
            return v1.nn.fused_batch_norm(
                maps, gamma, beta, mean, variance, EPSILON, is_training=False
            )[0]

    def dense(self, scope: str, pooled: tf.Tensor, size: int) -> tf.Tensor:
        """Whiten by a 1x1 convolution or a matrix product, as the weights are stored."""
        weights, bias = self._tensor(f"{scope}/weights"), self.bias(scope, size)
        if weights.shape.rank == 2:
            return tf.nn.bias_add(tf.matmul(pooled, weights), bias)
        maps = tf.nn.conv2d(pooled[:, tf.newaxis, tf.newaxis], weights, 1, "SAME")
        return tf.squeeze(tf.nn.bias_add(maps, bias), [1, 2])


def build(values: dict[str, np.ndarray], shape: Shape, options: argparse.Namespace) -> None:
    """Placeholders, pyramid and outputs in the default graph."""
    image = v1.placeholder(tf.uint8, [None, None, 3], "input_image")
    scales = v1.placeholder(tf.float32, [None], "input_scales")
    threshold = v1.placeholder(tf.float32, [], "input_abs_thres")
    max_features = v1.placeholder(tf.int32, [], "input_max_feature_num")
    global_scales = v1.placeholder(tf.int32, [None], "input_global_scales_ind")
    parameters = Variables(values, options)
    images = normalise(image)

    def run_network(resized: tf.Tensor) -> Maps:
        heads = HEADS[options.heads]
        return network(resized, shape, heads, parameters, options.scope, options.decoder)

    def run_scale(index: tf.Tensor | int) -> Level:
        return run_level(run_network, images, scales[index], threshold, legacy_resize)

    def step(index: tf.Tensor, *parts: tf.Tensor) -> tuple[tf.Tensor, ...]:
        level = run_scale(index)
        joined = (tf.concat(pair, 0) for pair in zip(parts, level, strict=True))
        return index + 1, *joined

    columns = ([4], [shape.local], [], [], [shape.descriptor])
    start = 0 if options.first_scale == "inside" else 1
    first = run_scale(0) if start else Level(*(tf.zeros([0, *c]) for c in columns))
    _, *parts = v1.while_loop(
        lambda index, *_: index < tf.shape(scales)[0],
        step,
        [tf.constant(start), *first],
        shape_invariants=[tf.TensorShape([]), *(tf.TensorShape([None, *c]) for c in columns)],
    )
    levels = Level(*parts)
    descriptors = tf.gather(levels.global_descriptors, global_scales)
    for name, output in zip(OUTPUTS, (*select(levels, max_features), descriptors), strict=True):
        tf.identity(output, name)


def assign(values: dict[str, np.ndarray], session: v1.Session) -> None:
    """Give the variables their values; a slice gets its part."""
    for variable in v1.global_variables():
        info = variable._get_save_slice_info()
        value = values[variable.op.name if info is None else info.full_name]
        if info is not None:
            ends = zip(info.var_offset, info.var_shape, strict=True)
            value = value[tuple(slice(start, start + size) for start, size in ends)]
        session.run(variable.initializer, {variable.initializer.inputs[1]: value})


def save(
    values: dict[str, np.ndarray], shape: Shape, options: argparse.Namespace, to: Path
) -> None:
    """Write the SavedModel folder."""
    if options.control_flow == "v1":
        v1.disable_control_flow_v2()
    builder = v1.saved_model.Builder(str(to))
    with tf.Graph().as_default() as graph, v1.Session() as session:
        build(values, shape, options)
        if options.extra:  # what training leaves in a checkpoint
            values = values | {
                f"{name}/ExponentialMovingAverage": value * np.float32(0.99)
                for name, value in values.items()
                if "moving_" not in name
            }
            values["global_step"] = np.array(500_000, np.int64)
            for name in set(values) - {v.op.name.split("/part_")[0] for v in v1.global_variables()}:
                v1.get_variable(name, values[name].shape, values[name].dtype)
        assign(values, session)
        if not options.frozen:
            builder.add_meta_graph_and_variables(session, ["serve"])
        else:
            frozen = v1.graph_util.convert_variables_to_constants(
                session, graph.as_graph_def(), list(OUTPUTS)
            )
    if options.frozen:
        with tf.Graph().as_default(), v1.Session() as session:
            tf.import_graph_def(frozen, name="")
            builder.add_meta_graph_and_variables(session, ["serve"])
    builder.save()


def draw_calibration_image(seed: int) -> np.ndarray:
    """Blocks and noise of several sizes, (1, 256, 320, 3), normalised as photos are."""
    random = np.random.default_rng(seed)
    layers = [
        np.kron(random.normal(0, 0.35, (256 // n, 320 // n, 3)), np.ones((n, n, 1)))
        for n in (1, 4, 16, 64)
    ]
    return np.clip(sum(layers), -1, 0.99)[np.newaxis].astype(np.float32)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder, or file that ends in .tar.gz")
    parser.add_argument("--depth", type=int, choices=(50, 101), default=50)
    parser.add_argument("--width", type=float, default=1.0, help="factor of the released widths")
    for part in ("attention", "local", "descriptor"):
        parser.add_argument(f"--{part}", type=int, help="width, whatever the factor")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--heads", choices=HEADS, default="delf", help="names of the heads")
    parser.add_argument("--scope", default="", help="goes before every name, ends in a slash")
    parser.add_argument("--decoder", action="store_true", help="of the autoencoder")
    parser.add_argument("--whitening", choices=("conv", "matmul"), default="conv")
    parser.add_argument("--batch-norm", choices=("fused", "decomposed"), default="fused")
    parser.add_argument("--variables", choices=("resource", "ref"), default="resource")
    parser.add_argument("--partitions", type=int, default=1, help="slices of each variable")
    parser.add_argument("--control-flow", choices=("v1", "v2"), default="v2")
    parser.add_argument(
        "--first-scale", choices=("outside", "inside"), default="outside", help="of the loop"
    )
    parser.add_argument("--extra", action="store_true", help="averages and step of the training")
    parser.add_argument("--frozen", action="store_true", help="constants instead of variables")
    return parser.parse_args()


def main() -> None:
    """Draw the weights, calibrate the batch norms and write the model."""
    options = parse()
    shape = Shape.scaled(options.depth, options.width)
    for part in ("attention", "local", "descriptor"):
        if getattr(options, part) is not None:
            shape = dataclasses.replace(shape, **{part: getattr(options, part)})
    heads = HEADS[options.heads]
    parameters = RandomParameters(heads, options.seed, 4 if options.whitening == "conv" else 2)
    image = tf.constant(draw_calibration_image(options.seed))
    network(image, shape, heads, parameters, options.scope, options.decoder)
    if options.out.suffixes[-2:] != [".tar", ".gz"]:
        save(parameters.values, shape, options, options.out)
        return
    with tempfile.TemporaryDirectory() as temporary:
        name = options.out.name.removesuffix(".tar.gz")
        save(parameters.values, shape, options, Path(temporary) / name)
        with tarfile.open(options.out, "w:gz") as archive:
            archive.add(Path(temporary) / name, name)


if __name__ == "__main__":
    main()
