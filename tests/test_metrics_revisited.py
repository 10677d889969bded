import json
import math
from pathlib import Path

import numpy as np
import pytest

from opendelg.metrics.revisited import (
    GroundTruth,
    average_precision,
    ground_truth,
    precision_at,
)

CASES = sorted((Path(__file__).parent / "cases" / "metrics").glob("revisited_*.json"))


def ids(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def truth_of(case: dict[str, list[int]]) -> GroundTruth:
    return GroundTruth(ids(*case["positives"]), ids(*case["junk"]))


def plain_precisions(ranking: list[int], positives: set[int], junk: set[int]) -> list[float]:
    """The protocol again, image by image: one trapezoid per positive."""
    kept = [image for image in ranking if image not in junk]
    trapezoids, found, before = [], 0, 1.0
    for rank, image in enumerate(kept):
        if image in positives:
            found += 1
            trapezoids.append((before + found / (rank + 1)) / 2)
        before = found / (rank + 1)
    return trapezoids


def random_case(seed: int) -> tuple[np.ndarray, GroundTruth]:
    generator = np.random.default_rng(seed)
    images = generator.permutation(200)
    num_positives, num_junk = generator.integers(1, 60), generator.integers(0, 60)
    truth = GroundTruth(images[:num_positives], images[num_positives : num_positives + num_junk])
    return generator.permutation(200)[: generator.integers(0, 201)], truth


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_cases_by_hand(path: Path) -> None:
    case = json.loads(path.read_text())
    ranking, truth = ids(*case["ranking"]), truth_of(case)
    assert average_precision(ranking, truth) == pytest.approx(case["average_precision"], abs=1e-15)
    precisions = {k: precision_at(ranking, truth, int(k)) for k in case["precision_at"]}
    assert precisions == pytest.approx(case["precision_at"], abs=1e-15)


@pytest.mark.parametrize("seed", range(300))
def test_average_precision_equals_a_plain_restatement(seed: int) -> None:
    ranking, truth = random_case(seed)
    positives = set(truth.positives.tolist())
    trapezoids = plain_precisions(ranking.tolist(), positives, set(truth.junk.tolist()))
    expected = sum(trapezoids) / len(positives)
    assert average_precision(ranking, truth) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(100))
def test_images_that_nobody_judged_may_be_left_out(seed: int) -> None:
    ranking, truth = random_case(seed)
    judged = np.concatenate([truth.positives, truth.junk])
    positions = np.flatnonzero(np.isin(ranking, judged))
    kept = ranking[positions]
    whole = average_precision(ranking, truth), precision_at(ranking, truth, 10)
    assert average_precision(kept, truth, positions) == whole[0]
    assert precision_at(kept, truth, 10, positions) == whole[1]


def test_junk_before_a_positive_costs_nothing() -> None:
    truth = GroundTruth(ids(5), ids(8, 9))
    assert average_precision(ids(9, 8, 5), truth) == 1
    assert precision_at(ids(9, 8, 5), truth, 1) == 1


def test_precision_looks_no_further_than_the_last_positive() -> None:
    assert precision_at(ids(5, 6, 1, 2, 3), GroundTruth(ids(5, 6), ids()), 5) == 1


def test_query_without_positives_is_nan() -> None:
    truth = GroundTruth(ids(), ids(1))
    assert math.isnan(average_precision(ids(1, 2), truth))
    assert math.isnan(precision_at(ids(1, 2), truth, 1))


def test_what_was_not_found_counts_zero() -> None:
    truth = GroundTruth(ids(7), ids(1))
    assert average_precision(ids(1, 2), truth) == 0
    assert precision_at(ids(1, 2), truth, 1) == 0


def test_id_ranked_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="must not repeat ids, got 2 distinct of 3"):
        average_precision(ids(1, 2, 1), GroundTruth(ids(1), ids()))


def test_precision_at_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        precision_at(ids(1), GroundTruth(ids(1), ids()), 0)


def test_levels_divide_the_lists_as_the_protocol_says() -> None:
    easy, hard, junk = ids(1), ids(2), ids(3)
    levels = {level: ground_truth(level, easy, hard, junk) for level in ("easy", "medium", "hard")}
    found = {k: (t.positives.tolist(), t.junk.tolist()) for k, t in levels.items()}
    assert found == {"easy": ([1], [3, 2]), "medium": ([1, 2], [3]), "hard": ([2], [3, 1])}
