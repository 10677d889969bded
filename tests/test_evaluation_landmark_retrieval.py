import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from opendelg.errors import OpenDelgError
from opendelg.evaluation import kept_local, landmark_search
from opendelg.evaluation.comparison import Side, compare_stages
from opendelg.evaluation.failures import find_failures
from opendelg.evaluation.landmark_data import open_retrieval
from opendelg.evaluation.landmark_retrieval import report_landmark_retrieval
from opendelg.evaluation.ranking import Ranking
from opendelg.evaluation.runs import Run, read_run
from opendelg.evaluation.verified import reranked
from opendelg.verification import VerificationSettings
from opendelg.weights import Weights
from tests.gldv2_samples import image_id, make_gldv2
from tests.landmark_samples import member_name

Delg = Callable[..., SimpleNamespace]
INDEX = [image_id("index", number) for number in range(12)]
TEST = [image_id("test", number) for number in range(7)]
# Kills itself when a phase of the work has told its progress so many times.
KILLED = """
import os, signal, sys
from contextlib import contextmanager
from functools import partial
from opendelg.cli import evaluate_landmarks, main
from opendelg.evaluation import kept_local, landmark_search

phase, count = sys.argv.pop(1), int(sys.argv.pop(1))
done = []

@contextmanager
def progress(title, total):
    def advance(_):
        done.append(title)
        if done.count(phase) == count:
            os.kill(os.getpid(), signal.SIGKILL)
    yield advance

landmark_search.fill_shards = partial(landmark_search.fill_shards, shard_seconds=0.0)
landmark_search.VERIFIED_PAIRS = 1
kept_local.COMMIT_IMAGES = 1
evaluate_landmarks.progress = progress
main()
"""


def ids(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


@pytest.fixture
def fixed(tiny_weights: Weights) -> list[object]:
    return ["--model", tiny_weights.path, "--device", "cpu", "--threads", 1]


@pytest.fixture
def evaluate(delg: Delg, fixed: list[object]) -> Delg:
    """Run ``delg evaluate gldv2-retrieval`` with the tiny network."""

    def run(*arguments: object) -> SimpleNamespace:
        return delg("evaluate", "gldv2-retrieval", *arguments, *fixed)

    return run


# Figures.


def made_up_run(rankings: list[np.ndarray], positives: list[np.ndarray], usages: list[int]) -> Run:
    return Run(
        protocol="gldv2-retrieval",
        queries=tuple(f"test/{number}.jpg" for number in range(len(rankings))),
        names={},
        num_database=200,
        truth={"positives": tuple(positives)},
        stages={"global": tuple(Ranking.whole(r, np.zeros(len(r), "f4")) for r in rankings)},
        about={},
        extra={"usages": np.array(usages, np.int8)},
    )


def test_public_and_private_queries_are_apart() -> None:
    run = made_up_run([ids(1, 2, 3), ids(1, 2, 3), ids()], [ids(1), ids(9, 2), ids(5)], [0, 1, 1])
    report = report_landmark_retrieval(run)
    assert report.figures["global"] == {
        "mAP@100 public": 1.0,
        "mAP@100 private": 0.125,  # (1 / 2) / 2, and a query for which nothing was returned
        "P@10 public": 0.1,
        "P@10 private": 0.05,
    }
    assert report.title == ("gldv2-retrieval: 3 queries (1 public, 2 private), 200 database images")
    assert report.json["queries_by_usage"] == {"public": 1, "private": 2}


def test_a_usage_without_queries_has_no_figure() -> None:
    report = report_landmark_retrieval(made_up_run([ids(1)], [ids(1)], [1]))
    assert list(report.figures["global"]) == ["mAP@100 private", "P@10 private"]


@pytest.mark.parametrize("seed", range(30))
def test_figures_equal_a_plain_restatement(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rankings = [rng.permutation(200)[: rng.integers(0, 101)] for _ in range(9)]
    positives = [rng.permutation(200)[: rng.integers(1, 130)] for _ in range(9)]
    values = [
        sum(
            sum(image in truth for image in ranking[: rank + 1]) / (rank + 1)
            for rank, image in enumerate(ranking)
            if image in truth
        )
        / min(len(truth), 100)
        for ranking, truth in zip(
            [r.tolist() for r in rankings], [p.tolist() for p in positives], strict=True
        )
    ]
    run = made_up_run(rankings, positives, [0, 1, 1] * 3)
    figures = report_landmark_retrieval(run).figures["global"]
    expected = sum(values[::3]) / 3, (sum(values) - sum(values[::3])) / 6
    assert figures["mAP@100 public"] == pytest.approx(expected[0], abs=1e-12)
    assert figures["mAP@100 private"] == pytest.approx(expected[1], abs=1e-12)


def test_published_order_is_by_inliers_then_similarity_then_id() -> None:
    ranking = Ranking.whole(ids(4, 9, 7, 3, 1), np.float32([0.9, 0.8, 0.8, 0.7, 0.6]))
    inliers = np.array([0, 5, 5, 6], np.int32)
    ordered = reranked(ranking, inliers, VerificationSettings(mode="paper"))
    assert ordered.ids.tolist() == [3, 7, 9, 4, 1]
    assert ordered.num_inliers.tolist() == [6, 5, 5, 0, -1]
    np.testing.assert_array_equal(ordered.similarities, np.float32([0.7, 0.8, 0.8, 0.9, 0.6]))


# The command.


def test_copies_are_found_first_and_written(tmp_path: Path, evaluate: Delg) -> None:
    written = tmp_path / "found.csv"
    found = evaluate(make_gldv2(tmp_path / "d"), "--submission", written, "--rerank", 4)
    lines = found.out.splitlines()
    assert (found.code, lines[0]) == (
        0,
        "gldv2-retrieval: 5 queries (2 public, 3 private), 12 database images",
    )
    assert [line.split()[0] for line in lines[2:4]] == ["global", "verified"]
    assert lines[4:] == [
        f"note: images of index that cannot be read: 1 ({INDEX[11]}); they are found by no query"
    ]
    rows = [row.split(",") for row in written.read_text().splitlines()]
    assert rows[0] == ["id", "images"]
    assert [row[0] for row in rows[1:]] == TEST
    assert [row[1].split(" ")[0] for row in rows[1:5]] == INDEX[:4]
    assert [len(row[1].split()) for row in rows[1:]] == [11, 11, 11, 11, 0, 11, 0]


def test_figures_are_those_of_the_submission(tmp_path: Path, evaluate: Delg) -> None:
    written = tmp_path / "found.csv"
    arguments = [make_gldv2(tmp_path / "d"), "--rerank", 0, "--json", "--submission", written]
    found = evaluate(*arguments).json
    rows = dict(row.split(",") for row in written.read_text().splitlines())
    second = {query: rows[TEST[query]].split().index(INDEX[query + 6]) for query in (0, 2, 3)}
    assert "verified" not in found
    assert found["global"]["mAP@100 public"] == pytest.approx(
        ((1 + 2 / (second[0] + 1)) / 2 + 1) / 2, abs=1e-12
    )
    # The last private query should find the image that cannot be read.
    assert found["global"]["mAP@100 private"] == pytest.approx(
        ((1 + 2 / (second[2] + 1)) / 2 + (1 + 2 / (second[3] + 1)) / 2 + 0) / 3, abs=1e-12
    )


def test_tars_give_the_figures_of_folders(tmp_path: Path, evaluate: Delg) -> None:
    unpacked = evaluate(make_gldv2(tmp_path / "d"), "--json").json
    packed = evaluate(make_gldv2(tmp_path / "p", is_packed=True), "--json").json
    assert packed == unpacked
    assert (tmp_path / "p" / "index" / "tar_index.npz").exists()


def test_tars_in_a_folder_that_cannot_be_written_are_indexed_beside_the_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_gldv2(tmp_path / "p", is_packed=True)
    monkeypatch.setattr("os.access", lambda path, mode: False)
    benchmark = open_retrieval(folder, cache=tmp_path / "c.delg")
    assert len(benchmark.database.ids) == 12
    assert sorted(path.name for path in (tmp_path / "c.delg").iterdir()) == [
        "index_tar_index.npz",
        "test_tar_index.npz",
    ]
    assert not (folder / "index" / "tar_index.npz").exists()


def test_nothing_is_extracted_again_and_a_saved_run_is_scored_again(
    tmp_path: Path, evaluate: Delg, delg: Delg
) -> None:
    saved = tmp_path / "run.zip"
    arguments = [make_gldv2(tmp_path / "d"), "--collection", tmp_path / "c.delg", "--json"]
    first = evaluate(*arguments)
    again = evaluate(*arguments, "--save-run", saved)
    assert again.json == first.json
    assert "extracting index: 12 of 12" in first.err
    assert re.findall("extracting|local features", again.err) == []
    assert delg("evaluate", "rescore", saved, "--json").json == first.json
    run = read_run(saved)
    assert run.queries[0] == f"test/{member_name(TEST[0])}"
    assert run.names[0] == f"index/{member_name(INDEX[0])}"
    assert run.about["dataset"]["ignored"] == 1


def test_stages_are_compared_and_failures_shown(
    tmp_path: Path, evaluate: Delg, delg: Delg, tiny_weights: Weights
) -> None:
    saved = tmp_path / "run.zip"
    evaluate(make_gldv2(tmp_path / "d"), "--save-run", saved)
    run = read_run(saved)
    compared = compare_stages(Side(run, "global"), Side(run, "verified"))
    assert [figure.name for figure in compared.figures] == [
        *("mAP@100 public", "mAP@100 private", "P@10 public", "P@10 private")
    ]
    worst, *_ = find_failures(run, "verified", "mAP@100 private", 5).worst
    assert run.queries[worst.query] == f"test/{member_name(TEST[5])}"
    assert worst.missed is not None
    assert run.names[worst.missed.database_id] == f"index/{member_name(INDEX[11])}"
    pages = ["--images", tmp_path / "d", "--out", tmp_path / "out", "--model", tiny_weights.path]
    shown = delg("evaluate", "failures", saved, *pages, "--worst", 2, "--threads", 1)
    assert (shown.code, (tmp_path / "out" / "index.html").exists()) == (0, True)
    assert TEST[0] in (tmp_path / "out" / "index.html").read_text()


@pytest.mark.parametrize(
    ("phase", "count", "left"),
    [
        ("extracting test", 3, ["extracting test: 3 of 3", "extracting index: 12 of 12"]),
        ("extracting index", 5, ["extracting index: 8 of 8", "local features of test: 5 of 5"]),
        ("local features of index", 4, ["local features of index: 8 of 8"]),
    ],
)
def test_a_killed_evaluation_goes_on_where_it_was(
    tmp_path: Path, evaluate: Delg, fixed: list[object], phase: str, count: int, left: list[str]
) -> None:
    arguments = [make_gldv2(tmp_path / "d"), "--json", "--collection"]
    command = ["evaluate", "gldv2-retrieval", *arguments, tmp_path / "c.delg", *fixed]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, phase, str(count), *map(str, command)], capture_output=True
    )
    assert (killed.returncode, killed.stdout) == (-9, b"")
    resumed = evaluate(*arguments, tmp_path / "c.delg")
    told = [line.split(",")[0] for line in resumed.err.splitlines()]
    assert [line for line in told if line in left] == left
    assert resumed.json == evaluate(*arguments, tmp_path / "other.delg").json


def test_pairs_verified_before_a_kill_are_not_verified_again(
    tmp_path: Path, evaluate: Delg, fixed: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [make_gldv2(tmp_path / "d"), "--json", "--collection", tmp_path / "c.delg"]
    command = ["evaluate", "gldv2-retrieval", *arguments, *fixed]
    subprocess.run([sys.executable, "-c", KILLED, "verifying", "3", *map(str, command)])
    verified = []
    verify_head = landmark_search.verify_head
    monkeypatch.setattr(
        landmark_search, "verify_head", lambda *args: [verified.append(1), verify_head(*args)][1]
    )
    monkeypatch.setattr(landmark_search, "VERIFIED_PAIRS", 1)
    monkeypatch.setattr(kept_local, "COMMIT_IMAGES", 1)
    resumed = evaluate(*arguments)
    assert len(verified) == 2
    assert evaluate(*arguments[:-1], tmp_path / "other.delg").json == resumed.json


# What is missing or wrong.


def test_missing_images_are_refused_or_make_a_subset(tmp_path: Path, evaluate: Delg) -> None:
    folder = make_gldv2(tmp_path / "d")
    for image in (INDEX[1], INDEX[6], INDEX[7]):
        (folder / "index" / member_name(image)).unlink()
    (folder / "test" / member_name(TEST[3])).unlink()
    refused = evaluate(folder)
    assert refused.code == 1
    assert "every database image must be in" in refused.err
    assert "got 3 missing of 12" in refused.err
    assert "--subset evaluates those that are there" in refused.err
    found = evaluate(folder, "--subset", "--rerank", 0)
    assert found.out.splitlines()[0] == (
        "gldv2-retrieval: 3 queries (1 public, 2 private), 9 database images"
    )
    assert found.out.splitlines()[3:5] == [
        "note: SUBSET: 9 of 12 database images and 4 of 5 queries; not comparable with published "
        "figures",
        "note: SUBSET: 2 images that should be found are not there and not asked for; 1 queries "
        "have no other and are left out",
    ]
    assert found.out.splitlines()[2].split()[1] == "100.00"


def test_a_subset_in_which_nothing_can_be_found_is_an_error(tmp_path: Path, evaluate: Delg) -> None:
    folder = make_gldv2(tmp_path / "d")
    for number in (0, 1, 2, 3, 6, 8, 9, 11):
        (folder / "index" / member_name(INDEX[number])).unlink()
    found = evaluate(folder, "--subset")
    assert found.code == 1
    assert "a query must have database images to find, got none for any of 5" in found.err


@pytest.mark.parametrize("split", ["index", "test"])
def test_a_split_without_images_is_an_error(tmp_path: Path, split: str) -> None:
    folder = make_gldv2(tmp_path / "d")
    (folder / split).rename(tmp_path / "moved")
    (folder / split).mkdir()
    (tmp_path / "moved" / f"{split}.csv").rename(folder / f"{split}.csv")
    with pytest.raises(OpenDelgError, match=r"every (query|database) image must be in"):
        open_retrieval(folder, subset=True)


def test_a_query_that_cannot_be_read_finds_nothing(tmp_path: Path, evaluate: Delg) -> None:
    folder = make_gldv2(tmp_path / "d")
    (folder / "test" / member_name(TEST[1])).write_bytes(b"\xff\xd8cut")
    found = evaluate(folder, "--submission", tmp_path / "s.csv", "--json")
    assert found.json["global"]["mAP@100 public"] < 0.51
    assert found.json["notes"][0] == (
        f"images of test that cannot be read: 1 ({TEST[1]}); they have no prediction"
    )
    assert (tmp_path / "s.csv").read_text().splitlines()[2] == f"{TEST[1]},"


def test_a_solution_about_other_images_is_an_error(tmp_path: Path, evaluate: Delg) -> None:
    folder = make_gldv2(tmp_path / "d")
    other = tmp_path / "solution.csv"
    other.write_text(f"id,images,Usage\n{TEST[0]},{'f' * 16},Public\n")
    found = evaluate(folder, "--solution", other)
    assert "solution must name images of 'index.csv', got 1 others" in found.err
    other.write_text(f"id,images,Usage\n{'f' * 16},{INDEX[0]},Public\n")
    found = evaluate(folder, "--solution", other)
    assert f"got 1 that are not: {'f' * 16}" in found.err


def test_a_missing_table_is_named_with_its_places(tmp_path: Path, evaluate: Delg) -> None:
    folder = make_gldv2(tmp_path / "d")
    (folder / "metadata" / "retrieval_solution_v2.1.csv").unlink()
    found = evaluate(folder)
    assert found.code == 1
    assert "dataset must hold 'retrieval_solution_v2.1.csv', itself or in metadata" in found.err
    assert "dataset must be an existing folder" in evaluate(tmp_path / "none").err


def test_features_of_other_settings_are_refused(tmp_path: Path, evaluate: Delg) -> None:
    arguments = [make_gldv2(tmp_path / "d"), "--collection", tmp_path / "c.delg", "--rerank", 0]
    assert evaluate(*arguments, "--profile", "fast").code == 0
    assert evaluate(*arguments, "--profile", "accurate").code == 1
