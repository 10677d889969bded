import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from tests.conftest import TINY, draw_image

pytest.importorskip("lightning", reason="training needs the extra 'train'")

from opendelg.errors import OpenDelgError
from opendelg.settings import settings_as_dict
from opendelg.training.batch_norm import synchronise_batch_norms
from opendelg.training.config import OptimiserConfig, TrainingConfig
from opendelg.training.data import DataConfig
from opendelg.training.photos import PhotoFolder
from opendelg.training.processes import run_in_processes

QUIET = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A run on three classes of four photos."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(12):
        path = folder / f"class{number % 3}" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(draw_image((48, 40), number % 3).pixels).save(path)
    return TrainingConfig(
        name="tiny",
        model=TINY,
        data=DataConfig((PhotoFolder(str(folder)),), image_size=32),
        optimiser=OptimiserConfig(learning_rate=0.01),
        steps=10,
        batch_size=8,
        num_workers=0,
        precision="32-true",
        checkpoint_every=2,
        log_every=1,
    )


def command(config, *launcher):
    folder = os.path.dirname(config.output)
    file = f"{folder}/config.yaml"
    with open(file, "w") as stream:
        yaml.safe_dump(settings_as_dict(config), stream)
    return [sys.executable, *(launcher or ("-m", "opendelg")), "train", file]


def run(config, *launcher):
    done = subprocess.run(command(config, *launcher), env=QUIET, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def losses_of(config):
    with open(f"{config.output}/log.jsonl") as file:
        entries = [json.loads(line) for line in file]
    names = ("global", "attention", "reconstruction", "gradient_norm", "attention_mean")
    return np.array([[entry[name] for name in names] for entry in entries])


@pytest.fixture(scope="module")
def single(config, tmp_path_factory):
    """The run in one process, done."""
    config = replace(config, output=str(tmp_path_factory.mktemp("single") / "run"))
    run(config)
    return config


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "opendelg")


@pytest.mark.parametrize(
    ("changes", "launcher"),
    [
        pytest.param({"devices": 2}, (), id="devices"),
        pytest.param({"data.views_on": "device"}, TORCHRUN, id="torchrun"),
    ],
)
def test_two_processes_learn_what_one_does(single, tmp_path, changes, launcher):
    expected = single
    if "devices" not in changes:
        data = replace(single.data, views_on="device")
        expected = replace(single, data=data, output=str(tmp_path / "one"))
        run(expected)
    config = replace(expected, output=str(tmp_path / "two"), devices=changes.get("devices", 1))
    done = run(config, *launcher)
    assert "step 10 of 10" in done.stderr
    assert len(losses_of(config)) == 10
    np.testing.assert_allclose(losses_of(config), losses_of(expected), rtol=2e-3, atol=1e-4)


def test_a_killed_run_goes_on_to_the_same_weights(single, tmp_path):
    config = replace(single, output=str(tmp_path / "run"), num_workers=1)
    code = (
        "import os, signal, sys\n"
        "from opendelg.cli import main\n"
        "from opendelg.training.module import DelgTraining\n"
        "step = DelgTraining.training_step\n"
        "def killed(self, batch, index):\n"
        "    if self.global_step == 7:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return step(self, batch, index)\n"
        "DelgTraining.training_step = killed\n"
        "main()\n"
    )
    killed = subprocess.run(command(config, "-c", code), env=QUIET, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    run(config)
    actual, expected = (
        torch.load(f"{run.output}/last.ckpt", weights_only=True)["state_dict"]
        for run in (config, single)
    )
    assert all(torch.equal(actual[name], expected[name]) for name in expected)
    np.testing.assert_array_equal(losses_of(config), losses_of(single))


def _fail(text):
    raise OpenDelgError(text)


def test_an_error_of_a_process_is_that_of_the_run():
    with pytest.raises(OpenDelgError, match=r"^name must fit, got none$"):
        run_in_processes(1, _fail, "name must fit, got none")


def _compare_batch_norms():
    """In each of two processes: half a batch through a synchronised norm, against the whole."""
    number = int(os.environ["RANK"])
    torch.distributed.init_process_group("gloo")
    maps = torch.randn(4, 3, 5, 6, generator=torch.Generator().manual_seed(0)) * 2 + 1
    plain, synced = torch.nn.BatchNorm2d(3), torch.nn.BatchNorm2d(3)
    synchronise_batch_norms(synced, on_gpu=False)
    whole, half = maps.clone().requires_grad_(), maps.clone().requires_grad_()
    mine = slice(2 * number, 2 * number + 2)
    (plain(whole) ** 3).sum().backward()
    output = synced(half[mine])
    (output**3).sum().backward()
    torch.testing.assert_close(output, plain.train()(maps)[mine])
    torch.testing.assert_close(half.grad[mine], whole.grad[mine], rtol=1e-3, atol=1e-4)
    plain.reset_running_stats()
    plain(maps)
    assert synced.state_dict().keys() == plain.state_dict().keys()
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(synced.state_dict()[name], tensor)
    torch.distributed.destroy_process_group()


def test_synchronised_batch_norms_see_the_whole_batch():
    run_in_processes(2, _compare_batch_norms)
