import json
import math
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import TINY, draw_image

pytest.importorskip("lightning", reason="training needs the extra 'train'")

from opendelg.errors import OpenDelgError
from opendelg.model import Delg, ModelConfig
from opendelg.model.resnet import LAYOUTS, ResNet
from opendelg.training import module as module_file
from opendelg.training import run as run_file
from opendelg.training.config import OptimiserConfig, TrainingConfig, ValidationConfig
from opendelg.training.data import DataConfig
from opendelg.training.distillation import DistillationConfig, blend
from opendelg.training.losses import LossConfig, local_losses
from opendelg.training.module import DelgTraining
from opendelg.training.photos import PhotoFolder
from opendelg.training.teacher import Teacher
from opendelg.weights import read_weights

# What Lightning says of runs as small as these.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before"),
    pytest.mark.filterwarnings("ignore:.*`isinstance.treespec, LeafSpec.` is deprecated"),
]


@pytest.fixture(autouse=True)
def _one_process(monkeypatch):
    """Leave the allocator and the random state of the other tests alone."""
    monkeypatch.setattr(run_file, "keep_freed_memory", lambda: None)
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    with torch.random.fork_rng():
        yield


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three classes of four photos."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(12):
        path = folder / f"class{number % 3}" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(draw_image((48, 40), number % 3).pixels).save(path)
    return folder


@pytest.fixture
def config(photos, tmp_path):
    return TrainingConfig(
        name="tiny",
        output=str(tmp_path / "run"),
        model=TINY,
        data=DataConfig((PhotoFolder(str(photos)),), image_size=32),
        optimiser=OptimiserConfig(kind="adamw", learning_rate=0.01),
        steps=4,
        batch_size=4,
        num_workers=0,
        precision="32-true",
        checkpoint_every=2,
    )


@pytest.fixture
def steps_taken(monkeypatch):
    """A list that grows by the loss of every step."""
    taken = []
    step = DelgTraining.training_step

    def recorded(self, batch, batch_index):
        taken.append(step(self, batch, batch_index))
        return taken[-1]

    monkeypatch.setattr(DelgTraining, "training_step", recorded)
    return taken


def saved_step(folder):
    return torch.load(folder / "last.ckpt", weights_only=True)["global_step"]


def test_a_run_writes_weights_that_load(config, tmp_path):
    path = run_file.train(config)
    weights = read_weights(path)
    assert path == tmp_path / "run" / "tiny.safetensors"
    assert ModelConfig(**{k: _tuple(v) for k, v in weights.model.items()}) == TINY
    network = Delg(TINY)
    wanted = {name for name in network.state_dict() if "num_batches" not in name}
    assert set(weights.state) == wanted
    assert (weights.training["photos"], weights.training["classes"]) == (12, 3)
    assert weights.training["settings"]["steps"] == 4


def _tuple(value):
    return tuple(value) if isinstance(value, list) else value


def test_weights_differ_from_the_first_ones_and_the_threshold_is_an_attention(config):
    weights = read_weights(run_file.train(config))
    torch.manual_seed(config.seed)
    first = Delg(TINY).state_dict()["backbone.conv1.weight"].numpy()
    assert not np.allclose(weights.state["backbone.conv1.weight"], first, atol=1e-3)
    assert 0 < weights.score_threshold < 10


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_loss_falls(config, steps_taken, precision):
    run_file.train(replace(config, steps=40, checkpoint_every=100, precision=precision))
    losses = [loss.item() for loss in steps_taken]
    assert np.mean(losses[-8:]) < 0.8 * np.mean(losses[:8])


def test_the_same_seed_gives_the_same_weights(config, tmp_path):
    first = read_weights(run_file.train(config))
    other = read_weights(run_file.train(replace(config, output=str(tmp_path / "other"))))
    assert all(np.array_equal(array, other.state[name]) for name, array in first.state.items())


def test_a_run_resumes_from_its_last_checkpoint(config, tmp_path, steps_taken):
    run_file.train(config)
    assert (len(steps_taken), saved_step(tmp_path / "run")) == (4, 4)
    run_file.train(replace(config, steps=10))
    assert (len(steps_taken), saved_step(tmp_path / "run")) == (10, 10)


def test_a_resumed_run_starts_from_the_saved_weights(config, monkeypatch):
    run_file.train(config)
    saved = torch.load(f"{config.output}/last.ckpt", weights_only=True)["state_dict"]
    starts = []
    monkeypatch.setattr(
        DelgTraining,
        "on_train_batch_start",
        lambda self, *_: starts.append({k: v.clone() for k, v in self.state_dict().items()}),
    )
    run_file.train(replace(config, steps=6))
    assert all(torch.equal(starts[0][name], tensor) for name, tensor in saved.items())


def weights_of(config):
    return torch.load(f"{config.output}/last.ckpt", weights_only=True)


def assert_same_run(actual, expected):
    """Weights, optimiser and all else that learning goes on from."""
    first, second = (run["state_dict"] for run in (actual, expected))
    assert all(torch.equal(first[name], second[name]) for name in second)
    first, second = (run["optimizer_states"][0]["state"] for run in (actual, expected))
    assert all(torch.equal(first[i][k], second[i][k]) for i in second for k in second[i])


@pytest.mark.parametrize("views_on", ["loader", "device"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_resumed_run_goes_the_way_of_one_that_was_not_stopped(
    config, tmp_path, views_on, accumulate, monkeypatch
):
    data = replace(config.data, views_on=views_on)
    config = replace(config, data=data, steps=8, accumulate=accumulate)
    whole = replace(config, output=str(tmp_path / "whole"))
    run_file.train(whole)
    step = DelgTraining.training_step

    def stopped(self, batch, batch_index):
        if self.global_step == 5:
            raise KeyboardInterrupt
        return step(self, batch, batch_index)

    with monkeypatch.context() as stopping:
        stopping.setattr(DelgTraining, "training_step", stopped)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            run_file.train(config)
    assert saved_step(tmp_path / "run") == 4
    run_file.train(config)
    assert_same_run(weights_of(config), weights_of(whole))


def test_a_finished_run_only_writes_its_weights_again(config, steps_taken):
    first = read_weights(run_file.train(config))
    again = read_weights(run_file.train(config))
    assert len(steps_taken) == 4
    assert first.score_threshold == again.score_threshold
    assert all(np.array_equal(array, again.state[name]) for name, array in first.state.items())


def test_a_run_folder_that_moved_goes_on_with_one_checkpoint(config, tmp_path):
    run_file.train(config)
    shutil.move(tmp_path / "run", tmp_path / "moved")
    run_file.train(replace(config, output=str(tmp_path / "moved"), steps=6))
    assert saved_step(tmp_path / "moved") == 6
    assert [path.name for path in (tmp_path / "moved").glob("*.ckpt")] == ["last.ckpt"]


def log_of(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_the_global_loss_starts_at_its_share_of_the_steps(config, tmp_path):
    run_file.train(replace(config, steps=60, global_loss_from=0.5, checkpoint_every=100))
    entries = log_of(tmp_path / "run")
    assert [entry["step"] for entry in entries] == [25, 50, 60]
    assert ["global" in entry for entry in entries] == [False, True, True]


def test_parts_of_a_batch_learn_what_the_whole_does(config, tmp_path):
    """But for the batch norms, which see less at once."""
    config = replace(config, steps=3, batch_size=8, log_every=1)
    run_file.train(replace(config, output=str(tmp_path / "a")))
    run_file.train(replace(config, output=str(tmp_path / "b"), accumulate=2))
    first, second = log_of(tmp_path / "a"), log_of(tmp_path / "b")
    assert [entry["step"] for entry in second] == [1, 2, 3]
    assert second[0]["learning_rate"] == first[0]["learning_rate"]
    assert second[0]["loss"] == pytest.approx(first[0]["loss"], rel=0.2)


def test_the_log_has_losses_rates_and_speed_and_tensorboard_too(config, tmp_path, capsys):
    run_file.train(replace(config, log_every=2))
    entries = log_of(tmp_path / "run")
    assert [entry["step"] for entry in entries] == [2, 4]
    assert entries[0]["images_per_second"] > 0
    assert 0 < entries[0]["learning_rate"] < 0.01
    assert entries[0].keys() >= {"loss", "global", "attention", "reconstruction", "gradient_norm"}
    assert list((tmp_path / "run" / "log").glob("version_0/events.out.tfevents.*"))
    assert re.search(r"step 4 of 4, [0-9.]+ images/s, 0:00:00 left: ", capsys.readouterr().err)


def test_a_log_that_a_kill_cut_off_goes_on(config, tmp_path):
    run_file.train(replace(config, log_every=1))
    file = tmp_path / "run" / "log.jsonl"
    file.write_text(file.read_text() + '{"step": 9, "loss": 1.0}\n{"step": 1')
    run_file.train(replace(config, log_every=1, steps=6))
    assert [entry["step"] for entry in log_of(tmp_path / "run")] == [1, 2, 3, 4, 5, 6]


def test_a_loss_that_is_no_number_stops_the_run_before_it_is_saved(config, tmp_path):
    optimiser = OptimiserConfig(learning_rate=1e30)
    config = replace(config, optimiser=optimiser, steps=20, checkpoint_every=6, log_every=3)
    with pytest.raises(OpenDelgError, match=r"losses must be finite, got .* between steps 1 and 3"):
        run_file.train(config)
    assert not (tmp_path / "run" / "last.ckpt").exists()


def test_the_learning_rate_warms_up_and_falls_to_zero(config):
    optimiser = replace(config.optimiser, learning_rate=1.0, warm_up_steps=4)
    module = DelgTraining(replace(config, steps=10, optimiser=optimiser), 3)
    rate = module.configure_optimizers()["lr_scheduler"]["scheduler"].lr_lambdas[0]
    expected = [0.25, 0.5 * 0.9, 0.75 * 0.8, 0.7, 0.6, 0.1, 0.0]
    assert [rate(step) for step in (0, 1, 2, 3, 4, 9, 10)] == pytest.approx(expected)


def test_only_the_network_is_shipped(config):
    module = DelgTraining(config, 3)
    assert set(module.model_state()) == set(Delg(TINY).state_dict())


@pytest.fixture
def distilled(config, monkeypatch):
    """A run in which a network of 8 channels teaches, and nothing else counts."""
    torch.manual_seed(1)
    resnet = ResNet(LAYOUTS["torchvision"], "basic", (1, 1, 1), (8, 8, 8), 8)
    monkeypatch.setattr(run_file, "load_teacher", lambda path: Teacher(resnet, "torchvision"))
    random = np.random.default_rng(0)
    # Photos are listed class by class.
    pooled = np.repeat(random.normal(size=(3, 20)), 4, axis=0) + random.normal(size=(12, 20)) / 10
    monkeypatch.setattr(run_file, "cached_pooled_descriptors", lambda *_: pooled)
    losses = LossConfig(global_weight=0.0, reconstruction_weight=0.0, attention_weight=0.0)
    return replace(config, loss=losses, steps=40, checkpoint_every=100)


@pytest.mark.parametrize("kind", ["hint_teacher", "descriptor_teacher"])
def test_a_student_comes_closer_to_its_teacher(distilled, steps_taken, kind):
    teachers = DistillationConfig(**{kind: "teacher.npz"})
    run_file.train(replace(distilled, distillation=teachers))
    losses = [loss.item() for loss in steps_taken]
    assert np.mean(losses[-8:]) < 0.9 * np.mean(losses[:8])


def test_first_steps_can_learn_hints_only_from_small_crops(distilled, monkeypatch):
    seen, stages = [], ResNet.stages

    def recorded(self, images):
        seen.append(tuple(images.shape[2:]))
        return stages(self, images)

    monkeypatch.setattr(ResNet, "stages", recorded)
    data = replace(distilled.data, image_size=48)
    teachers = DistillationConfig("a.npz", "b.npz", hint_only_steps=2, hint_only_size=32)
    run_file.train(replace(distilled, data=data, distillation=teachers, steps=4))
    # Student and teacher see each batch.
    assert seen == [(32, 32)] * 4 + [(48, 48)] * 4


@pytest.mark.parametrize("weight", ["view_weight", "map_weight"])
def test_a_student_learns_what_the_teacher_says_of_each_view(
    distilled, steps_taken, monkeypatch, weight
):
    # The teacher's own 8 channels, so that the whitening of whole photos fits the views too.
    pooled = np.random.default_rng(0).normal(size=(12, 8)) ** 2
    monkeypatch.setattr(run_file, "cached_pooled_descriptors", lambda *_: pooled)
    teachers = DistillationConfig(
        descriptor_teacher="b.npz", **{weight: 1.0, "descriptor_weight": 0.0}
    )
    distilled = replace(distilled, model=replace(TINY, num_global_dimensions=6))
    run_file.train(replace(distilled, distillation=teachers))
    losses = [loss.item() for loss in steps_taken]
    assert np.mean(losses[-8:]) < 0.9 * np.mean(losses[:8])


def test_windows_of_views_are_learnt_from_too(distilled, steps_taken, monkeypatch, tmp_path):
    pooled = np.random.default_rng(0).normal(size=(12, 8)) ** 2
    monkeypatch.setattr(run_file, "cached_pooled_descriptors", lambda *_: pooled)
    teachers = DistillationConfig(
        descriptor_teacher="b.npz", descriptor_weight=0.0, view_weight=1.0, view_windows=(2, 3)
    )
    data = replace(distilled.data, image_size=96)
    model = replace(TINY, num_global_dimensions=6)
    run_file.train(replace(distilled, data=data, model=model, distillation=teachers, log_every=1))
    entry = log_of(tmp_path / "run")[0]
    assert entry["loss"] == pytest.approx(entry["view"] + entry["windows_2"] + entry["windows_3"])
    losses = [loss.item() for loss in steps_taken]
    assert np.mean(losses[-8:]) < 0.9 * np.mean(losses[:8])


def test_windows_must_fit_into_the_map(config):
    teachers = DistillationConfig(descriptor_teacher="b", view_weight=1.0, view_windows=(3,))
    with pytest.raises(ValueError, match="view_windows must be at most 2 cells at image_size 64"):
        replace(config, data=replace(config.data, image_size=64), distillation=teachers)


def test_blends_end_where_the_global_loss_begins_and_have_no_label(distilled, monkeypatch):
    labelled, blended = [], []

    def recorded(model, classifier, shallow, *others):
        labelled.append(len(shallow))
        return local_losses(model, classifier, shallow, *others)

    def recorded_blend(images, count, weights):
        blended.append(count)
        return blend(images, count, weights)

    monkeypatch.setattr(module_file, "local_losses", recorded)
    monkeypatch.setattr(module_file, "blend", recorded_blend)
    teachers = DistillationConfig(hint_teacher="a.npz", descriptor_teacher="b.npz", mixed_share=0.5)
    config = replace(distilled, steps=4, batch_size=8, global_loss_from=0.5, distillation=teachers)
    run_file.train(config)
    assert (blended, labelled) == ([4, 4], [4, 4, 8, 8])


def test_hints_end_at_their_share_of_the_steps(distilled, tmp_path):
    teachers = DistillationConfig(hint_teacher="a.npz", hint_until=0.5)
    run_file.train(replace(distilled, distillation=teachers, steps=4, log_every=1))
    assert ["hint" in entry for entry in log_of(tmp_path / "run")] == [True, True, False, False]


def test_no_tensor_of_a_teacher_is_saved(distilled, tmp_path):
    teachers = DistillationConfig(hint_teacher="a.npz", descriptor_teacher="b.npz")
    run_file.train(replace(distilled, distillation=teachers, steps=2))
    saved = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["state_dict"]
    module = DelgTraining(distilled, 3)
    assert set(saved) == set(module.state_dict())


def test_fewer_teacher_dimensions_than_the_model_has_are_an_error(distilled):
    teachers = DistillationConfig(descriptor_teacher="b.npz")
    model = replace(TINY, num_global_dimensions=21)
    with pytest.raises(OpenDelgError, match=r"num_global_dimensions must be at most .* 20, got 21"):
        run_file.train(replace(distilled, distillation=teachers, model=model))


def test_a_descriptor_teacher_needs_photos_in_memory(distilled):
    teachers = DistillationConfig(descriptor_teacher="b.npz")
    data = replace(distilled.data, keep_in_memory=False)
    with pytest.raises(ValueError, match="keep_in_memory must be true with a descriptor_teacher"):
        replace(distilled, distillation=teachers, data=data)


def test_fewer_photos_than_a_batch_are_an_error(config):
    with pytest.raises(OpenDelgError, match="photos must fill a batch of 13, got 12"):
        run_file.train(replace(config, batch_size=13))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be positive and batch_size at least 2, got 0 and 32"),
        ({"accumulate": 0}, "accumulate and devices must be positive, got 0 and 1"),
        ({"accumulate": 3, "devices": 2}, "must be a multiple of accumulate x devices, got 32 for"),
        ({"log_every": 0}, "log_every must be positive, got 0"),
        ({"batch_size": 1}, "steps must be positive and batch_size at least 2"),
        ({"global_loss_from": 1.5}, r"global_loss_from must be in \[0, 1\], got 1.5"),
        ({"num_workers": -1}, "num_workers must not be negative, got -1"),
        ({"checkpoint_every": 0}, "checkpoint_every must be positive, got 0"),
        ({"name": "a/b"}, "name must be a file name without folders, got 'a/b'"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "must have either folders or groups, got both or none"),
        ({"folders": ("a",), "groups": "b.csv"}, "must have either folders or groups"),
        ({"folders": ("a",), "every": 0}, "every and max_photos must be positive, got 0 and 500"),
    ],
)
def test_validation_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        ValidationConfig(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate must be positive, got 0.0"),
        ({"learning_rate": math.nan}, "learning_rate must be positive, got nan"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1.0"),
        ({"warm_up_steps": -1}, "must not be negative"),
    ],
)
def test_optimiser_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        OptimiserConfig(**changes)
