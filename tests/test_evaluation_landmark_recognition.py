import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from opendelg.datasets.landmark_benchmark import read_recognition_solution
from opendelg.datasets.landmarks import id_text
from opendelg.evaluation.comparison import Side, compare_stages
from opendelg.evaluation.failures import find_failures
from opendelg.evaluation.landmark_recognition import (
    VoteConfig,
    pooled_landmark_recognition,
    predictions,
    report_landmark_recognition,
    voters,
    weights,
)
from opendelg.evaluation.landmark_search import Neighbours
from opendelg.evaluation.ranking import Ranking
from opendelg.evaluation.runs import Run, read_run
from opendelg.metrics.landmarks import NO_LANDMARK
from opendelg.weights import Weights
from tests.gldv2_samples import image_id, make_gldv2
from tests.landmark_samples import member_name

Delg = Callable[..., SimpleNamespace]
TRAIN = [image_id("train", number) for number in range(12)]
TEST = [image_id("test", number) for number in range(7)]
CASE = Path(__file__).parent / "cases" / "metrics" / "ignored_usage.json"


def ids(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


@pytest.fixture
def evaluate(delg: Delg, tiny_weights: Weights) -> Delg:
    """Run ``delg evaluate gldv2-recognition`` with the tiny network."""

    def run(*arguments: object) -> SimpleNamespace:
        fixed = ["--model", tiny_weights.path, "--device", "cpu", "--threads", 1]
        return delg("evaluate", "gldv2-recognition", *arguments, *fixed)

    return run


# Votes.


def made_up_run(
    rankings: list[Ranking], labels: np.ndarray, truths: list[np.ndarray], usages: list[int]
) -> Run:
    return Run(
        protocol="gldv2-recognition",
        queries=tuple(f"test/{number:016x}.jpg" for number in range(len(rankings))),
        names={},
        num_database=len(labels),
        truth={"landmarks": tuple(truths)},
        stages={"verified": tuple(rankings)},
        about={"vote": {"neighbours": 3, "max_inliers": 70}},
        extra={
            "usages": np.array(usages, np.int8),
            "image_ids": np.arange(len(rankings), dtype=np.uint64),
            "labelled_ids": np.arange(len(labels)),
            "labels": labels,
        },
    )


def ranking(images: list[int], similarities: list[float], inliers: list[int]) -> Ranking:
    return Ranking(
        ids(*images), np.arange(len(images)), np.float32(similarities), np.int32(inliers)
    )


def test_inliers_count_up_to_70_and_none_without_verification() -> None:
    found = ranking([1, 2, 3, 4], [0.5, 0.5, 0.25, 0.25], [140, 35, 0, -1])
    assert weights(found, 70).tolist() == [1.5, 1.0, 0.25, 0.25]


def test_the_landmark_with_the_largest_sum_is_predicted() -> None:
    one = ranking([0, 1, 2], [0.75, 0.5, 0.5], [0, 0, 7])
    run = made_up_run([one], ids(30, 20, 20), [ids(20)], [0])
    landmarks, confidences = predictions(run)["verified"]
    assert landmarks.tolist() == [20]
    assert confidences.tolist() == [0.5 + 0.5 + 7 / 70]


def test_of_equal_sums_the_smaller_landmark_is_predicted() -> None:
    run = made_up_run([ranking([0, 1], [0.5, 0.5], [0, 0])], ids(30, 20), [ids(20)], [0])
    assert predictions(run)["verified"][0].tolist() == [20]


def test_a_query_without_neighbours_has_no_prediction() -> None:
    run = made_up_run([ranking([], [], [])], ids(30), [ids(30)], [0])
    assert predictions(run)["verified"][0].tolist() == [NO_LANDMARK]
    figures = report_landmark_recognition(run).figures["verified"]
    assert figures == {"GAP public": 0.0, "accuracy public": 0.0}


def test_voters_are_the_best_once_verified() -> None:
    whole = Ranking.whole(ids(4, 9, 7, 3, 1), np.float32([0.75, 0.5, 0.5, 0.5, 0.5]))
    found = Neighbours((whole,), (np.array([0, 35, 35, 0], np.int32),))
    best = voters(found, 0, VoteConfig(neighbours=4))
    assert best.ids.tolist() == [7, 9, 4, 1]  # 1.0, 1.0, 0.75, 0.5, and 3 with 0.5
    assert best.num_inliers.tolist() == [35, 35, 0, -1]
    assert best.positions.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("seed", range(30))
def test_predictions_equal_a_plain_restatement(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(10, 14, 40)
    similarities = -np.sort(-rng.random(20).astype(np.float32))
    whole = Ranking.whole(rng.permutation(40)[:20], similarities)
    inliers = rng.integers(0, 120, rng.integers(1, 21)).astype(np.int32)
    best = voters(Neighbours((whole,), (inliers,)), 0, VoteConfig(neighbours=5))
    run = made_up_run([best], labels, [ids(10)], [0])
    counted = [*inliers.tolist(), *[0] * 20]
    scored = sorted(
        (-(min(counted[place], 70) / 70 + float(similarities[place])), int(image))
        for place, image in enumerate(whole.ids)
    )
    sums: dict[int, float] = {}
    for score, image in scored[:5]:
        sums[int(labels[image])] = sums.get(int(labels[image]), 0.0) - score
    expected = max(sums, key=lambda landmark: (sums[landmark], -landmark))
    landmarks, confidences = predictions(run)["verified"]
    assert landmarks.tolist() == [expected]
    assert confidences[0] == pytest.approx(sums[expected], abs=1e-12)


def test_ignored_queries_are_in_no_list(tmp_path: Path) -> None:
    case = json.loads(CASE.read_text())
    (tmp_path / "solution.csv").write_text("\n".join(case["solution"]) + "\n")
    solution = read_recognition_solution(tmp_path / "solution.csv")
    predicted = [case["predictions"].get(id_text(image)) for image in solution.query_ids.tolist()]
    rankings = [
        ranking([], [], []) if p is None else ranking([p[0]], [p[1]], [0]) for p in predicted
    ]
    run = made_up_run(rankings, np.arange(10), list(solution.truths), solution.usages.tolist())
    figures = report_landmark_recognition(run).figures["verified"]
    found = {name: figures[name] for name in case["global_average_precision"]}
    assert found == pytest.approx(case["global_average_precision"], abs=1e-7)  # of float32 votes


def test_numbers_of_votes_are_positive() -> None:
    with pytest.raises(ValueError, match="neighbours must be at least 1, got 0"):
        VoteConfig(neighbours=0)


# The command.


def test_copies_are_recognised_and_written(tmp_path: Path, evaluate: Delg) -> None:
    written = tmp_path / "predictions.csv"
    arguments = ["--neighbours", 1, "--rerank", 4, "--submission", written]
    found = evaluate(make_gldv2(tmp_path / "d"), *arguments)
    lines = found.out.splitlines()
    assert (found.code, lines[0]) == (
        0,
        "gldv2-recognition: 6 queries (3 public, 3 private), 12 database images",
    )
    assert lines[1].split() == [
        "stage",
        *("GAP", "public", "GAP", "private", "accuracy", "public", "accuracy", "private"),
    ]
    assert lines[3].split()[0] == "verified"
    # Test image 3 is a copy of landmark 73, and the solution says 79.
    assert lines[2].split()[3:] == ["100.00", "50.00"]
    assert lines[4:] == [
        f"note: images of train that cannot be read: 1 ({TRAIN[11]}); they are found by no query"
    ]
    rows = [row.split(",") for row in written.read_text().splitlines()]
    assert rows[0] == ["id", "landmarks"]
    assert [row[0] for row in rows[1:]] == TEST
    assert [row[1].split(" ")[0] for row in rows[1:6]] == ["70", "71", "72", "73", "74"]
    assert rows[7] == [TEST[6], ""]
    assert all(float(row[1].split(" ")[1]) > 0.9 for row in rows[1:6])


def test_figures_are_those_of_the_submission(tmp_path: Path, evaluate: Delg) -> None:
    written = tmp_path / "predictions.csv"
    arguments = ["--rerank", 0, "--json", "--submission", written]
    found = evaluate(make_gldv2(tmp_path / "d"), *arguments).json
    rows = dict(row.split(",") for row in written.read_text().splitlines()[1:-1])
    surest = sorted((TEST[n] for n in (0, 1, 5)), key=lambda i: (-float(rows[i].split()[1]), i))
    right = [
        rows[image].split()[0] == {TEST[0]: "70", TEST[1]: "71"}.get(image) for image in surest
    ]
    expected = sum(sum(right[: n + 1]) / (n + 1) for n in range(3) if right[n]) / 2
    assert "verified" not in found
    assert found["global"]["GAP public"] == pytest.approx(expected, abs=1e-12)


def test_tars_and_the_whole_list_of_training_images(tmp_path: Path, evaluate: Delg) -> None:
    unpacked = evaluate(make_gldv2(tmp_path / "d"), "--json").json
    packed = evaluate(make_gldv2(tmp_path / "p", is_packed=True), "--json").json
    assert packed == unpacked
    whole = evaluate(tmp_path / "p", "--json", "--list", "train.csv").json
    assert whole == unpacked  # it lists the same images here


def test_images_of_two_landmarks_are_left_out(tmp_path: Path, evaluate: Delg) -> None:
    folder = make_gldv2(tmp_path / "d")
    with (folder / "train" / "train_clean.csv").open("a") as file:
        file.write(f"99,{TRAIN[0]}\n")
    found = evaluate(folder, "--json").json
    assert found["database"] == 11
    assert found["notes"][0] == (
        "1 database images have two landmarks in train_clean.csv and are left out"
    )


def test_a_saved_run_is_scored_compared_and_shown(
    tmp_path: Path, evaluate: Delg, delg: Delg
) -> None:
    saved = tmp_path / "run.zip"
    arguments = [make_gldv2(tmp_path / "d"), "--collection", tmp_path / "c.delg", "--json"]
    first = evaluate(*arguments)
    assert evaluate(*arguments, "--save-run", saved).json == first.json
    assert delg("evaluate", "rescore", saved, "--json").json == first.json
    run = read_run(saved)
    assert run.about["vote"] == {"neighbours": 3, "max_inliers": 70}
    statistics = pooled_landmark_recognition(run)["verified"]
    everyone = np.arange(6)[None]
    assert {name: statistic(everyone)[0] for name, statistic in statistics.items()} == {
        name: pytest.approx(first.json["verified"][name], abs=1e-12)
        for name in ("GAP public", "GAP private")
    }
    compared = compare_stages(Side(run, "global"), Side(run, "verified"))
    assert [figure.name for figure in compared.figures] == [
        *("accuracy public", "accuracy private", "GAP public", "GAP private")
    ]
    failed = find_failures(run, "global", "accuracy private", 5).worst
    assert [run.queries[failure.query] for failure in failed] == [f"test/{member_name(TEST[3])}"]


def test_missing_images_are_refused_or_make_a_subset(tmp_path: Path, evaluate: Delg) -> None:
    folder = make_gldv2(tmp_path / "d")
    (folder / "train" / member_name(TRAIN[7])).unlink()
    (folder / "test" / member_name(TEST[2])).unlink()
    assert "every database image must be in" in evaluate(folder).err
    found = evaluate(folder, "--subset")
    assert found.out.splitlines()[4] == (
        "note: SUBSET: 11 of 12 database images and 5 of 6 queries; not comparable with published "
        "figures"
    )


def test_without_any_landmark_there_is_nothing_to_measure(tmp_path: Path, evaluate: Delg) -> None:
    other = tmp_path / "solution.csv"
    other.write_text(f"id,landmarks,Usage\n{TEST[0]},,Public\n")
    found = evaluate(make_gldv2(tmp_path / "d"), "--solution", other)
    assert found.code == 1
    assert "an image must show a landmark, got none that does of 1 queries" in found.err
