from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from opendelg.budget import feature_bytes, within_budget
from opendelg.errors import OpenDelgError
from opendelg.extraction import ExtractionConfig, profile
from opendelg.weights import Weights

Run = Callable[..., SimpleNamespace]
BALANCED = profile("balanced")  # int8, 1000 keypoints


@pytest.mark.parametrize(
    ("num_bytes", "precision", "keypoints"),
    [
        pytest.param(10**6, "int8", 1000, id="no finer than it was"),
        pytest.param(2048 + 20 + 148_000, "int8", 1000, id="just enough"),
        pytest.param(2048 + 20 + 147_999, "pq", 1000, id="a byte too few"),
        pytest.param(2048 + 52 + 40_000, "pq", 1000, id="just enough for pq"),
        pytest.param(2048 + 52 + 39_999, "1bit", 1000, id="a byte too few for pq"),
        pytest.param(2048 + 52 + 23_999, "1bit", 999, id="one keypoint fewer"),
        pytest.param(2048 + 52 + 1200, "1bit", 50, id="the least"),
    ],
)
def test_the_finest_that_fits_is_taken(num_bytes: int, precision: str, keypoints: int) -> None:
    chosen = within_budget(BALANCED, num_bytes, 512, 128)
    assert chosen == replace(BALANCED, precision=precision, max_keypoints=keypoints)
    assert feature_bytes(chosen, 512, 128) <= num_bytes


@pytest.mark.parametrize("num_bytes", [4000, 30_000, 50_000, 200_000])
def test_a_budget_that_is_met_changes_nothing(num_bytes: int) -> None:
    once = within_budget(ExtractionConfig(), num_bytes, 512, 128)
    assert within_budget(once, num_bytes, 512, 128) == once


def test_descriptors_that_pq_cannot_divide_go_on_to_one_bit() -> None:
    assert within_budget(BALANCED, 30_000, 16, 30).precision == "1bit"


def test_too_small_a_budget_is_an_error() -> None:
    with pytest.raises(OpenDelgError, match=r"bytes_per_image must be at least 3300 .*got 3299"):
        within_budget(BALANCED, 3299, 512, 128)


def test_without_local_features_the_global_descriptor_is_all() -> None:
    config = replace(BALANCED, max_keypoints=0)
    assert within_budget(config, 3000, 512, 128) == config


def test_index_keeps_what_the_options_say(
    delg: Run, tiny_weights: Weights, drawn_files: list[Path], tmp_path: Path
) -> None:
    options = ("--model", tiny_weights.path, "--profile", "fast", "--bytes-per-image", 1000)
    command = ("index", drawn_files[0].parent, "-c", tmp_path / "c", *options)
    assert delg(*command).code == 0
    info = delg("info", tmp_path / "c", "--json").json
    assert (info["precision"], info["extraction"]["max_keypoints"]) == ("1bit", 98)
    assert delg(*command, "--update").code == 0  # the same settings again
    assert delg("index", drawn_files[0].parent, "-c", tmp_path / "c").code == 0
    refused = delg("index", drawn_files[0].parent, "-c", tmp_path / "c", "--features", "int8")
    assert (refused.code, "extraction.precision 'int8' instead of '1bit'" in refused.err) == (
        1,
        True,
    )


def test_index_takes_precision_and_keypoints(
    delg: Run, tiny_weights: Weights, drawn_files: list[Path], tmp_path: Path
) -> None:
    options = ("--model", tiny_weights.path, "--features", "float16", "--keypoints", 7)
    assert delg("index", *drawn_files, "-c", tmp_path / "c", *options).code == 0
    info = delg("info", tmp_path / "c", "--json").json
    assert (info["precision"], info["num_local"]) == ("float16", 6 * 7)
