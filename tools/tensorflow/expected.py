"""Run TensorFlow on images and write what `delg weights check` compares with.

    python expected.py MODEL a.png b.png --out DIR [--features 300]

MODEL is a SavedModel folder with the signature of the released models, or the prefix of a Keras
checkpoint (`.../delf_weights`).  DIR gets expected_0.npz, expected_1.npz, ... with the outputs
(SPEC 6.3) and the inputs they belong to.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_model import load_checkpoint
from pyramid import GLOBAL_SCALES, OUTPUTS, SCALES, half_pixel_resize, normalise, run_level, select

INPUTS = (
    "input_image",
    "input_scales",
    "input_abs_thres",
    "input_max_feature_num",
    "input_global_scales_ind",
)

# Image, scales, threshold, largest number of features, positions of the global scales.
Run = Callable[..., dict[str, np.ndarray]]


def open_model(path: Path) -> Run:
    """A function from the inputs to the outputs by name."""
    if path.is_dir():
        tf.get_logger().setLevel("ERROR")  # one warning for each reference variable
        model = tf.saved_model.load(str(path))
        names = [f"{name}:0" for name in INPUTS], [f"{name}:0" for name in OUTPUTS]
        pruned = model.prune(*names)

        def run_saved(image: np.ndarray, *inputs: object) -> dict[str, np.ndarray]:
            types = (tf.float32, tf.float32, tf.int32, tf.int32)
            tensors = [tf.constant(v, t) for v, t in zip(inputs, types, strict=True)]
            outputs = pruned(tf.constant(image), *tensors)
            return {name: o.numpy() for name, o in zip(OUTPUTS, outputs, strict=True)}

        return run_saved

    network = load_checkpoint(path)

    def run_keras(
        image: np.ndarray, scales: list, threshold: float, most: int, global_scales: list
    ) -> dict[str, np.ndarray]:
        images = normalise(tf.constant(image))
        levels = [
            run_level(
                network.maps, images, tf.constant(s, tf.float32), threshold, half_pixel_resize
            )
            for s in scales
        ]
        joined = type(levels[0])(*(tf.concat(parts, 0) for parts in zip(*levels, strict=True)))
        descriptors = tf.gather(joined.global_descriptors, global_scales)
        outputs = (*select(joined, tf.constant(most)), descriptors)
        return {name: o.numpy() for name, o in zip(OUTPUTS, outputs, strict=True)}

    return run_keras


def read_png(path: Path) -> np.ndarray:
    """(h, w, 3) uint8; no other format, as decoders of JPEG differ."""
    if path.suffix != ".png":
        raise SystemExit(f"images must be PNG files, got {str(path)!r}")
    return tf.io.decode_png(tf.io.read_file(str(path)), channels=3).numpy()


def choose_threshold(scores: np.ndarray, count: int) -> float:
    """A threshold that about this many scores reach: in the widest gap near the place."""
    ordered = np.sort(scores.ravel())[::-1].astype(np.float64)
    if count >= len(ordered):
        return 0.0
    first = max(0, count - 10)
    gap = first + np.argmax(-np.diff(ordered[first : count + 10]))
    return float(ordered[gap : gap + 2].mean())


def main() -> None:
    """Write one file per image."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--features", type=int, default=300, help="that the threshold leaves")
    parser.add_argument("--threshold", type=float, help="instead of one chosen per image")
    parser.add_argument("--max-features", type=int, default=1000)
    options = parser.parse_args()

    run = open_model(options.model)
    options.out.mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(options.images):
        image, threshold = read_png(path), options.threshold
        if threshold is None:
            everything = run(image, SCALES, 0.0, 1_000_000, GLOBAL_SCALES)
            threshold = choose_threshold(everything["scores"], options.features)
        outputs = run(image, SCALES, threshold, options.max_features, GLOBAL_SCALES)
        np.savez(
            options.out / f"expected_{number}.npz",
            **outputs,
            image=path.name,
            image_scales=np.array(SCALES, np.float32),
            global_scales_ind=np.array(GLOBAL_SCALES),
            abs_thres=threshold,
            max_feature_num=options.max_features,
        )
        print(f"{path.name}: {len(outputs['scores'])} features at {threshold:.6g} or more")


if __name__ == "__main__":
    main()
