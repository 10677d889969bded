"""Inference on the CPU: ONNX Runtime against eager torch, and what each profile costs.

    python benchmarks/inference.py [--model NAME|FILE] [--profile balanced] [--threads 2] [--json]

Each computes the same pyramid of one photo in one profile, in float32, in turn, in one
run; the ratio of their times is the result.  Torch runs in its default memory layout and in
channels_last, which it prefers.  All is measured twice, because by default glibc returns large
tensors of torch to the system and clears their pages again: once as installed, once with glibc
told to keep what is freed.  Times do not depend on the values of the weights: without ``--model``
and without packaged weights the network is a seeded one of the same shape.
"""

import argparse
import ctypes
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from opendelg.collection.packing import pack_local
from opendelg.extraction import PROFILES, ExtractionConfig, Extractor, extract_stream, profile
from opendelg.image import DecodedImage, read_image, resize_bilinear, scale_size
from opendelg.model import RESNET18, Delg
from opendelg.runtime import Runtime
from opendelg.runtime.onnx_runtime import OnnxRuntime
from opendelg.runtime.torch_runtime import TorchRuntime, load_network
from opendelg.weights import DEFAULT_MODEL, Weights, load_weights, read_weights, write_weights
from opendelg.weights.published import PUBLISHED

PHOTO_SIZE = (1600, 1200)  # px, of the drawn photos
SMALL_SIZE = (341, 256)  # px, as in many research datasets

Pass = tuple[np.ndarray, bool, bool]  # images (1, h, w, 3), want_global, want_local


def main() -> None:
    """Measure, then print one line per result or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="name or file; default: the packaged weights if present")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--profile", choices=PROFILES, default="balanced", help="of the photo that is compared"
    )
    parser.add_argument("--rounds", type=int, default=5, help="turns of each runtime")
    parser.add_argument("--photos", type=int, default=12, help="files of the stream")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        weights = choose_weights(options.model, Path(folder))
        results: dict[str, float | int | str] = {
            "weights": weights.name,
            "threads": options.threads,
            "cold_start_s": cold_start(weights),
        }
        fast = OnnxRuntime(weights, options.threads)
        config = profile(options.profile)
        results |= compare_runtimes(weights, fast, options.threads, options.rounds, config)
        results |= compare_stream(weights, fast, Path(folder), options.photos)
        results |= measure_profiles(weights, fast)
    if options.json:
        print(json.dumps(results))
    else:
        for name, value in results.items():
            print(f"{name:32s} {value:.4g}" if isinstance(value, float) else f"{name:32s} {value}")


def choose_weights(model: str | None, folder: Path) -> Weights:
    """The weights asked for, the packaged ones, or seeded ones of their shape."""
    if model is not None or PUBLISHED[DEFAULT_MODEL].file.is_file():
        return load_weights(model or DEFAULT_MODEL)
    torch.manual_seed(0)
    config = replace(RESNET18, num_global_dimensions=256)
    state = {name: tensor.numpy() for name, tensor in Delg(config).state_dict().items()}
    path = folder / "seeded.safetensors"
    write_weights(path, "seeded ResNet-18", state, config, score_threshold=0.0)
    return read_weights(path)


def cold_start(weights: Weights) -> float:
    """Seconds of a new process that imports, loads and extracts from one small photo."""
    code = (
        "import sys, numpy as np\n"
        "from opendelg.extraction import Extractor, profile\n"
        "from opendelg.image import DecodedImage\n"
        "from opendelg.runtime import choose_runtime\n"
        "from opendelg.weights import load_weights\n"
        f"weights = load_weights({str(weights.path)!r})\n"
        "extractor = Extractor(weights, profile('balanced'), choose_runtime(weights, 'cpu'))\n"
        "extractor.extract(DecodedImage(np.zeros((256, 341, 3), np.uint8), (341, 256)))\n"
        "assert 'torch' not in sys.modules\n"
    )
    return median_seconds(lambda: subprocess.run([sys.executable, "-c", code], check=True), 3)


def compare_runtimes(
    weights: Weights, fast: Runtime, threads: int, rounds: int, config: ExtractionConfig
) -> dict[str, float]:
    """Times of one photo's passes on both runtimes, and the rate of a large matrix product."""
    passes = passes_of(drawn_photo(PHOTO_SIZE, 0), config)
    channels_last = TorchRuntime(weights, "cpu", threads)
    network = load_network(weights)
    with FlopCounterMode(display=False) as counter:
        run_eagerly(network, passes)
    gflop = counter.get_total_flops() / 1e9
    results: dict[str, float] = {"gflop_per_photo": gflop}
    for suffix in ("", "_memory_kept"):
        if suffix and not keep_freed_memory():
            break
        onnx_s, torch_s, channels_last_s, product_s = in_turn(
            [
                lambda: run_passes(fast, passes),
                lambda: run_eagerly(network, passes),
                lambda: run_passes(channels_last, passes),
                matrix_product,
            ],
            rounds,
        )
        results |= {
            f"onnx_s{suffix}": onnx_s,
            f"torch_s{suffix}": torch_s,
            f"torch_channels_last_s{suffix}": channels_last_s,
            f"ratio{suffix}": torch_s / onnx_s,
            f"ratio_channels_last{suffix}": channels_last_s / onnx_s,
            f"onnx_gflop_per_s{suffix}": gflop / onnx_s,
            f"matrix_product_gflop_per_s{suffix}": 2 * 2048**3 / 1e9 / product_s,
        }
    return results


def compare_stream(
    weights: Weights, runtime: Runtime, folder: Path, num_photos: int
) -> dict[str, float]:
    """Throughput from JPEG files divided by that from images in memory, balanced profile."""
    extractor = Extractor(weights, profile("balanced"), runtime)
    paths = [folder / f"{number}.jpg" for number in range(num_photos)]
    for number, path in enumerate(paths):
        Image.fromarray(drawn_photo(PHOTO_SIZE, number).pixels).save(path, quality=90)
    size = extractor.config.draft_size
    prepared = [extractor.prepare(read_image(path, draft_size=size)) for path in paths]
    stream_s, compute_s = in_turn(
        [
            lambda: list(extract_stream(paths, extractor)),
            lambda: [extractor.extract_prepared([image]) for image in prepared],
        ],
        rounds=3,
    )
    return {
        "stream_photos_per_s": num_photos / stream_s,
        "stream_share_of_compute": compute_s / stream_s,
    }


def measure_profiles(weights: Weights, runtime: Runtime) -> dict[str, float]:
    """Seconds, keypoints and stored bytes of one decoded photo in each profile."""
    results: dict[str, float] = {}
    for name, config in PROFILES.items():
        extractor = Extractor(weights, replace(config, score_threshold=0.0), runtime)
        for label, size in (("", PHOTO_SIZE), ("_small", SMALL_SIZE)):
            photo = drawn_photo(size, 0)
            local = extractor.extract(photo).local  # the first pass of a size is slower
            results[f"{name}{label}_s"] = median_seconds(lambda: extractor.extract(photo), 3)  # noqa: B023
            results[f"{name}{label}_keypoints"] = len(local)
        results[f"{name}_bytes"] = len(pack_local(local, config.precision))
    return results


def passes_of(photo: DecodedImage, config: ExtractionConfig) -> list[Pass]:
    """The network's inputs for one photo."""
    height, width = photo.pixels.shape[:2]
    start = config.max_size / max(width, height)
    pixels = resize_bilinear(photo.pixels, scale_size((width, height), start), "half_pixel")
    size = (pixels.shape[1], pixels.shape[0])
    return [
        (
            resize_bilinear(pixels, scale_size(size, scale), "half_pixel")[None],
            scale in config.global_scales,
            True,
        )
        for scale in config.scales
    ]


def run_passes(runtime: Runtime, passes: Sequence[Pass]) -> None:
    """Every level of one photo."""
    for images, want_global, want_local in passes:
        runtime.run(images, want_global, want_local)


@torch.inference_mode()
def run_eagerly(network: Delg, passes: Sequence[Pass]) -> None:
    """Every level of one photo, the network called as its author would."""
    for images, want_global, want_local in passes:
        inputs = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
        shallow = network.shallow((inputs - 128) / 128)
        if want_global:
            network.global_descriptor(shallow)
        if want_local:
            network.local_features(shallow)


def matrix_product() -> None:
    """What the machine can do: a product of two 2048 x 2048 matrices by torch."""
    torch.mm(*torch.ones(2, 2048, 2048))


def in_turn(jobs: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """Median seconds of each job; the jobs take turns, after one turn that is not counted."""
    seconds: list[list[float]] = [[] for _ in jobs]
    for _ in range(rounds + 1):
        for job, taken in zip(jobs, seconds, strict=True):
            started = time.perf_counter()
            job()
            taken.append(time.perf_counter() - started)
    return [statistics.median(taken[1:]) for taken in seconds]


def median_seconds(job: Callable[[], object], rounds: int) -> float:
    """Median seconds of one job."""
    return in_turn([job], rounds)[0]


def keep_freed_memory() -> bool:
    """Tell glibc to keep what is freed; False on other C libraries."""
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # malloc.h
    libc.mallopt(mmap_threshold, 1 << 30)
    libc.mallopt(trim_threshold, (1 << 31) - 1)
    libc.mallopt(top_pad, 1 << 28)
    return True


def drawn_photo(size: tuple[int, int], seed: int) -> DecodedImage:
    """Noise at all scales: compresses about as a photo does."""
    random = np.random.default_rng(seed)
    pixels = np.zeros((size[1], size[0], 3), np.float32)
    for octave in range(8):
        grid = random.normal(0, 40 / 1.6**octave, (3 * 2**octave, 4 * 2**octave, 3))
        pixels += resize_bilinear(grid.astype(np.float32), size, "half_pixel")
    return DecodedImage(np.clip(pixels + 128, 0, 255).astype(np.uint8), size)


if __name__ == "__main__":
    main()
