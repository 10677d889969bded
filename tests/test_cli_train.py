import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from opendelg.cli.app import app
from opendelg.errors import FormatError, OpenDelgError

pytest.importorskip("lightning", reason="training needs the extra 'train'")
CONFIGS = Path(__file__).parent.parent / "configs"
STARTER = CONFIGS / "starter.yaml"


@pytest.fixture
def runs(monkeypatch):
    """The settings and roots of runs that were asked for; none takes place."""
    asked = []

    def train(config, root):
        asked.append((config, root))
        print("progress")
        return Path(config.output) / "x.safetensors"

    monkeypatch.setattr("opendelg.training.run.train", train)
    return asked


def call(*arguments):
    return CliRunner().invoke(app, ["train", *map(str, arguments)], catch_exceptions=True)


def test_the_starter_config_is_valid(runs):
    assert call(STARTER).exit_code == 0
    assert (runs[0][0].name, runs[0][1]) == ("starter", Path())


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_is_valid(runs, path):
    result = call(path)
    assert (result.exit_code, len(runs)) == (0, 1), result.exception


def test_the_open_codes_values_are_what_spec_says(runs):
    call(CONFIGS / "open_code.yaml")
    config, _ = runs[0]
    assert (config.steps, config.batch_size, config.optimiser.learning_rate) == (500_000, 32, 0.01)
    assert (config.data.image_size, config.loss.is_scale_trainable) == (321, False)
    assert config.data.folders[0].list == "train_clean.csv"


def test_overrides_reach_nested_settings(runs):
    call(STARTER, "steps=7", "optimiser.learning_rate=1e-3", "model.units=[1, 1, 1, 1]")
    config, _ = runs[0]
    assert (config.steps, config.optimiser.learning_rate) == (7, 1e-3)
    assert (config.model.units, config.model.block) == ((1, 1, 1, 1), "basic")


def test_overrides_make_sections_that_the_file_lacks(runs, tmp_path):
    (tmp_path / "a.yaml").write_text("name: a\ndata:\n")
    call(tmp_path / "a.yaml", "data.image_size=64", "calibration.folders=[x]", "--root", tmp_path)
    config, root = runs[0]
    assert (config.data.image_size, config.calibration.folders, root) == (64, ("x",), tmp_path)


def test_stdout_has_the_weights_and_stderr_the_progress(runs):
    result = call(STARTER, "output=out")
    assert result.stdout == "out/x.safetensors\n"
    assert "progress" in result.stderr


def test_json_is_one_object(runs):
    assert json.loads(call(STARTER, "output=out", "--json").stdout) == {
        "weights": "out/x.safetensors"
    }


@pytest.mark.parametrize("override", ["steps", "=3", ".steps=3", "steps=[", "steps.x=3"])
def test_overrides_that_cannot_be_read_are_usage_errors(runs, override):
    assert call(STARTER, override).exit_code == 2
    assert runs == []


def test_an_unknown_setting_is_an_error_that_offers_the_nearest(runs):
    result = call(STARTER, "optimiser.learning_rat=1")
    assert isinstance(result.exception, FormatError)
    assert "did you mean 'learning_rate'" in str(result.exception)


def test_a_config_that_is_no_yaml_is_an_error(runs, tmp_path):
    (tmp_path / "a.yaml").write_text("a: [")
    error = call(tmp_path / "a.yaml").exception
    assert isinstance(error, FormatError)
    assert "config must be YAML" in str(error)


def test_an_absent_config_is_an_error(runs, tmp_path):
    assert isinstance(call(tmp_path / "none.yaml").exception, FileNotFoundError)


def test_without_lightning_the_extra_is_named(monkeypatch):
    monkeypatch.delitem(sys.modules, "opendelg.training.run", raising=False)
    monkeypatch.setitem(sys.modules, "lightning", None)
    error = call(STARTER).exception
    assert isinstance(error, OpenDelgError)
    assert "pip install 'opendelg[train]'" in str(error)
