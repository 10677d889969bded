import json
import math
from pathlib import Path

import numpy as np
import pytest

from opendelg.metrics.retrieval import (
    average_precision,
    mean_over_queries,
    mean_scores,
    recall_at,
)

CASES = sorted((Path(__file__).parent / "cases" / "metrics").glob("finite_sum_*.json"))


def ids(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def plain_average_precision(ranking: list[int], positives: set[int]) -> float:
    found, total = 0, 0.0
    for position, database_id in enumerate(ranking, start=1):
        if database_id in positives:
            found += 1
            total += found / position
    return total / len(positives)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_average_precision_of_cases_by_hand(path: Path) -> None:
    case = json.loads(path.read_text())
    value = average_precision(ids(*case["ranking"]), ids(*case["positives"]))
    assert value == pytest.approx(case["average_precision"], abs=1e-15)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_recall_of_cases_by_hand(path: Path) -> None:
    case = json.loads(path.read_text())
    expected = {int(k): value for k, value in case["recall_at"].items()}
    assert recall_at(ids(*case["ranking"]), ids(*case["positives"]), list(expected)) == expected


@pytest.mark.parametrize("seed", range(50))
def test_average_precision_equals_a_plain_loop(seed: int) -> None:
    generator = np.random.default_rng(seed)
    ranking = generator.permutation(60)[: generator.integers(0, 61)]
    positives = generator.permutation(60)[: generator.integers(1, 20)]
    expected = plain_average_precision(ranking.tolist(), set(positives.tolist()))
    assert average_precision(ranking, positives) == pytest.approx(expected, abs=1e-14)


def test_order_of_positives_does_not_matter() -> None:
    ranking = ids(4, 2, 9, 1)
    assert average_precision(ranking, ids(9, 4)) == average_precision(ranking, ids(4, 9))


def test_query_without_positives_is_nan() -> None:
    assert math.isnan(average_precision(ids(1, 2), ids()))
    assert math.isnan(recall_at(ids(1, 2), ids(), [5])[5])


def test_id_ranked_twice_is_refused() -> None:
    message = "ranking must not repeat ids, got 2 distinct of 3"
    with pytest.raises(ValueError, match=message):
        average_precision(ids(1, 2, 1), ids(1))
    with pytest.raises(ValueError, match=message):
        recall_at(ids(1, 2, 1), ids(1), [1])


def test_positive_given_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="positives must not repeat ids, got 1 distinct of 2"):
        average_precision(ids(1, 2), ids(1, 1))


def test_recall_at_zero_is_refused() -> None:
    with pytest.raises(ValueError, match=r"ks must be at least 1, got \[0, 5\]"):
        recall_at(ids(1), ids(1), [0, 5])


def test_means_leave_out_queries_without_positives() -> None:
    scores = mean_scores([ids(1, 2), ids(2, 1), ids(1)], [ids(1), ids(1), ids()], [1, 2])
    assert scores.num_queries == 2
    assert scores.mean_average_precision == 0.75
    assert scores.recall_at == {1: 0.5, 2: 1.0}


def test_means_over_no_query_are_nan() -> None:
    scores = mean_scores([ids(1)], [ids()], [1])
    assert scores.num_queries == 0
    assert math.isnan(scores.mean_average_precision)
    assert math.isnan(scores.recall_at[1])
    assert math.isnan(mean_over_queries([]))


def test_rankings_without_truth_are_refused() -> None:
    with pytest.raises(ValueError, match="must be as many as positives, got 2 and 1"):
        mean_scores([ids(1), ids(2)], [ids(1)], [1])
