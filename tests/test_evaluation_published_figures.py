import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from opendelg.evaluation.benchmarks import NEEDS
from opendelg.evaluation.published_figures import (
    compare_figures,
    read_published_figures,
    why_not_compared,
)
from opendelg.evaluation.runs import Run
from opendelg.extraction import ExtractionConfig, profile
from opendelg.settings import settings_as_dict
from opendelg.weights import PUBLISHED, Weights, published_as

# As in the source: ROxf-M, +1M, RPar-M, +1M, ROxf-H, +1M, RPar-H, +1M.
TABLE = {
    ("r50-gld", "global"): "69.7 55.0 81.6 59.7 45.1 27.8 63.4 34.1",
    ("r50-gldv2clean", "global"): "73.6 60.6 85.7 68.6 51.0 32.7 71.5 44.4",
    ("r101-gld", "global"): "73.2 54.8 82.4 61.8 51.2 30.3 64.7 35.5",
    ("r101-gldv2clean", "global"): "76.3 63.7 86.6 70.6 55.6 37.5 72.4 46.9",
    ("r50-gld", "official"): "75.1 61.1 82.3 60.5 54.2 36.8 64.9 34.8",
    ("r50-gldv2clean", "official"): "78.3 67.2 85.7 69.6 57.9 43.6 71.0 45.7",
    ("r101-gld", "official"): "78.5 62.7 82.9 62.6 59.3 39.3 65.5 37.0",
    ("r101-gldv2clean", "official"): "81.2 69.1 87.2 71.5 64.0 47.5 72.8 48.7",
}
COLUMNS = [
    (dataset, level)
    for level in ("medium", "hard")
    for dataset in ("roxford5k", "roxford5k+r1m", "rparis6k", "rparis6k+r1m")
]


@pytest.fixture
def weights(tiny_weights: Weights) -> Callable[..., Weights]:
    """Tiny weights that say they were imported from a release."""

    def make(release: str = "r50delg_gldv2clean_20200914", threshold: float = 454.6) -> Weights:
        training = {"imported_from": release, "format": "saved model"}
        return replace(tiny_weights, training=training, score_threshold=threshold)

    return make


def make_run(*notes: str, **about: Any) -> Run:
    plain = json.loads(json.dumps(settings_as_dict(ExtractionConfig())))  # as it is read back
    made = {"extraction": plain} | about
    return Run("roxford5k", (), {}, 0, {}, {}, made, notes)


FIGURES = {
    "global medium": {"mAP": 0.74, "mP@1": 0.9},
    "verified medium": {"mAP": 0.8, "mP@1": 0.95},
}


@pytest.mark.parametrize(("model", "stage"), TABLE, ids=" ".join)
def test_figures_are_those_of_the_source(model: str, stage: str) -> None:
    found = {
        (f.dataset, f.stage.removeprefix(f"{stage} ")): f.value
        for f in read_published_figures()
        if (f.model, f.measure) == (model, "mAP") and f.stage.startswith(stage)
    }
    expected = [round(float(text) / 100, 6) for text in TABLE[model, stage].split()]
    assert [found[column] for column in COLUMNS] == expected
    assert len(found) == 8


def test_the_official_run_has_16_figures() -> None:
    own = [f for f in read_published_figures() if f.model == "r50-gld-20200520"]
    values = {(f.stage, f.measure): f.value for f in own}
    assert values["global hard", "mP@10"] == 0.6014
    assert values["official medium", "mAP"] == 0.7542
    assert len(values) == len(own) == 16


def test_every_figure_has_a_model_a_benchmark_and_a_source() -> None:
    figures = read_published_figures()
    assert len(figures) == len({(f.dataset, f.stage, f.measure, f.model) for f in figures}) == 80
    assert {f.model for f in figures} <= PUBLISHED.keys()
    assert {f.dataset for f in figures} <= NEEDS.keys()
    assert all(", https://" in f.source for f in figures)


def test_weights_are_known_by_release_and_threshold(
    weights: Callable[..., Weights], tiny_weights: Weights
) -> None:
    assert published_as(weights()) == "r50-gldv2clean"
    assert published_as(weights("r101delg_gld_20200814", 166.1)) == "r101-gld"
    assert published_as(weights(threshold=175.0)) is None
    assert published_as(weights("mine")) is None
    assert published_as(weights("")) is None
    assert published_as(tiny_weights) is None


def test_a_checkpoint_in_a_folder_of_that_name_is_not_published(
    weights: Callable[..., Weights],
) -> None:
    made = weights()
    assert published_as(replace(made, training=made.training | {"format": "checkpoint"})) is None


def test_the_difference_is_ours_less_the_published(weights: Callable[..., Weights]) -> None:
    rows = compare_figures("roxford5k", make_run(), FIGURES, weights())
    assert [(row.stage, row.measure) for row in rows] == [
        ("global medium", "mAP"),
        ("verified medium", "mAP"),
    ]
    assert list(rows[0].published) == ["r50-gldv2clean"]
    assert rows[0].difference == pytest.approx(0.74 - 0.736, abs=1e-12)
    assert (rows[1].published, rows[1].difference) == ({}, None)


def test_other_weights_see_all_models_and_no_difference(tiny_weights: Weights) -> None:
    rows = compare_figures("roxford5k", make_run(), FIGURES, tiny_weights)
    assert [(row.stage, row.measure, len(row.published)) for row in rows] == [
        ("global medium", "mAP", 5),
        ("global medium", "mP@1", 1),
        ("verified medium", "mAP", 0),
    ]
    assert {row.difference for row in rows} == {None}


def test_figures_of_all_sets_of_queries_are_main_ones(tiny_weights: Weights) -> None:
    figures = {"global": {"GAP Public": 0.1, "GAP Private": 0.2, "accuracy Public": 0.3}}
    rows = compare_figures("gldv2-recognition", make_run(), figures, tiny_weights)
    assert [row.measure for row in rows] == ["GAP Public", "GAP Private"]


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        pytest.param(
            make_run(extraction=settings_as_dict(profile("balanced"))),
            "the settings are not those of the profile paper",
            id="settings",
        ),
        pytest.param(
            make_run("SUBSET: 1 of 2 queries: not comparable with published figures", "25 m"),
            "SUBSET: 1 of 2 queries: not comparable with published figures",
            id="subset",
        ),
        pytest.param(
            make_run("NOT COMPARABLE: queries are whole photos"),
            "NOT COMPARABLE: queries are whole photos",
            id="whole photos",
        ),
    ],
)
def test_another_experiment_has_no_difference(
    run: Run, reason: str, weights: Callable[..., Weights]
) -> None:
    assert why_not_compared(run, weights()) == [reason]
    rows = compare_figures("roxford5k", run, FIGURES, weights())
    assert {row.difference for row in rows} == {None}
