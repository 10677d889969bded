"""The parity report: equal features are equal, whatever differs is told by name and scale."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from opendelg.errors import FormatError, ImageError
from opendelg.extraction import ExtractionConfig, Extractor
from opendelg.image import DecodedImage, resize_bilinear, scale_size
from opendelg.parity import (
    NO_DIFFERENCES,
    Differences,
    compare,
    find_photo,
    read_expected,
    report,
)
from opendelg.runtime.onnx_runtime import OnnxRuntime
from opendelg.runtime.torch_runtime import TorchRuntime
from opendelg.weights import read_weights
from opendelg.weights.tensorflow import import_weights
from tests.official_samples import write_slim_model

PARITY = Path(os.environ.get("OPENDELG_DATA", "nowhere")).parent / "parity"
SCALES = (0.5, 0.70710677, 1.0)
GLOBAL_SCALES = (0.70710677, 1.0)


@pytest.fixture(scope="module")
def expected_arrays(tiny_weights, tiny_runtime, drawn):
    """What TensorFlow would have given for a drawn photo, were it our network."""
    image = drawn((150, 110))
    config = ExtractionConfig(
        max_size=-1,
        scales=SCALES,
        global_scales=GLOBAL_SCALES,
        max_keypoints=40,
        score_threshold=0.1,
    )
    local = Extractor(tiny_weights, config, tiny_runtime).extract(image).local
    rule = tiny_runtime.architecture.resize_rule
    raw = [
        tiny_runtime.run(
            resize_bilinear(image.pixels, scale_size(image.size, scale), rule)[None], True, False
        ).global_descriptors[0]
        for scale in GLOBAL_SCALES
    ]
    half = 145 / local.scales[:, None]
    centres = local.keypoints[:, ::-1]
    return {
        "image": np.array("drawn.png"),
        "abs_thres": np.array(0.1),
        "max_feature_num": np.array(40),
        "image_scales": np.array(SCALES, np.float32),
        "global_scales_ind": np.array([1, 2]),
        "boxes": np.hstack([centres - half, centres + half]),
        "features": local.descriptors * 3,
        "scales": 1 / local.scales,
        "scores": local.scores[:, None],
        "global_descriptors": np.stack(raw),
    }


@pytest.fixture
def differences(tmp_path, tiny_weights, tiny_runtime, drawn, expected_arrays):
    """Compare with the arrays, some of them changed."""

    def run(**changed):
        np.savez(tmp_path / "expected.npz", **expected_arrays | changed)
        expected = read_expected(tmp_path / "expected.npz")
        return report(compare(tiny_weights, [tiny_runtime], expected, drawn((150, 110))))

    return run


def test_equal_features_are_equal(differences):
    values = differences()
    assert values["ok"]
    assert max(values["global"], values["scores"], values["descriptors"]) < 1e-6
    assert [of["scale"] for of in values["scales"]] == [np.float32(scale) for scale in SCALES]


def test_another_global_descriptor_is_told_at_its_scale(differences, expected_arrays):
    changed = expected_arrays["global_descriptors"].copy()
    changed[1] *= 1.01
    values = differences(global_descriptors=changed)
    assert not values["ok"]
    assert values["global"] == pytest.approx(0.01, rel=0.1)
    assert [of["global"] > 1e-3 for of in values["scales"]] == [False, False, True]


def test_another_score_and_descriptor_are_told(differences, expected_arrays):
    scores = expected_arrays["scores"].copy()
    scores[0] *= 1.1
    features = expected_arrays["features"].copy()
    features[3] *= -1
    values = differences(scores=scores, features=features)
    assert values["scores"] == pytest.approx(1 - 1 / 1.1, rel=1e-3)
    assert values["descriptors"] > 0.1
    assert not values["ok"]


def test_a_shifted_keypoint_is_told(differences, expected_arrays):
    boxes = expected_arrays["boxes"].copy()
    boxes[5] += [0, 2, 0, 2]
    values = differences(boxes=boxes)
    assert values["keypoints"] == pytest.approx(2, abs=1e-3)
    assert not values["ok"]


def test_another_order_counts_unless_the_scores_are_equal(differences, expected_arrays):
    order = np.arange(40)
    order[[3, 30]] = order[[30, 3]]
    swapped = {name: expected_arrays[name][order] for name in ("boxes", "features", "scales")}
    values = differences(**swapped)
    assert values["keypoints"] > 1
    assert not values["ok"]


def test_a_feature_too_few_is_told(differences, expected_arrays):
    rows = ("boxes", "features", "scales", "scores")
    fewer = {name: expected_arrays[name][:-1] for name in rows}
    values = differences(**fewer)
    assert values["keypoints"] == np.inf
    assert not values["ok"]


def test_other_sizes_of_descriptors_cannot_be_paired(differences, expected_arrays):
    values = differences(
        features=expected_arrays["features"][:, :3],
        global_descriptors=expected_arrays["global_descriptors"][:, :3],
    )
    assert (values["global"], values["descriptors"]) == (np.inf, np.inf)


def test_no_features_are_legal(differences):
    empty = np.zeros((0, 4)), np.zeros((0, 8)), np.zeros(0), np.zeros((0, 1))
    names = ("boxes", "features", "scales", "scores")
    arrays = dict(zip(names, empty, strict=True))
    assert differences(**arrays, abs_thres=np.array(1e6))["ok"]


@pytest.mark.parametrize("name", ["boxes", "features", "scales", "scores", "global_descriptors"])
def test_what_is_no_number_is_not_equal(differences, expected_arrays, name):
    array = expected_arrays[name].copy()
    array[1] = np.nan
    assert not differences(**{name: array})["ok"]


def test_a_network_that_gives_no_numbers_is_not_equal():
    broken = Differences(np.nan, np.nan, np.nan, np.nan)
    worst = NO_DIFFERENCES.worse(broken)
    assert worst == broken.worse(NO_DIFFERENCES) == Differences(*4 * [np.inf])
    assert not worst.is_ok


def test_a_feature_of_a_scale_that_was_not_asked_for_is_told(differences, expected_arrays):
    scales = expected_arrays["scales"].copy()
    scales[3] = 77
    assert differences(scales=scales)["keypoints"] == np.inf


@pytest.mark.parametrize("name", ["boxes", "image", "abs_thres"])
def test_absent_arrays_are_listed(tmp_path, expected_arrays, name):
    arrays = {key: array for key, array in expected_arrays.items() if key != name}
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(FormatError, match=f"expected file must have {name}, got .*x.npz"):
        read_expected(tmp_path / "x.npz")


@pytest.mark.parametrize(
    "changed",
    [
        {"image": np.zeros((2, 2, 3), np.uint8)},
        {"boxes": np.zeros(4)},
        {"boxes": np.zeros((3, 4))},
        {"scores": np.array([["a"]])},
        {"global_scales_ind": np.array([9, 1])},
        {"global_scales_ind": np.array([1])},
        {"image_scales": np.array([0.5, 0.5, 1.0])},
    ],
    ids=["image", "dimensions", "rows", "text", "index", "number", "scales"],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, expected_arrays, changed):
    np.savez(tmp_path / "x.npz", **expected_arrays | changed)
    with pytest.raises(FormatError, match=r"expected file must be an .npz of a saved model"):
        read_expected(tmp_path / "x.npz")


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"text"])
def test_other_files_are_refused(tmp_path, data):
    (tmp_path / "x.npz").write_bytes(data)
    with pytest.raises(FormatError, match=r"expected file must be an .npz of a saved model"):
        read_expected(tmp_path / "x.npz")


def test_a_damaged_file_is_refused(tmp_path, expected_arrays):
    np.savez_compressed(tmp_path / "x.npz", **expected_arrays)
    data = bytearray((tmp_path / "x.npz").read_bytes())
    data[200:300] = bytes(100)
    (tmp_path / "x.npz").write_bytes(data)
    with pytest.raises(FormatError, match=r"expected file must be an .npz"):
        read_expected(tmp_path / "x.npz")


def test_pickles_are_not_opened(tmp_path, expected_arrays):
    np.savez(tmp_path / "x.npz", **expected_arrays | {"image": np.array({"a": 1}, object)})
    with pytest.raises(FormatError, match="expected file must be"):
        read_expected(tmp_path / "x.npz")


def test_a_photo_that_is_not_there_is_named(tmp_path, expected_arrays):
    np.savez(tmp_path / "x.npz", **expected_arrays)
    expected = read_expected(tmp_path / "x.npz")
    with pytest.raises(ImageError, match=r"got no .*drawn.png'; --images names it"):
        find_photo(expected, tmp_path)


@pytest.fixture
def files(tmp_path, expected_arrays, tiny_weights, drawn):
    """Weights, two expected files and their photo, as the command takes them."""
    Image.fromarray(drawn((150, 110)).pixels).save(tmp_path / "drawn.png")
    np.savez(tmp_path / "a.npz", **expected_arrays)
    wrong = expected_arrays["global_descriptors"] * 2
    np.savez(tmp_path / "b.npz", **expected_arrays | {"global_descriptors": wrong})
    return tiny_weights.path, tmp_path


@pytest.mark.parametrize("runtime", ["onnx", "torch", "both"])
def test_the_command_reports_each_file(delg, files, runtime):
    model, folder = files
    ran = delg(
        *("weights", "check", model, "--against", folder / "a.npz", "--images", folder, "--json"),
        *("--runtime", runtime, "--threads", 1),
    )
    assert (ran.code, ran.json["ok"]) == (0, True)
    (file,) = ran.json["files"]
    assert file["file"] == str(folder / "a.npz")
    assert file.keys() >= {"file", "global", "keypoints", "scores", "descriptors"}


def test_the_command_ends_with_1_beyond_the_tolerance(delg, files):
    model, folder = files
    ran = delg(
        *("weights", "check", model, "--against", folder / "a.npz", folder / "b.npz"),
        *("--images", folder, "--threads", 1),
    )
    assert ran.code == 1
    assert f"{folder}/a.npz: equal" in ran.out
    assert f"{folder}/b.npz: DIFFERENT" in ran.out
    assert "0.7071" in ran.out


def test_the_command_names_the_photo_it_looks_for(delg, files, tmp_path):
    model, folder = files
    ran = delg("weights", "check", model, "--against", folder / "a.npz", "--images", "elsewhere")
    assert ran.code == 1
    assert "got no 'elsewhere/drawn.png'" in ran.err


def test_the_import_command_tells_what_it_found(delg, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_slim_model(tmp_path / "mine", extra={"global_step": np.array(1)})
    ran = delg("weights", "import", "mine")
    assert ran.code == 0
    for text in ("mine.safetensors: mine", "layout: slim", "whitening by graph", "global_step"):
        assert text in ran.out
    again = delg("weights", "import", "mine", "--out", "m.safetensors", "--name", "x", "--json")
    assert (again.json["name"], again.json["path"]) == ("x", "m.safetensors")
    assert delg("weights", "info", "m.safetensors").code == 0


def test_the_import_command_refuses_in_one_line(delg, tmp_path):
    ran = delg("weights", "import", tmp_path / "none")
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert "which does not exist" in ran.err


@pytest.mark.data
@pytest.mark.skipif(not PARITY.is_dir(), reason="needs the parity folder beside $OPENDELG_DATA")
@pytest.mark.parametrize("source", ["slim_resnet50_tiny/saved_model", "keras_resnet50_tiny"])
@pytest.mark.parametrize("kind", ["onnx", "torch"])
def test_models_that_tensorflow_wrote_give_what_it_gave(tmp_path, source, kind):
    weights = read_weights(import_weights(PARITY / source, tmp_path / "out.safetensors"))
    runtime = OnnxRuntime(weights, 1) if kind == "onnx" else TorchRuntime(weights, "cpu")
    for number in (0, 1):
        folder = PARITY / source.partition("/")[0]
        expected = read_expected(folder / f"expected_{number}.npz")
        image = _read(find_photo(expected, PARITY))
        assert report(compare(weights, [runtime], expected, image))["ok"]


def _read(path: Path) -> DecodedImage:
    pixels = np.asarray(Image.open(path).convert("RGB"))
    return DecodedImage(pixels, (pixels.shape[1], pixels.shape[0]))
