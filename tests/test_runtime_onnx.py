import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from opendelg.errors import OpenDelgError, WeightsError
from opendelg.model import ModelConfig
from opendelg.model.resnet import LAYOUTS, _unit_stride
from opendelg.runtime import Architecture, Runtime, choose_runtime
from opendelg.runtime import architecture as torch_free
from opendelg.runtime.onnx_graph import build_graph
from opendelg.runtime.onnx_runtime import OnnxRuntime
from opendelg.runtime.torch_runtime import TorchRuntime
from opendelg.settings import settings_as_dict
from opendelg.weights import Weights

MakeWeights = Callable[[ModelConfig], Weights]
NARROW = ModelConfig(
    units=(2, 1, 2, 1),
    widths=(4, 4, 4, 4),
    stem_width=4,
    num_global_dimensions=6,
    num_local_dimensions=5,
    attention_width=4,
)
BASIC = replace(NARROW, layout="torchvision", block="basic", local_stride=16)
CONFIGS = [
    pytest.param(NARROW, id="slim"),
    pytest.param(replace(NARROW, layout="keras"), id="keras"),
    pytest.param(replace(NARROW, layout="keras_imagenet"), id="keras_imagenet"),
    pytest.param(replace(NARROW, layout="torchvision"), id="torchvision"),
    pytest.param(BASIC, id="torchvision-basic"),
    pytest.param(replace(NARROW, local_stride=16, gem_power=2.5), id="slim-16"),
]
# Heights and widths of every parity at every stage, and shapes far from square.
SIZES = [(32, 32), (33, 47), (63, 64), (65, 34), (5, 6), (2000, 16), (16, 2000), (97, 131)]


def random_images(batch: int, height: int, width: int) -> np.ndarray:
    random = np.random.default_rng(height * width)
    return random.integers(0, 256, (batch, height, width, 3)).astype(np.float32)


def cosine_distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    return 1 - np.sum(first * second, axis=-1, dtype=np.float64) / lengths


@pytest.mark.parametrize("config", CONFIGS)
def test_onnx_and_torch_agree_at_every_parity(
    config: ModelConfig, make_weights: MakeWeights
) -> None:
    weights = make_weights(config)
    onnx, torch = OnnxRuntime(weights, 1), TorchRuntime(weights, "cpu")
    for size in SIZES:
        images = random_images(2, *size)
        actual, expected = onnx.run(images, True, True), torch.run(images, True, True)
        np.testing.assert_allclose(actual.attention, expected.attention, rtol=1e-4, err_msg=size)
        for name in ("global_descriptors", "local_descriptors"):
            first, second = getattr(actual, name), getattr(expected, name)
            assert first.shape == second.shape
            assert cosine_distances(first, second).max() < 1e-4


@pytest.mark.parametrize("config", CONFIGS)
def test_cells_cover_the_image_at_the_local_stride(
    config: ModelConfig, make_weights: MakeWeights
) -> None:
    raw = OnnxRuntime(make_weights(config), 1).run(random_images(1, 96, 160), False, True)
    stride = config.local_stride
    assert raw.attention.shape == (1, 96 // stride, 160 // stride)
    assert raw.local_descriptors.shape == (1, 96 // stride, 160 // stride, 5)


def test_what_is_not_wanted_is_none_and_the_rest_unchanged(tiny_runtime: Runtime) -> None:
    images = random_images(1, 48, 64)
    both = tiny_runtime.run(images, True, True)
    only_global = tiny_runtime.run(images, True, False)
    only_local = tiny_runtime.run(images, False, True)
    assert only_global.attention is None
    assert only_global.local_descriptors is None
    assert only_local.global_descriptors is None
    assert np.array_equal(only_global.global_descriptors, both.global_descriptors)
    assert np.array_equal(only_local.attention, both.attention)
    assert np.array_equal(only_local.local_descriptors, both.local_descriptors)


def test_a_pass_repeats_bit_for_bit(tiny_weights: Weights) -> None:
    images = random_images(1, 70, 90)
    runs = [OnnxRuntime(tiny_weights, 2).run(images, True, True) for _ in range(2)]
    assert np.array_equal(runs[0].local_descriptors, runs[1].local_descriptors)
    assert np.array_equal(runs[0].global_descriptors, runs[1].global_descriptors)


def test_images_of_a_batch_do_not_mix(tiny_runtime: Runtime) -> None:
    images = random_images(3, 40, 56)
    batch = tiny_runtime.run(images, True, True)
    last = tiny_runtime.run(images[2:], True, True)
    np.testing.assert_allclose(batch.global_descriptors[2:], last.global_descriptors, rtol=1e-5)
    np.testing.assert_allclose(batch.attention[2:], last.attention, rtol=1e-5)


def test_torch_splits_large_batches(tiny_weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime, images = TorchRuntime(tiny_weights, "cpu"), random_images(5, 32, 32)
    whole = runtime.run(images, True, True)
    monkeypatch.setattr("opendelg.runtime.torch_runtime.MAX_PASS_PIXELS", 2 * 32 * 32)
    split = runtime.run(images, True, True)
    np.testing.assert_allclose(split.global_descriptors, whole.global_descriptors, rtol=1e-5)


def test_the_torch_free_layouts_are_those_of_the_model() -> None:
    assert torch_free.LAYOUTS.keys() == LAYOUTS.keys()
    for name, layout in torch_free.LAYOUTS.items():
        for field, value in vars(layout).items():
            assert getattr(LAYOUTS[name], field) == value


@pytest.mark.parametrize("config", CONFIGS)
def test_the_torch_free_architecture_is_that_of_the_model(config: ModelConfig) -> None:
    architecture = Architecture.from_settings(settings_as_dict(config))
    assert architecture.min_side == config.min_side
    for stage, num_units in enumerate(config.units, start=1):
        for unit in range(num_units):
            expected = _unit_stride(LAYOUTS[config.layout], stage, unit, num_units)
            assert architecture.unit_stride(stage, unit) == expected


def test_cpu_extraction_never_imports_torch(tiny_weights: Weights) -> None:
    code = (
        "import sys; from opendelg.extraction import Extractor\n"
        "from opendelg.runtime import choose_runtime; from opendelg.weights import load_weights\n"
        f"choose_runtime(load_weights({str(tiny_weights.path)!r}), 'cpu', 1)\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_absent_tensors_are_all_named(tiny_weights: Weights) -> None:
    state = {k: v for k, v in tiny_weights.state.items() if not k.startswith("attention.conv")}
    with pytest.raises(WeightsError, match=r"attention\.conv1\.weight.*attention\.conv2\.weight"):
        build_graph("local", Architecture.from_settings(tiny_weights.model), state)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        pytest.param("backbone.conv1.weight", (8, 3, 5, 5), id="kernel"),
        pytest.param("backbone.layer2.0.conv2.weight", (8, 5, 3, 3), id="channels"),
        pytest.param("backbone.layer3.0.bn1.running_var", (7,), id="batch norm"),
        pytest.param("backbone.layer4.0.downsample.0.weight", (9, 8, 1, 1), id="shortcut"),
        pytest.param("whitening.bias", (15,), id="global dimensions"),
        pytest.param("autoencoder.encoder.weight", (9, 8, 1, 1), id="local dimensions"),
    ],
)
def test_tensors_of_another_shape_are_refused(
    name: str, shape: tuple[int, ...], tiny_weights: Weights
) -> None:
    changed = replace(tiny_weights, state=tiny_weights.state | {name: np.ones(shape, np.float16)})
    with pytest.raises(WeightsError, match=name):
        OnnxRuntime(changed, 1)
    with pytest.raises(WeightsError, match="must fit"):
        TorchRuntime(changed, "cpu")


def test_incomplete_model_settings_are_refused() -> None:
    with pytest.raises(WeightsError, match="'layout'"):
        Architecture.from_settings({"block": "basic"})


@pytest.mark.parametrize(
    "images",
    [
        pytest.param(np.zeros((1, 32, 32, 3), np.uint8), id="uint8"),
        pytest.param(np.zeros((32, 32, 3), np.float32), id="no batch"),
        pytest.param(np.zeros((0, 32, 32, 3), np.float32), id="empty"),
        pytest.param(np.zeros((1, 32, 0, 3), np.float32), id="no columns"),
    ],
)
def test_wrong_images_are_refused(images: np.ndarray, tiny_runtime: Runtime) -> None:
    with pytest.raises(ValueError, match="images must be"):
        tiny_runtime.run(images, True, True)


def test_auto_without_a_driver_is_the_cpu(
    tiny_weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opendelg.runtime._has_gpu_driver", lambda: False)
    assert choose_runtime(tiny_weights, "auto", 1).device == "cpu"


def test_cuda_without_a_gpu_is_an_error(
    tiny_weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opendelg.runtime._torch_has_gpu", lambda: False)
    with pytest.raises(OpenDelgError, match="GPU"):
        choose_runtime(tiny_weights, "cuda")
