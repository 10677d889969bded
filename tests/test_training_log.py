import math
from types import SimpleNamespace

import pytest

pytest.importorskip("lightning", reason="training needs the extra 'train'")

from opendelg.errors import OpenDelgError
from opendelg.training.config import OptimiserConfig, TrainingConfig
from opendelg.training.log import Alarms, require_finite

HEALTHY = {"global": 1.0, "attention_mean": 0.7, "attention_deviation": 0.1}


def alarms_of(caplog, step, **means):
    optimiser = OptimiserConfig(warm_up_steps=50)
    config = TrainingConfig(steps=1000, global_loss_from=0.2, optimiser=optimiser)
    alarms = Alarms()
    for _ in range(2):
        alarms.check(HEALTHY | means, step, SimpleNamespace(config=config, num_classes=20))
    return caplog.text


def test_a_healthy_run_gives_no_alarm(caplog):
    assert alarms_of(caplog, 900) == ""


def test_a_global_loss_above_chance_is_told_once_after_warm_up(caplog):
    assert alarms_of(caplog, 350, **{"global": 3.1}) == ""
    text = alarms_of(caplog, 351, **{"global": 3.1})
    assert text.count("must fall below ln(classes) = 3.00 after warm-up, got 3.10 at step 351") == 1


@pytest.mark.parametrize(
    "means", [{"attention_mean": 1e-9}, {"attention_deviation": 1e-6}], ids=["zero", "constant"]
)
def test_dead_attention_is_told_once(caplog, means):
    assert alarms_of(caplog, 10, **means).count("attention must tell cells apart") == 1


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_the_error_of_a_broken_loss_names_steps_and_checkpoint(tmp_path, value):
    with pytest.raises(OpenDelgError, match=f"global {value} between steps 26 and 50; no checkp"):
        require_finite({"loss": 1.0, "global": value}, 50, 25, tmp_path)
    (tmp_path / "last.ckpt").touch()
    with pytest.raises(OpenDelgError, match=r"last checkpoint is '.*last.ckpt'"):
        require_finite({"global": value}, 50, 25, tmp_path)
