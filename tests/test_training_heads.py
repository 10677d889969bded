from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import TINY, draw_image

pytest.importorskip("lightning", reason="training needs the extra 'train'")

from opendelg.errors import OpenDelgError
from opendelg.runtime.torch_runtime import load_network
from opendelg.training import run as run_file
from opendelg.training.config import OptimiserConfig, TrainingConfig
from opendelg.training.data import DataConfig
from opendelg.training.distillation import DistillationConfig
from opendelg.training.losses import LossConfig
from opendelg.training.module import DelgTraining
from opendelg.training.photos import PhotoFolder
from opendelg.weights import read_weights

# What Lightning says of runs as small as these.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The number of training batches"),
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


@pytest.fixture
def config(tmp_path, tiny_weights):
    """Four steps from weights of a file, with every batch norm's statistics set."""
    for number in range(12):
        path = tmp_path / "photos" / f"class{number % 3}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw_image((48, 40), number % 3).pixels).save(path)
    return TrainingConfig(
        name="tiny",
        output=str(tmp_path / "run"),
        model=TINY,
        data=DataConfig((PhotoFolder(str(tmp_path / "photos")),), image_size=32),
        optimiser=OptimiserConfig(
            kind="adamw", learning_rate=0.01, weight_decay=0.1, max_gradient_norm=0.0
        ),
        start_from=str(tiny_weights.path),
        steps=4,
        batch_size=4,
        num_workers=0,
        precision="32-true",
        checkpoint_every=2,
    )


def trained(config, **changes):
    """Run, then give every tensor of the network by name, as the checkpoint has it."""
    config = replace(config, **changes)
    run_file.train(config)
    saved = torch.load(f"{config.output}/last.ckpt", weights_only=True)["state_dict"]
    return {name.removeprefix("model."): tensor for name, tensor in saved.items()}


def moved(config, state):
    """Parts of the network in which a tensor differs from the start, batch norms' included."""
    start = load_network(read_weights(Path(config.start_from))).state_dict()
    changed = [name for name, tensor in start.items() if not torch.equal(tensor, state[name])]
    return {name.removeprefix("backbone.").split(".")[0] for name in changed}


STAGES = {"conv1", "bn1", "layer1", "layer2", "layer3"}
LOCAL = {"attention", "autoencoder"}


@pytest.mark.parametrize(
    ("heads", "gradients", "expected"),
    [
        ("both", "stopped", STAGES | LOCAL | {"layer4", "whitening"}),
        ("global", "stopped", STAGES | {"layer4", "whitening"}),
        ("local", "stopped", LOCAL),
        ("local", "attention", STAGES | LOCAL),
        ("local", "all", STAGES | LOCAL),
    ],
)
def test_what_has_no_loss_stays_bit_for_bit(config, heads, gradients, expected):
    loss = LossConfig(local_gradients=gradients)
    assert moved(config, trained(config, heads=heads, loss=loss)) == expected


@pytest.mark.parametrize("heads", ["both", "global", "local"])
def test_each_run_logs_the_losses_of_its_heads(config, tmp_path, heads):
    trained(config, heads=heads, log_every=4)
    log = (tmp_path / "run" / "log.jsonl").read_text()
    assert ('"global"' in log, '"reconstruction"' in log) == (heads != "local", heads != "global")


def test_beside_stopped_gradients_the_global_part_learns_as_if_alone(config, tmp_path):
    both = trained(config)
    alone = trained(config, heads="global", output=str(tmp_path / "alone"))
    names = [name for name in alone if name.startswith(("backbone.", "whitening."))]
    assert len(names) > 60
    assert all(torch.equal(both[name], alone[name]) for name in names)


@pytest.mark.parametrize("gradients", ["attention", "all"])
def test_gradients_that_are_not_stopped_change_the_backbone(config, tmp_path, gradients):
    stopped = trained(config)["backbone.conv1.weight"]
    loss = LossConfig(local_gradients=gradients)
    reached = trained(config, loss=loss, output=str(tmp_path / "reached"))
    assert not torch.allclose(stopped, reached["backbone.conv1.weight"], atol=1e-4)


def test_a_frozen_part_goes_into_the_weights_file_as_it_came(config):
    start = read_weights(Path(config.start_from))
    weights = read_weights(run_file.train(replace(config, heads="local")))
    names = [name for name in start.state if name.startswith(("backbone.", "whitening."))]
    assert all(np.array_equal(weights.state[name], start.state[name]) for name in names)
    assert weights.score_threshold > 0


def test_without_a_local_head_every_cell_is_kept(config):
    assert read_weights(run_file.train(replace(config, heads="global"))).score_threshold == 0


def test_a_frozen_run_goes_the_way_of_one_that_was_not_stopped(config, tmp_path, monkeypatch):
    whole = trained(config, heads="local", output=str(tmp_path / "whole"))
    step = DelgTraining.training_step

    def stopped(self, batch, batch_index):
        if self.global_step == 3:
            raise KeyboardInterrupt
        return step(self, batch, batch_index)

    with monkeypatch.context() as stopping:
        stopping.setattr(DelgTraining, "training_step", stopped)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            trained(config, heads="local")
    resumed = trained(config, heads="local")
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())


def test_a_resumed_run_does_without_the_weights_it_started_from(config):
    first = trained(config)
    again = trained(config, start_from="none.safetensors")
    assert all(torch.equal(again[name], tensor) for name, tensor in first.items())


def test_weights_to_start_from_lie_below_the_root(config, tiny_weights):
    path = tiny_weights.path
    config = replace(config, start_from=path.name, heads="local")
    assert run_file.train(config, root=path.parent).is_file()


def test_weights_to_start_from_must_be_there(config):
    with pytest.raises(FileNotFoundError, match="weights must be a file"):
        run_file.train(replace(config, start_from="none.safetensors"))


def test_weights_to_start_from_must_be_of_the_same_network(config):
    model = replace(TINY, num_local_dimensions=4)
    with pytest.raises(OpenDelgError, match="start_from must have the model settings of the run"):
        run_file.train(replace(config, model=model))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"heads": "local", "distillation": DistillationConfig(hint_teacher="a.npz")},
            "distillation must be absent where only the local head learns",
        ),
        (
            {"heads": "global", "global_loss_from": 0.5},
            "global_loss_from must be 0 where nothing but the global loss counts",
        ),
    ],
)
def test_heads_without_a_loss_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**changes)


class Threads:
    """A dataset whose items say how many threads OpenCV has."""

    def __len__(self):
        return 4

    def __getitem__(self, position):
        return (torch.tensor(cv2.getNumThreads()),)


def test_a_loaders_process_has_one_opencv_thread(config):
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    try:
        loader = run_file._loader(replace(config, num_workers=1, steps=1), Threads(), 0)
        ((threads, _numbers),) = loader
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)
    assert threads.tolist() == [1] * 4
