"""Save a DELG of the open training code with random weights, as its training does.

python export_keras.py DIR --width 0.1     writes DIR/delf_weights.{index,data-00000-of-00001}
"""

import argparse
from pathlib import Path

import tensorflow as tf

from export_slim import draw_calibration_image
from keras_model import Delg
from slim import Shape


def main() -> None:
    """Draw the weights, calibrate the batch norms and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder")
    parser.add_argument("--width", type=float, default=1.0, help="factor of the paper's widths")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    tf.keras.utils.set_random_seed(options.seed)
    shape = Shape.scaled(50, options.width)
    network = Delg(shape.stem, shape.widths, shape.attention, shape.local, shape.descriptor)
    image = tf.constant(draw_calibration_image(options.seed))
    network.layers_of(image)
    for variable in network.variables:  # Keras starts these from 0 and 1
        name = variable.name.rsplit("/")[-1]
        if name.startswith(("bias", "beta", "gamma", "scale_factor")):
            mean = 1.0 if name.startswith("gamma") else 45.25 if name.startswith("scale") else 0.0
            variable.assign(tf.random.normal(variable.shape, mean, 0.1))
    norms = [m for m in network.submodules if isinstance(m, tf.keras.layers.BatchNormalization)]
    for norm in norms:
        norm.momentum = 0.0  # the statistics of the next batch replace the old ones
    network.layers_of(image, training=True)
    network.save_weights(str(options.out / "delf_weights"), save_format="tf")


if __name__ == "__main__":
    main()
