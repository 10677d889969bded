"""Import of official models: what a network of ours is written as, it is read back from."""

import shutil
import tarfile

import numpy as np
import pytest
import torch

from opendelg.errors import WeightsError
from opendelg.model import Delg, ModelConfig
from opendelg.runtime import choose_runtime
from opendelg.runtime.torch_runtime import load_network
from opendelg.settings import settings_as_dict
from opendelg.weights import published_as, read_weights
from opendelg.weights.object_names import OBJECT_GRAPH
from opendelg.weights.tensorflow import import_weights
from tests.official_samples import (
    KERAS,
    SLIM,
    SLIM_HEADS,
    keras_variables,
    object_graph,
    random_state,
    slim_graph,
    slim_variables,
    write_bundle,
    write_slim_model,
)

OPAQUE_HEADS = dict(zip(SLIM_HEADS, ["a", "b", "c", "d", "x/e"], strict=True))
# Every name says another head than it is.
MISLEADING_HEADS = {
    "attention.conv1": "whitening/fc",
    "attention.conv2": "autoencoder/encoder",
    "autoencoder.encoder": "attention/conv1",
    "autoencoder.decoder": "unused",
    "whitening": "attention/conv2",
}


@pytest.fixture
def imported(tmp_path):
    """Import a source and read the weights."""

    def run(source, **options):
        return read_weights(import_weights(source, tmp_path / "out.safetensors", **options))

    return run


def assert_same_state(actual, expected):
    assert actual.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(actual[name], array, err_msg=name)


@pytest.mark.parametrize("heads", [SLIM_HEADS, OPAQUE_HEADS, MISLEADING_HEADS])
def test_a_slim_model_comes_back_whatever_its_heads_are_called(tmp_path, imported, heads):
    state = write_slim_model(tmp_path / "model", heads=heads)
    weights = imported(tmp_path / "model")
    assert_same_state(weights.state, state)
    assert weights.model == settings_as_dict(SLIM) | {"has_decoder": False}
    assert set(weights.training["heads_found_by"].values()) == {"graph"}


def test_a_keras_checkpoint_comes_back(tmp_path, imported):
    state = random_state(KERAS)
    write_bundle(tmp_path / "delf_weights", keras_variables(state), texts={"_OBJECTS": b"x"})
    weights = imported(tmp_path)
    assert_same_state(weights.state, state)
    assert weights.model == settings_as_dict(KERAS)
    assert "_OBJECTS" in weights.training["dropped"]
    assert weights.training["assumed"]["resize_rule"] == "half_pixel"


def test_a_keras_network_inside_another_object_comes_back(tmp_path, imported):
    state = random_state(KERAS)
    write_bundle(tmp_path / "variables", keras_variables(state, "_model/"))
    assert_same_state(imported(tmp_path / "variables").state, state)


def test_keras_variables_that_are_stored_by_number_come_back(tmp_path, imported):
    state = random_state(KERAS)
    variables = keras_variables(state, "_model/")
    numbered = {name: f"_model/variables/{place}" for place, name in enumerate(variables)}
    write_bundle(
        tmp_path / "v",
        {numbered[name]: array for name, array in variables.items()},
        texts={OBJECT_GRAPH: object_graph(numbered)},
    )
    assert_same_state(imported(tmp_path).state, state)


def test_two_variables_of_one_name_are_refused(tmp_path, imported):
    objects = object_graph({"a": "x/.ATTRIBUTES/V", "b": "y"})
    renamed = objects.replace(b"\x1a\x01y", b"\x1a\x01z")
    tensors = {"z": np.ones(2), "b/.ATTRIBUTES/VARIABLE_VALUE": np.ones(2)}
    write_bundle(tmp_path / "v", tensors, texts={OBJECT_GRAPH: renamed})
    with pytest.raises(WeightsError, match="variables must have distinct names"):
        imported(tmp_path)


@pytest.mark.parametrize("config", [SLIM, KERAS], ids=["slim", "keras"])
def test_the_imported_network_computes_the_same(tmp_path, imported, drawn, config):
    state = random_state(config)
    if config is SLIM:
        write_slim_model(tmp_path / "model")
    else:
        write_bundle(tmp_path / "model" / "delf_weights", keras_variables(state))
    weights = imported(tmp_path / "model")
    network = Delg(config).eval()
    tensors = {name: torch.from_numpy(array) for name, array in state.items()}
    network.load_state_dict(tensors, strict=False)
    images = drawn((75, 62)).pixels[None].astype(np.float32)
    with torch.inference_mode():
        inputs = (torch.from_numpy(images).permute(0, 3, 1, 2) - 128) / 128
        expected = [output.numpy() for output in network(inputs)]
        actual = load_network(weights)(inputs)
    for ours, theirs in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs)
    raw = choose_runtime(weights, "cpu", threads=1).run(images, True, True)
    np.testing.assert_allclose(raw.global_descriptors, expected[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(raw.attention, expected[1], rtol=1e-4)


@pytest.mark.parametrize("units", [(1, 1, 1, 1), (3, 4, 23, 3)], ids=["shallow", "deep"])
def test_depth_follows_from_the_names(tmp_path, imported, units):
    config = ModelConfig(**{**vars(SLIM), "units": units})
    write_slim_model(tmp_path / "model", config)
    assert imported(tmp_path / "model").model["units"] == list(units)


def test_settings_follow_from_the_graph(tmp_path, imported):
    write_slim_model(tmp_path / "model", power=2.5, half_pixel=True)
    model = imported(tmp_path / "model").model
    assert (model["gem_power"], model["gem_epsilon"]) == (2.5, 1e-6)
    assert (model["resize_rule"], model["local_stride"]) == ("half_pixel", 32)


def test_another_epsilon_is_moved_into_the_variance(tmp_path, imported):
    state = write_slim_model(tmp_path / "model", epsilon=1e-3)
    weights = imported(tmp_path / "model")
    name = "backbone.bn1.running_var"
    np.testing.assert_allclose(weights.state[name] + 1e-5, state[name] + 1e-3, rtol=1e-6)


def test_without_a_graph_names_and_shapes_tell_the_heads(tmp_path, imported):
    write_slim_model(tmp_path / "model")
    (tmp_path / "model" / "saved_model.pb").unlink()
    weights = imported(tmp_path / "model" / "variables")
    assert set(weights.training["heads_found_by"].values()) == {"shape"}
    assert weights.training["assumed"]["resize_rule"] == "legacy"


def test_without_a_graph_heads_of_one_shape_and_no_name_are_refused(tmp_path, imported):
    config = ModelConfig(**{**vars(SLIM), "num_local_dimensions": SLIM.attention_width})
    state = random_state(config)
    write_bundle(tmp_path / "variables", slim_variables(state, OPAQUE_HEADS))
    with pytest.raises(WeightsError, match=r"attention.conv1 could be any of .*'a/.*'c/weights'"):
        imported(tmp_path)


def test_a_decoder_is_found_by_its_shape(tmp_path, imported):
    decoder = {
        "d/weights": np.ones((1, 1, 8, 20), np.float32),
        "d/biases": np.ones(20, np.float32),
    }
    write_slim_model(tmp_path / "model", heads=OPAQUE_HEADS, extra=decoder)
    weights = imported(tmp_path / "model")
    assert weights.state["autoencoder.decoder.weight"].shape == (20, 8, 1, 1)
    assert weights.model["has_decoder"]


def test_what_only_training_needs_is_dropped_and_listed(tmp_path, imported):
    extra = {
        "global_step": np.array(7),
        "resnet_v1_50/conv1/weights/Momentum": np.zeros((7, 7, 3, 7), np.float32),
        "resnet_v1_50/conv1/weights/ExponentialMovingAverage": np.zeros(3, np.float32),
        "attention_block/logits/weights": np.zeros((1, 1, 20, 5), np.float32),
    }
    write_slim_model(tmp_path / "model", extra=extra)
    assert imported(tmp_path / "model").training["dropped"] == sorted(extra)


def test_all_faults_are_one_error(tmp_path, imported):
    state = random_state(SLIM)
    variables = slim_variables(state)
    del variables["resnet_v1_50/block2/unit_1/bottleneck_v1/conv1/BatchNorm/beta"]
    variables["resnet_v1_50/block4/unit_1/bottleneck_v1/conv2/weights"] = np.zeros(3, np.float32)
    variables["strange/thing"] = np.zeros((2, 2), np.float32)
    write_bundle(tmp_path / "variables" / "variables", variables)
    (tmp_path / "saved_model.pb").write_bytes(slim_graph(SLIM).message())
    with pytest.raises(WeightsError, match=r"got \d+ faults") as caught:
        imported(tmp_path)
    for text in ("no beta of backbone.layer2.0.conv1", "'strange/thing' (2, 2)", "block4/unit_1"):
        assert text in str(caught.value)


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        pytest.param({"mean": 120.0}, r"pixels other than \(value - 128\)", id="pixels"),
        pytest.param({"pool": "VALID"}, "max-pool padded VALID where SAME", id="pool"),
        pytest.param({"last_stride": 1}, "stride=1.*stride=2.*block3/unit_2", id="stride"),
    ],
)
def test_a_graph_that_computes_something_else_is_refused(tmp_path, imported, graph, message):
    write_slim_model(tmp_path / "model", **graph)
    with pytest.raises(WeightsError, match=message):
        imported(tmp_path / "model")


@pytest.mark.parametrize(
    ("op", "attribute", "message"),
    [
        ("FusedBatchNormV3", "is_training", "statistics of the batch in resnet_v1_50/conv1"),
        ("ResizeBilinear", "align_corners", "aligned corners in resize"),
    ],
)
def test_a_switch_that_our_network_lacks_is_refused(tmp_path, imported, op, attribute, message):
    write_slim_model(tmp_path / "model")
    graph = slim_graph(SLIM)
    next(node for node in graph.nodes if node.op == op).attributes[attribute].b = True
    (tmp_path / "model" / "saved_model.pb").write_bytes(graph.message())
    with pytest.raises(WeightsError, match=message):
        imported(tmp_path / "model")


@pytest.mark.parametrize(
    ("node", "op", "message"),
    [
        ("Softplus", "Sigmoid", "no attention.conv2 where DELG has it"),
        (f"{SLIM_HEADS['attention.conv1']}/Relu", "Identity", "no ReLU between the attention's"),
        ("features", "Relu", "no autoencoder.encoder where DELG has it"),
    ],
)
def test_a_head_that_is_computed_otherwise_is_refused(tmp_path, imported, node, op, message):
    """Names and shapes alone would take it."""
    write_slim_model(tmp_path / "model")
    graph = slim_graph(SLIM)
    next(one for one in graph.nodes if one.name == node).op = op
    (tmp_path / "model" / "saved_model.pb").write_bytes(graph.message())
    with pytest.raises(WeightsError, match=message):
        imported(tmp_path / "model")


def test_a_variance_below_zero_is_refused(tmp_path, imported):
    name = "resnet_v1_50/conv1/BatchNorm/moving_variance"
    write_slim_model(tmp_path / "model", extra={name: np.full(7, -1, np.float32)})
    with pytest.raises(WeightsError, match=f"variances must be positive, got -1 in '{name}'"):
        imported(tmp_path / "model")


def test_units_with_a_gap_are_refused(tmp_path, imported):
    variables = slim_variables(random_state(SLIM))
    gone = [name for name in variables if "block1/unit_1" in name]
    write_bundle(tmp_path / "v", {n: a for n, a in variables.items() if n not in gone})
    with pytest.raises(WeightsError, match="gaps before unit 2 of block1"):
        imported(tmp_path)


def test_another_network_is_refused(tmp_path, imported):
    write_bundle(tmp_path / "v", {"vgg/conv1/weights": np.zeros((3, 3, 3, 8), np.float32)})
    with pytest.raises(WeightsError, match="variables must be of TF-slim's resnet_v1 or"):
        imported(tmp_path)


@pytest.mark.parametrize(
    ("name", "threshold"),
    [
        ("delg_gld_20200520", 175.0),
        ("r50delg_gld_20200814", 175.0),
        ("r101delg_gld_20200814", 166.1),
        ("r50delg_gldv2clean_20200914", 454.6),
        ("r101delg_gldv2clean_20200914", 357.48),
        ("other", 0.0),
    ],
)
def test_released_models_have_their_own_threshold(tmp_path, imported, name, threshold):
    write_slim_model(tmp_path / name)
    assert imported(tmp_path / name).score_threshold == threshold


def test_released_models_are_known_as_published_under_any_name(tmp_path, imported):
    write_slim_model(tmp_path / "r101delg_gld_20200814")
    weights = imported(tmp_path / "r101delg_gld_20200814", name="mine", score_threshold=166.1)
    assert published_as(weights) == "r101-gld"


def test_a_given_threshold_and_name_count(tmp_path, imported):
    write_slim_model(tmp_path / "r50delg_gld_20200814")
    weights = imported(tmp_path / "r50delg_gld_20200814", name="mine", score_threshold=2.5)
    assert (weights.name, weights.score_threshold) == ("mine", 2.5)
    assert published_as(weights) is None


def test_an_archive_is_as_good_as_its_folder(tmp_path, imported):
    state = write_slim_model(tmp_path / "r50delg_gld_20200814")
    archive = tmp_path / "r50delg_gld_20200814.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "r50delg_gld_20200814", "r50delg_gld_20200814")
    shutil.rmtree(tmp_path / "r50delg_gld_20200814")
    weights = imported(archive)
    assert_same_state(weights.state, state)
    assert (weights.name, weights.score_threshold) == ("r50delg_gld_20200814", 175.0)
    assert {path.name for path in tmp_path.iterdir()} == {archive.name, "out.safetensors"}


@pytest.mark.parametrize("part", ["", "saved_model.pb", "variables", "variables/variables.index"])
def test_a_saved_model_may_be_named_by_any_of_its_parts(tmp_path, imported, part):
    write_slim_model(tmp_path / "mine")
    weights = imported(tmp_path / "mine" / part)
    assert weights.name == "mine"
    assert set(weights.training["heads_found_by"].values()) == {"graph"}


def test_two_models_in_a_folder_must_be_named(tmp_path, imported):
    for name in ("a", "b"):
        write_slim_model(tmp_path / "models" / name)
    with pytest.raises(WeightsError, match=r"model must be the only one in .*name one of them"):
        imported(tmp_path / "models")


@pytest.mark.parametrize("kind", ["absent", "empty", "frozen", "text"])
def test_a_source_without_a_model_is_refused(tmp_path, imported, kind):
    source = tmp_path / "x"
    if kind == "text":
        source.write_text("hello")
    elif kind != "absent":
        write_slim_model(source)
        shutil.rmtree(source / "variables")
        if kind == "empty":
            (source / "saved_model.pb").unlink()
    with pytest.raises(WeightsError, match="must"):
        imported(source)


def test_a_damaged_tensor_is_refused(tmp_path, imported):
    write_slim_model(tmp_path / "model")
    shard = tmp_path / "model" / "variables" / "variables.data-00000-of-00001"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(WeightsError, match="tensor must have the checksum of the index"):
        imported(tmp_path / "model")
    assert not (tmp_path / "out.safetensors").exists()
