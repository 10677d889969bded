import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from opendelg.datasets import town
from opendelg.errors import OpenDelgError
from opendelg.same import SameModel
from opendelg.training import calibration
from opendelg.training.calibration import LabelledPairs, calibrate, joined, log_loss
from opendelg.training.config import CalibrationConfig
from opendelg.weights import Weights, read_weights
from tests.conftest import draw_image
from tests.tar_samples import pack

Run = Callable[..., SimpleNamespace]


@pytest.fixture
def weights_file(tiny_weights: Weights, tmp_path: Path) -> Path:
    return Path(shutil.copy(tiny_weights.path, tmp_path / "copy.safetensors"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two places with two photos each, the second one a brighter copy of the first."""
    for place in range(2):
        folder = tmp_path / "photos" / f"place {place}"
        folder.mkdir(parents=True)
        pixels = draw_image((96, 64), place).pixels
        Image.fromarray(pixels).save(folder / "a.png")
        Image.fromarray(np.minimum(pixels, 235) + np.uint8(20)).save(folder / "b.png")
    return tmp_path / "photos"


def test_the_model_is_stored_with_weights_that_stay_as_they_are(
    weights_file: Path, photos: Path
) -> None:
    before = read_weights(weights_file)
    same = calibrate(weights_file, CalibrationConfig(folders=(str(photos),)))
    after = read_weights(weights_file)
    assert after.same == same
    assert {name: array.tolist() for name, array in after.state.items()} == {
        name: array.tolist() for name, array in before.state.items()
    }


def test_a_town_alone_is_enough(weights_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = partial(
        town.render_town, num_places=2, views_per_place=2, num_distractors=2, size=(96, 64)
    )
    monkeypatch.setattr(calibration, "render_town", small)
    assert isinstance(calibrate(weights_file, CalibrationConfig(towns=(3,))), SameModel)


def test_photos_of_one_place_only_are_an_error(weights_file: Path, photos: Path) -> None:
    config = CalibrationConfig(folders=(str(photos / "place 0"),))
    with pytest.raises(OpenDelgError, match="right and wrong pairs"):
        calibrate(weights_file, config)


def test_no_photos_at_all_are_an_error(weights_file: Path) -> None:
    with pytest.raises(OpenDelgError, match="right and wrong pairs"):
        calibrate(weights_file, CalibrationConfig())


def test_pairs_of_several_sets_follow_each_other() -> None:
    one = LabelledPairs(np.array([0.1]), np.array([1.0]), np.array([0.2]), np.array([True]))
    two = replace(one, similarities=np.array([0.3]), is_same=np.array([False]))
    assert joined([one, two]).similarities.tolist() == [0.1, 0.3]
    assert joined([one, two]).is_same.tolist() == [True, False]


def test_log_loss_of_a_coin_is_log_2() -> None:
    pairs = LabelledPairs(np.zeros(2), np.zeros(2), np.zeros(2), np.array([True, False]))
    assert log_loss(SameModel(0.0, 0.0, 0.0, 0.0), pairs) == pytest.approx(np.log(2))


def test_towns_have_seeds_from_0() -> None:
    with pytest.raises(ValueError, match="towns must be seeds"):
        CalibrationConfig(towns=(-1,))


def test_the_command_fits_to_photos_and_keeps_the_network(
    delg: Run, tiny_weights: Weights, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "fitted.safetensors"
    command = ("weights", "calibrate", tiny_weights.path, photos, "--out", out)
    others = tmp_path / "others"
    others.mkdir()
    Image.fromarray(draw_image((96, 64), 7).pixels).save(others / "c.png")
    done = delg(*command, "--distractors", others, "--profile", "fast", "--json")
    fitted = read_weights(out)
    assert done.json["same"] == vars(fitted.same)
    assert 0 < done.json["right_pairs"] < done.json["pairs"]
    assert fitted.training["calibrated"]["pairs"] == done.json["pairs"]
    for name, array in read_weights(tiny_weights.path).state.items():
        assert array.dtype == fitted.state[name].dtype
        np.testing.assert_array_equal(array, fitted.state[name])
    assert "fitted on" in delg(*command).out


def test_the_command_does_not_write_over_its_model(
    delg: Run, weights_file: Path, photos: Path
) -> None:
    before = weights_file.read_bytes()
    done = delg("weights", "calibrate", weights_file, photos, "--out", weights_file)
    assert (done.code, weights_file.read_bytes()) == (2, before)


def test_the_command_needs_two_places(
    delg: Run, tiny_weights: Weights, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "fitted.safetensors"
    done = delg("weights", "calibrate", tiny_weights.path, photos / "place 0", "--out", out)
    assert (done.code, out.exists()) == (1, False)
    assert "right and wrong pairs" in done.err


def test_the_command_takes_tars_and_tells_what_it_leaves_out(
    delg: Run,
    tiny_weights: Weights,
    photos: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (photos / "place 0" / "broken.png").write_text("no photo")
    (tmp_path / "cut.tar").write_bytes(b"no tar")
    tar, out = pack(tmp_path / "places.tar", photos), tmp_path / "fitted.safetensors"
    command = ("weights", "calibrate", tiny_weights.path, "--out", out, "--json")
    done = delg(*command, tar, "--distractors", tmp_path / "cut.tar")
    assert done.json["same"] == delg(*command, photos).json["same"]
    for left_out in (tar / "place 0" / "broken.png", tmp_path / "cut.tar"):
        assert f"left out: {str(left_out)!r}: " in caplog.text


def test_the_command_tries_out_before_it_works(
    delg: Run, tiny_weights: Weights, photos: Path, tmp_path: Path
) -> None:
    done = delg("weights", "calibrate", tiny_weights.path, photos, "--out", tmp_path)
    assert (done.code, "indexing" in done.err) == (1, False)
    assert "output must be a file" in done.err
