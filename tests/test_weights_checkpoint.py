import hashlib
import json
import resource

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from opendelg.errors import WeightsError
from opendelg.model import Delg
from opendelg.runtime import Architecture
from opendelg.same import SameModel
from opendelg.settings import settings_as_dict
from opendelg.weights import load_weights, published, read_weights, write_weights
from tests.conftest import TINY

STATE = {
    "conv.weight": np.array([[0.1, -2.5]], np.float32),
    "conv.bias": np.array([0.1], np.float32),
    "bn.num_batches_tracked": np.array(7),
}
HEADER = {"version": 1, "name": "x", "model": {}, "score_threshold": 0.0, "same": None}


@pytest.fixture
def path(tmp_path):
    """Weights with all that a header can hold."""
    path = tmp_path / "new" / "tiny.safetensors"
    same = SameModel(-3.0, 2.0, 1.5, 0.5)
    write_weights(path, "tiny", STATE, TINY, 0.25, same, {"photos": 3})
    return path


def test_what_is_written_is_read_back(path):
    weights = read_weights(path)
    assert (weights.name, weights.path, weights.score_threshold) == ("tiny", path, 0.25)
    assert weights.model == settings_as_dict(TINY)
    assert weights.same == SameModel(-3.0, 2.0, 1.5, 0.5)
    assert weights.training == {"photos": 3}


def test_matrices_are_float16_and_vectors_float32(path):
    state = read_weights(path).state
    assert set(state) == {"conv.weight", "conv.bias"}
    assert state["conv.weight"].dtype == np.float16
    assert state["conv.bias"].dtype == np.float32
    assert state["conv.bias"].tolist() == STATE["conv.bias"].tolist()
    np.testing.assert_allclose(state["conv.weight"], STATE["conv.weight"], rtol=1e-3)


def test_sha256_is_that_of_the_file(path):
    assert read_weights(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_same_weights_give_the_same_bytes(path, tmp_path):
    again = tmp_path / "again.safetensors"
    same = SameModel(-3.0, 2.0, 1.5, 0.5)
    write_weights(again, "tiny", dict(reversed(STATE.items())), TINY, 0.25, same, {"photos": 3})
    assert again.read_bytes() == path.read_bytes()


def test_nothing_else_is_left_beside_the_file(path):
    assert [file.name for file in path.parent.iterdir()] == ["tiny.safetensors"]


def test_a_networks_outputs_survive_but_for_float16(tmp_path):
    torch.manual_seed(0)
    network, again = Delg(TINY).eval(), Delg(TINY).eval()
    state = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    write_weights(tmp_path / "tiny.safetensors", "tiny", state, TINY, 0.0)
    read = read_weights(tmp_path / "tiny.safetensors").state
    tensors = {name: torch.from_numpy(array).float() for name, array in read.items()}
    counters = {n: t for n, t in again.state_dict().items() if n.endswith("num_batches_tracked")}
    again.load_state_dict(tensors | counters)
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        for actual, expected in zip(again(images), network(images), strict=True):
            torch.testing.assert_close(actual, expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        pytest.param("conv.weight", np.full((1, 1), 1e6, np.float32), id="float16-overflow"),
        pytest.param("conv.weight", np.full((1, 1), np.nan, np.float32), id="nan"),
        pytest.param("conv.bias", np.array([np.inf], np.float32), id="infinite-vector"),
    ],
)
def test_weights_that_are_not_finite_are_not_written(tmp_path, name, array):
    with pytest.raises(WeightsError, match=f"weights must be finite .*'{name}'"):
        write_weights(tmp_path / "bad.safetensors", "bad", {name: array}, TINY, 0.0)
    assert not list(tmp_path.iterdir())


def test_a_threshold_that_is_not_finite_is_not_written(tmp_path):
    with pytest.raises(WeightsError, match="score_threshold must be finite, got nan"):
        write_weights(tmp_path / "bad.safetensors", "bad", STATE, TINY, float("nan"))


def test_an_absent_file_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"weights must be a file, got .*none"):
        read_weights(tmp_path / "none.safetensors")


@pytest.mark.parametrize("data", [b"", b"no tensors", b"\xff" * 100], ids=["empty", "text", "ff"])
def test_a_file_of_another_kind_is_refused(tmp_path, data):
    (tmp_path / "x.safetensors").write_bytes(data)
    with pytest.raises(WeightsError, match=r"weights must be a safetensors file, got .*x.safe"):
        read_weights(tmp_path / "x.safetensors")


def test_a_cut_off_file_is_refused(path):
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(WeightsError, match="weights must be a safetensors file"):
        read_weights(path)


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(None, id="without"),
        pytest.param("{", id="no-json"),
        pytest.param("[]", id="list"),
        pytest.param("{}", id="empty"),
        pytest.param(json.dumps(HEADER), id="incomplete"),
        pytest.param(json.dumps(HEADER | {"training": {}, "same": {"x": 1}}), id="other-same"),
        pytest.param(json.dumps(HEADER | {"training": {}, "same": 3}), id="no-same"),
        pytest.param(json.dumps(HEADER | {"training": {}, "version": "1"}), id="text-version"),
        pytest.param(json.dumps(HEADER | {"training": {}, "model": []}), id="model-list"),
        pytest.param(json.dumps(HEADER | {"training": None}), id="no-training"),
        pytest.param(json.dumps(HEADER | {"training": {}, "score_threshold": None}), id="none"),
        pytest.param(
            json.dumps(HEADER | {"training": {}, "score_threshold": float("nan")}), id="nan"
        ),
        pytest.param(
            json.dumps(
                HEADER
                | {
                    "training": {},
                    "same": {"intercept": "1", "similarity": 0, "log_inliers": 0, "spread": 0},
                }
            ),
            id="text-in-same",
        ),
    ],
)
def test_a_foreign_header_is_refused(tmp_path, header):
    metadata = {} if header is None else {"opendelg": header}
    save_file({"a": np.zeros(1, np.float32)}, tmp_path / "x.safetensors", metadata=metadata)
    with pytest.raises(WeightsError, match=r"weights must have an opendelg header, got .*x.safe"):
        read_weights(tmp_path / "x.safetensors")


def test_a_newer_version_is_refused(tmp_path):
    header = json.dumps(HEADER | {"version": 2, "training": {}})
    path = tmp_path / "new.safetensors"
    save_file({"a": np.zeros(1, np.float32)}, path, metadata={"opendelg": header})
    with pytest.raises(WeightsError, match=r"version must be at most 1, got 2 .*update opendelg"):
        read_weights(path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_not_read(tmp_path, value):
    header = json.dumps(HEADER | {"training": {}})
    tensors = {"good": np.zeros(2, np.float16), "bad": np.full((2, 2), value, np.float16)}
    save_file(tensors, tmp_path / "x.safetensors", metadata={"opendelg": header})
    with pytest.raises(WeightsError, match=r"weights must be finite, got .*\['bad'\]"):
        read_weights(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        {"units": "four"},
        {"units": [1, 1]},
        {"units": [1, 1, 0, 1]},
        {"layout": []},
        {"block": "other"},
        {"local_stride": 8},
        {"num_local_dimensions": -1},
        {"gem_power": float("nan")},
        {"resize_rule": "cubic"},
    ],
    ids=str,
)
def test_model_settings_out_of_range_are_refused(change):
    with pytest.raises(WeightsError, match="model settings must be"):
        Architecture.from_settings(settings_as_dict(TINY) | change)


@pytest.mark.parametrize("name", ["gone/mine.safetensors", "mine.safetensors", "gone/mine"])
def test_a_file_that_was_moved_says_how_to_name_the_new_place(name):
    with pytest.raises(WeightsError, match="--model FILE"):
        load_weights(name)


def test_a_package_without_its_weights_says_to_reinstall(tmp_path, monkeypatch):
    monkeypatch.setattr(published, "_PACKAGE", tmp_path)
    with pytest.raises(WeightsError, match="reinstall opendelg"):
        load_weights("starter")


def test_other_readers_of_safetensors_can_read_the_file(path):
    assert set(load_file(path)) == {"conv.weight", "conv.bias"}


def test_weights_load_by_path(path):
    assert load_weights(str(path)).name == "tiny"


def test_a_home_folder_is_expanded(path, monkeypatch):
    monkeypatch.setenv("HOME", str(path.parent))
    assert load_weights("~/tiny.safetensors").name == "tiny"


def test_an_unknown_name_offers_the_nearest():
    with pytest.raises(WeightsError, match="got 'startr'; did you mean 'starter'"):
        load_weights("startr")


@pytest.mark.parametrize("name", ["r50delg_gld_20200814", "r50delg_gld_20200814.tar.gz"])
def test_the_name_of_a_release_offers_ours(name):
    with pytest.raises(WeightsError, match="did you mean 'r50-gld'"):
        load_weights(name)


def test_a_name_like_no_other_lists_the_known():
    with pytest.raises(WeightsError, match="got 'x'; known are starter"):
        load_weights("x")


def test_the_weights_of_this_project_lie_in_the_package():
    in_package = [known for known in published.PUBLISHED.values() if known.release is None]
    assert [known.file.is_file() for known in in_package] == [True]


def test_a_disk_that_cannot_take_the_file_is_an_error_of_the_system(tmp_path):
    state = {"conv.bias": np.zeros(100_000, np.float32)}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError, match=r"large.*x.safetensors"):
            write_weights(tmp_path / "x.safetensors", "x", state, TINY, 0.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_a_folder_in_the_files_place_is_told_and_nothing_is_left(tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(WeightsError, match="weights must be written to a file, got the folder"):
        write_weights(tmp_path / "x", "x", STATE, TINY, 0.0)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("name", ["saved_model", "model.tar.gz"])
def test_a_model_of_tensorflow_says_how_to_import_it(tmp_path, name):
    (tmp_path / "saved_model").mkdir()
    (tmp_path / "model.tar.gz").write_bytes(b"a model")
    with pytest.raises(WeightsError, match="`delg weights import` makes one"):
        load_weights(str(tmp_path / name))
