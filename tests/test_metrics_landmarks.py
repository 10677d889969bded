import json
from pathlib import Path

import numpy as np
import pytest

from opendelg.metrics.landmarks import (
    NO_LANDMARK,
    average_precision_at,
    global_average_precision,
    is_right,
    precision_at,
    precisions_of_predictions,
    resampled_global_average_precision,
)

FOLDER = Path(__file__).parent / "cases" / "metrics"


def ids(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def predictions(case: dict[str, list[list[object]]]):
    """The arrays of a case: rows of image id, prediction, confidence, truth."""
    images, landmarks, confidences, truths = zip(*case["predictions"], strict=True)
    return (
        np.array(images, np.uint64),
        np.array([NO_LANDMARK if landmark is None else landmark for landmark in landmarks]),
        np.array([0.0 if value is None else value for value in confidences], np.float64),
        [ids(*truth) for truth in truths],
    )


@pytest.mark.parametrize("path", sorted(FOLDER.glob("at_100_*.json")), ids=lambda path: path.stem)
def test_retrieval_cases_by_hand(path: Path) -> None:
    case = json.loads(path.read_text())
    ranking, positives = ids(*case["ranking"]), ids(*case["positives"])
    found = average_precision_at(ranking, positives, case.get("k", 100))
    assert found == pytest.approx(case["average_precision"], abs=1e-15)
    precisions = {k: precision_at(ranking, positives, int(k)) for k in case["precision_at"]}
    assert precisions == pytest.approx(case["precision_at"], abs=1e-15)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("gap_*.json")), ids=lambda path: path.stem)
def test_recognition_cases_by_hand(path: Path) -> None:
    case = json.loads(path.read_text())
    arrays = predictions(case)
    found = global_average_precision(*arrays), global_average_precision(*arrays, True)
    expected = case["global_average_precision"], case["of_landmarks"]
    assert found == pytest.approx(expected, abs=1e-15)


# Oracles: the protocol again, image by image.


def plain_average_precision(ranking: list[int], positives: list[int], k: int) -> float:
    total, num_right, seen = 0.0, 0, set()
    for rank, image in enumerate(ranking[:k], start=1):
        if image in positives and image not in seen:
            num_right += 1
            total += num_right / rank
        seen.add(image)
    return total / min(len(positives), k)


def plain_gap(rows: list[tuple[int, int, float, list[int]]], ignore: bool) -> float:
    listed = [row for row in rows if row[1] != NO_LANDMARK and (row[3] or not ignore)]
    total, num_right = 0.0, 0
    ordered = sorted(listed, key=lambda row: (-row[2], row[0], row[1]))
    for rank, (_, landmark, _, truth) in enumerate(ordered, start=1):
        if landmark in truth:
            num_right += 1
            total += num_right / rank
    return total / sum(bool(row[3]) for row in rows)


@pytest.mark.parametrize("seed", range(300))
def test_average_precision_equals_a_plain_restatement(seed: int) -> None:
    generator = np.random.default_rng(seed)
    ranking = generator.integers(0, 150, generator.integers(0, 140))  # some come again
    positives = generator.permutation(150)[: generator.integers(1, 140)]
    k = int(generator.choice([1, 10, 100]))
    expected = plain_average_precision(ranking.tolist(), positives.tolist(), k)
    assert average_precision_at(ranking, positives, k) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(300))
def test_global_average_precision_equals_a_plain_restatement(seed: int) -> None:
    generator = np.random.default_rng(seed)
    num_images = int(generator.integers(1, 80))
    images = generator.integers(2**62, 2**64, num_images, dtype=np.uint64)
    landmarks = generator.integers(-1, 4, num_images)
    confidences = generator.integers(0, 6, num_images) / 4  # many are equal
    truths = [generator.permutation(4)[: generator.integers(0, 3)] for _ in images]
    truths[0] = ids(1)
    rows = list(
        zip(
            images.tolist(),
            landmarks.tolist(),
            confidences.tolist(),
            [truth.tolist() for truth in truths],
            strict=True,
        )
    )
    found = [
        global_average_precision(images, landmarks, confidences, truths, ignore)
        for ignore in (False, True)
    ]
    assert found == pytest.approx([plain_gap(rows, False), plain_gap(rows, True)], abs=1e-12)


# Edges.


def test_a_query_without_positives_counts_as_not_found() -> None:
    assert average_precision_at(ids(1, 2), ids()) == 0.0


def test_without_any_landmark_there_is_no_figure() -> None:
    added = global_average_precision(np.uint64([1]), ids(5), np.float64([1]), [ids()])
    assert np.isnan(added)


def test_images_without_a_landmark_are_left_out_of_the_mean() -> None:
    arrays = np.uint64([1, 2, 3]), ids(5, 6, NO_LANDMARK), np.float64([1, 2, 0])
    added = precisions_of_predictions(*arrays, [ids(5), ids(), ids(7)])
    assert str(added.tolist()) == "[0.5, nan, 0.0]"
    assert str(is_right(ids(5, 6, NO_LANDMARK), [ids(4, 5), ids(), ids(7)]).tolist()) == (
        "[1.0, nan, 0.0]"
    )


@pytest.mark.parametrize(
    ("images", "confidences", "message"),
    [
        ([1, 1], [1, 2], "image_ids must be distinct"),
        ([1, 2], [1], "arrays must be as long as image_ids"),
        ([1, 2], [1, float("nan")], "confidences must be numbers"),
    ],
)
def test_malformed_predictions_are_errors(images, confidences, message) -> None:
    with pytest.raises(ValueError, match=message):
        global_average_precision(
            np.uint64(images), ids(3, 4), np.float64(confidences), [ids(3), ids(4)]
        )


@pytest.mark.parametrize("measure", [average_precision_at, precision_at])
def test_at_least_one_result_is_looked_at(measure) -> None:
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        measure(ids(1), ids(1), 0)


# Images drawn again.


@pytest.mark.parametrize("seed", range(100))
def test_images_drawn_again_are_images_more(seed: int) -> None:
    generator = np.random.default_rng(seed)
    num_images = int(generator.integers(2, 30))
    images = generator.permutation(num_images).astype(np.uint64)
    landmarks = generator.integers(-1, 4, num_images)
    confidences = generator.integers(0, 6, num_images) / 4
    truths = [generator.permutation(4)[: generator.integers(0, 3)] for _ in images]
    truths[0] = ids(1)
    is_counted = generator.random(num_images) < 0.7
    is_counted[0] = True
    chosen = generator.integers(0, num_images, (5, num_images))
    chosen[:, 0] = 0
    statistic = resampled_global_average_precision(
        images, landmarks, confidences, truths, is_counted
    )
    rows = [
        (int(images[i]), int(landmarks[i]), float(confidences[i]), truths[i].tolist())
        for i in range(num_images)
    ]
    expected = [
        plain_gap([rows[i] for i in draw if is_counted[i]], False) for draw in chosen.tolist()
    ]
    assert statistic(chosen) == pytest.approx(expected, abs=1e-12)


def test_a_draw_without_any_landmark_is_no_success() -> None:
    statistic = resampled_global_average_precision(
        np.uint64([1, 2]), ids(5, 6), np.float64([1, 2]), [ids(5), ids()], np.array([True, True])
    )
    assert statistic(np.array([[1, 1], [0, 0]])).tolist() == [0.0, 1.0]
