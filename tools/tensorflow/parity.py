"""Export models from TensorFlow, import them, and compare: all of `make parity`.

    python parity.py --tensorflow .venv-tensorflow/bin/python --out parity

Runs in opendelg's own environment and calls TensorFlow's for the rest.  Weights are random, the
photos are rendered.  Exits 1 unless every model imports within the limits and agrees everywhere.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

from PIL import Image

from opendelg.datasets.town import make_place, render_view

TOOLS = Path(__file__).parent
SIZES = ((341, 256), (300, 223), (257, 512))  # (width, height) px, even and odd
LAYER_SCALE = "0.70710677"  # the pyramid scale whose layers are compared
MAX_SECONDS, MAX_MEGABYTES = 20.0, 2000.0  # of an import

MODELS = {
    "r50": "--decoder",
    "r101": "--depth 101 --heads short --seed 1",
    # Other names, other operations for the same arithmetic, and leftovers of the training.
    "other": "--depth 101 --width 0.11 --heads opaque --scope trained/ --whitening matmul "
    "--batch-norm decomposed --extra",
    # As TensorFlow 1 itself wrote it; only their place tells heads of the same shape apart.
    "old": "--width 0.06 --heads opaque --attention 8 --local 8 --decoder --variables ref "
    "--control-flow v1 --first-scale inside",
    "keras": "--width 0.13",
}


class Parity:
    """The steps for one model; each stops the run if its command fails."""

    def __init__(self, tensorflow: Path, out: Path) -> None:
        self.tensorflow = tensorflow
        self.out = out
        self.photos = [out / "photos" / f"{width}x{height}.png" for width, height in SIZES]

    def render_photos(self) -> None:
        """Write the photos as PNG: decoders of JPEG differ."""
        (self.out / "photos").mkdir(parents=True)
        for index, (path, size) in enumerate(zip(self.photos, SIZES, strict=True)):
            Image.fromarray(render_view(make_place(0, index), 0, size)).save(path)

    def export(self, name: str) -> tuple[Path, Path]:
        """Let TensorFlow write the model: what delg imports and what TensorFlow opens."""
        folder = self.out / name
        if name == "keras":
            self._tensorflow("export_keras.py", folder, *MODELS[name].split())
            return folder, folder / "delf_weights"
        archive = self.out / f"{name}.tar.gz"
        self._tensorflow("export_slim.py", archive, *MODELS[name].split())
        with tarfile.open(archive) as file:
            file.extractall(self.out, filter="data")
        return archive, folder

    def import_model(self, source: Path, name: str) -> Path:
        """Import without TensorFlow, within the limits."""
        weights, started = self.out / f"{name}.safetensors", time.monotonic()
        command = [sys.executable, "-m", "opendelg", "weights", "import", source, "--out", weights]
        process = subprocess.Popen(command)  # its peak counts from this process's size on
        _, status, usage = os.wait4(process.pid, 0)
        seconds, megabytes = time.monotonic() - started, usage.ru_maxrss / 1024
        print(f"imported in {seconds:.1f} s and {megabytes:.0f} MB")
        if status or seconds > MAX_SECONDS or megabytes > MAX_MEGABYTES:
            sys.exit(f"import must succeed in {MAX_SECONDS:g} s and {MAX_MEGABYTES:g} MB")
        return weights

    def compare(self, model: Path, weights: Path, name: str) -> None:
        """Compare outputs on all photos, and the layers of one where they can be reached."""
        expected = self.out / f"expected_{name}"
        self._tensorflow("expected.py", model, *self.photos, "--out", expected)
        files = sorted(expected.glob("*.npz"))
        delg = [sys.executable, "-m", "opendelg", "weights", "check", weights]
        self._run(*delg, "--against", *files, "--images", self.photos[0].parent)
        if "inside" in MODELS[name]:
            return
        layers = self.out / f"layers_{name}.npz"
        dump = ("dump", model, self.photos[1], "--scale", LAYER_SCALE, "--out", layers)
        self._tensorflow("layers.py", *dump)
        self._run(sys.executable, TOOLS / "layers.py", "compare", layers, weights)

    def _tensorflow(self, script: str, *arguments: object) -> None:
        self._run(self.tensorflow, TOOLS / script, *arguments)

    def _run(self, *command: object) -> None:
        environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
        subprocess.run([str(part) for part in command], check=True, env=environment)


def main() -> None:
    """Run all models, or those named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", action="append", choices=MODELS, help="default: all")
    parser.add_argument("--tensorflow", type=Path, required=True, help="python of its environment")
    parser.add_argument("--out", type=Path, default=Path("parity"), help="replaced; 1 GB")
    options = parser.parse_args()
    shutil.rmtree(options.out, ignore_errors=True)
    parity = Parity(options.tensorflow, options.out)
    parity.render_photos()
    for name in options.model or MODELS:
        print(f"\n{name}: {MODELS[name]}", flush=True)
        source, model = parity.export(name)
        weights = parity.import_model(source, name)
        try:
            parity.compare(model, weights, name)
        except subprocess.CalledProcessError as error:
            sys.exit(f"{name} must agree with TensorFlow, got status {error.returncode}")
    print("\nall agree with TensorFlow")


if __name__ == "__main__":
    main()
