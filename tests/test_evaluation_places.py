import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from opendelg.collection import Collection
from opendelg.datasets.places import PlacesDataset, PlacesOptions, read_places, write_submission
from opendelg.errors import OpenDelgError
from opendelg.evaluation import places
from opendelg.evaluation.groups import index_whole
from opendelg.evaluation.places import (
    evaluate_places,
    measure_places,
    one_per_panorama,
    plan_places,
    report_places,
    submitted_rankings,
)
from opendelg.evaluation.ranking import Ranking
from opendelg.evaluation.runs import Run, read_run, write_run
from opendelg.evaluation.scoring import report
from opendelg.extraction import ExtractionConfig, Extractor
from opendelg.recipes import recipe_of
from opendelg.runtime import Runtime
from opendelg.search import SearchConfig
from opendelg.weights import Weights
from tests.place_samples import DATABASE, dbstruct, msls_city, save, utm_folder, utm_name

Delg = Callable[..., SimpleNamespace]


def ids(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def made_up_run(rankings: list[np.ndarray], positives: list[np.ndarray], size: int) -> Run:
    return Run(
        protocol="places",
        queries=tuple(f"q{number}" for number in range(len(rankings))),
        names={number: str(number) for number in range(size)},
        num_database=size,
        truth={"positives": tuple(positives)},
        stages={"global": tuple(Ranking.whole(r, np.zeros(len(r), "f4")) for r in rankings)},
        about={"dataset": {"name": "utm", "near": "25 m"}},
    )


@pytest.mark.parametrize("seed", range(30))
def test_recall_equals_a_plain_restatement(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 60))
    rankings = [rng.permutation(size)[: rng.integers(0, size + 1)] for _ in range(10)]
    positives = [rng.permutation(size)[: rng.integers(0, min(4, size))] for _ in range(10)]
    figures = report_places(made_up_run(rankings, positives, size)).figures["global"]
    for k in (1, 5, 10, 20):
        hits = [
            any(found in right.tolist() for found in ranking.tolist()[:k])
            for ranking, right in zip(rankings, positives, strict=True)
        ]
        assert figures[f"R@{k}"] == pytest.approx(sum(hits) / len(hits), abs=1e-12)


def test_a_query_without_positives_is_a_failure() -> None:
    run = made_up_run([ids(0), ids(0)], [ids(0), ids()], 1)
    assert measure_places(run)["global"]["R@1"].tolist() == [1.0, 0.0]
    assert report_places(run).figures["global"]["R@20"] == 0.5


def test_a_ranking_keeps_the_first_of_each_panorama() -> None:
    ranking = Ranking.whole(ids(5, 3, 4, 0, 1), np.float32([0.9, 0.8, 0.7, 0.6, 0.5]))
    found = one_per_panorama(ranking, ids(0, 0, 0, 1, 1, 1), 2)
    assert (found.ids.tolist(), found.positions.tolist()) == ([5, 0], [0, 1])
    np.testing.assert_array_equal(found.similarities, np.float32([0.9, 0.6]))
    assert one_per_panorama(ranking, ids(0, 0, 0, 1, 1, 1), 1).ids.tolist() == [5]


@pytest.fixture
def extractor(tiny_weights: Weights, tiny_runtime: Runtime) -> Extractor:
    config = ExtractionConfig(scales=(1.0,), global_scales=(1.0,), min_size=128)
    return Extractor(tiny_weights, config, tiny_runtime)


@pytest.fixture
def evaluated(tmp_path: Path, extractor: Extractor) -> Callable[..., Run]:
    """Extract a dataset into a new collection and evaluate it."""

    def evaluate(dataset: PlacesDataset, **settings: Any) -> Run:
        with Collection.create(tmp_path / "c.delg", recipe_of(extractor)) as collection:
            index_whole(collection, extractor, plan_places(dataset, collection))
            return evaluate_places(dataset, collection, extractor, SearchConfig(**settings))

    return evaluate


def test_a_copy_of_a_photo_is_found_first(tmp_path: Path, evaluated: Callable[..., Run]) -> None:
    run = evaluated(read_places(utm_folder(tmp_path / "d"), PlacesOptions()), rerank=3)
    figures = report_places(run).figures
    assert figures == dict.fromkeys(("global", "verified"), figures["global"])
    assert figures["global"]["R@1"] == 1.0
    assert [ranking.ids[0] for ranking in run.stages["verified"]] == [0, 1, 2, 3, 4]
    assert run.stages["verified"][0].num_inliers[0] >= 4


def test_a_run_is_scored_again_without_images(
    tmp_path: Path, evaluated: Callable[..., Run]
) -> None:
    run = evaluated(read_places(utm_folder(tmp_path / "d"), PlacesOptions()))
    write_run(tmp_path / "run.zip", run)
    assert report(read_run(tmp_path / "run.zip")) == report_places(run)
    assert run.about["dataset"]["near"] == "25 m"


def test_blocks_give_the_ranking_of_the_whole(
    tmp_path: Path, evaluated: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "_QUERIES_AT_ONCE", 2)
    monkeypatch.setattr(places, "_DATABASE_AT_ONCE", 2)
    dataset = read_places(utm_folder(tmp_path / "d"), PlacesOptions())
    run = evaluated(dataset, rerank=0)
    assert list(run.stages) == ["global"]
    with Collection.open(tmp_path / "c.delg", read_only=True) as collection:
        rows = {
            path.name: collection.global_descriptor(collection.find(path) or 0)
            for path in [*map(dataset.database_path, range(5)), *map(dataset.query_path, range(5))]
        }
    database = np.stack([rows[Path(name).name] for name in dataset.database.names])
    for name, ranking in zip(dataset.queries.names, run.stages["global"], strict=True):
        similarities = database @ rows[Path(name).name]
        np.testing.assert_allclose(ranking.similarities, similarities[ranking.ids], atol=1e-6)
        assert ranking.ids.tolist() == np.argsort(-similarities, kind="stable").tolist()


def test_only_the_first_images_of_a_ranking_are_kept(
    tmp_path: Path, evaluated: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "KEPT", 3)
    run = evaluated(read_places(utm_folder(tmp_path / "d"), PlacesOptions()), rerank=2)
    assert [len(ranking) for ranking in run.stages["verified"]] == [3] * 5


def test_a_panorama_counts_once(tmp_path: Path, evaluated: Callable[..., Run]) -> None:
    utm_folder(tmp_path / "d")
    # Three more views of the first place, as similar to its query as can be.
    for seed, pano in enumerate(["p0", "p0", "p0"]):
        name = utm_name(500_000 + seed / 10, 4_000_001, "17", "T", "", "", pano)
        save(tmp_path / "d/database" / name, 0)
    options = PlacesOptions(one_per_panorama=True)
    run = evaluated(read_places(tmp_path / "d", options))
    assert [len(ranking) for ranking in run.stages["global"]] == [5] * 5
    assert report_places(run).figures["global"]["R@1"] == 1.0


def test_the_collection_must_hold_every_image(tmp_path: Path, extractor: Extractor) -> None:
    dataset = read_places(utm_folder(tmp_path / "d"), PlacesOptions())
    with (
        Collection.create(tmp_path / "c.delg", recipe_of(extractor)) as collection,
        pytest.raises(OpenDelgError, match="collection must hold every image"),
    ):
        evaluate_places(dataset, collection, extractor)


def test_a_submission_has_one_line_per_query(tmp_path: Path) -> None:
    database = [f"d{number}" for number in range(40)]
    rankings = [np.arange(40), np.arange(40)[::-1]]
    write_submission(tmp_path / "p.csv", ["q0", "q1"], database, rankings)
    found = np.loadtxt(tmp_path / "p.csv", ndmin=2, dtype=str)  # how the official code reads it
    assert found.shape == (2, 26)
    assert found[:, :3].tolist() == [["q0", "d0", "d1"], ["q1", "d39", "d38"]]
    write_submission(tmp_path / "p.zip", ["q0", "q1"], database, rankings)
    with zipfile.ZipFile(tmp_path / "p.zip") as file:
        assert file.namelist() == ["p.csv"]
        assert file.read("p.csv") == (tmp_path / "p.csv").read_bytes()


def test_lines_of_a_submission_are_of_one_length(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be of one length"):
        write_submission(tmp_path / "p.csv", ["a", "b"], ["x", "y"], [ids(0), ids(0, 1)])
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def evaluate(delg: Delg, tiny_weights: Weights) -> Delg:
    """Run ``delg evaluate places`` with the tiny network."""

    def run(*arguments: object) -> SimpleNamespace:
        fixed = ["--model", tiny_weights.path, "--device", "cpu", "--threads", 1]
        return delg("evaluate", "places", *arguments, *fixed)

    return run


def test_the_command_prints_recall_and_the_rules(tmp_path: Path, evaluate: Delg) -> None:
    found = evaluate(utm_folder(tmp_path / "d"), "--rerank", 2)
    lines = found.out.splitlines()
    assert (found.code, lines[0]) == (0, "utm: 5 queries, 5 database images")
    assert lines[1].split() == ["stage", "R@1", "R@5", "R@10", "R@20"]
    assert lines[2].split() == ["global", *["100.00"] * 4]
    assert lines[4] == "note: a database image within 25 m of a query is right"
    assert "utm: 5 database images and 5 queries in" in found.err


def test_figures_are_the_same_from_a_kept_collection_and_a_saved_run(
    tmp_path: Path, evaluate: Delg, delg: Delg
) -> None:
    folder = dbstruct(tmp_path / "d")
    kept = ["--collection", tmp_path / "c.delg", "--json"]
    first = evaluate(folder, *kept, "--save-run", tmp_path / "run.zip").json
    assert first["dataset"] == "pitts30k"
    assert first["verified"]["recall_at"] == {"1": 1.0, "5": 1.0, "10": 1.0, "20": 1.0}
    assert evaluate(folder, *kept).json == first
    assert delg("evaluate", "rescore", tmp_path / "run.zip", "--json").json == first


def test_the_paper_s_verification_can_be_chosen(tmp_path: Path, evaluate: Delg) -> None:
    folder = utm_folder(tmp_path / "d")
    saved = tmp_path / "run.zip"
    assert evaluate(folder, "--verification", "paper", "--save-run", saved).code == 0
    assert read_run(saved).about["search"]["verification"]["mode"] == "paper"


def test_the_challenge_writes_predictions_and_no_figures(tmp_path: Path, evaluate: Delg) -> None:
    folder = msls_city(tmp_path / "d", "miami", "test")
    arguments = [folder, "--dataset", "msls-challenge", "--cities", "miami"]
    found = evaluate(*arguments, "--submission", tmp_path / "p.csv")
    assert (found.code, found.out.splitlines()) == (
        0,
        [
            "msls-challenge: 7 queries, 7 database images",
            "note: these cities have no ground truth here: no figures",
        ],
    )
    predictions = np.loadtxt(tmp_path / "p.csv", ndmin=2, dtype=str)
    assert predictions[:, 0].tolist() == [f"miami-q{number}" for number in range(7)]
    assert predictions[:, 1].tolist() == [f"miami-d{number}" for number in range(7)]
    assert predictions.shape == (7, 8)
    assert "must have its predictions written" in evaluate(*arguments).err


def test_predictions_for_the_validation_cities_come_with_figures(
    tmp_path: Path, evaluate: Delg
) -> None:
    folder = msls_city(tmp_path / "d", "cph")
    found = evaluate(folder, "--cities", "cph", "--submission", tmp_path / "p.csv", "--json")
    assert found.json["global"]["recall_at"]["1"] == 1.0
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--submission", "p.csv"], "submission must be of MSLS, got the dataset 'utm'"),
        (["--cities", "cph"], "must fit the dataset 'utm', got cities"),
        (["--csv", "none.csv"], "No such file or directory: none.csv"),
        (["--radius", "inf"], "radius must be between"),
    ],
)
def test_what_a_user_can_fix_is_one_line(
    tmp_path: Path, evaluate: Delg, arguments: list[str], message: str
) -> None:
    found = evaluate(utm_folder(tmp_path / "d"), *arguments)
    assert found.code == 1
    assert message in found.err.splitlines()[-1]


def test_a_photo_that_cannot_be_read_is_an_error_that_names_it(
    tmp_path: Path, evaluate: Delg
) -> None:
    folder = utm_folder(tmp_path / "d")
    (folder / "database" / utm_name(*DATABASE[0], "17", "T", "", "", "p0")).write_bytes(b"no photo")
    found = evaluate(folder)
    assert found.code == 1
    assert "every image must be readable, got 1 that are not" in found.err


def test_predictions_are_of_the_last_stage() -> None:
    run = made_up_run([np.arange(30)], [ids(0)], 30)
    verified = Ranking.whole(np.arange(30)[::-1], np.zeros(30, "f4"))
    both = Run(**{**vars(run), "stages": {**run.stages, "verified": (verified,)}})
    assert submitted_rankings(run)[0].tolist() == list(range(25))
    assert submitted_rankings(both)[0].tolist() == list(range(29, 4, -1))
