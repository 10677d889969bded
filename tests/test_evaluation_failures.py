from dataclasses import replace

import numpy as np
import pytest

from opendelg.errors import OpenDelgError
from opendelg.evaluation import failures as module
from opendelg.evaluation.failures import Failures, find_failures
from opendelg.evaluation.ranking import Ranking
from opendelg.evaluation.runs import Run
from opendelg.metrics.revisited import GroundTruth


def ids(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def ranking(*order: int) -> Ranking:
    return Ranking.whole(ids(*order), np.linspace(1, 0, len(order), dtype=np.float32))


def make_run() -> Run:
    """AP 1, 1/2, 1/3, 1/2 and none; the fourth finds one of two."""
    rankings = (ranking(1, 2), ranking(1, 2), ranking(3, 1, 2), ranking(1, 3), ranking(1))
    return Run(
        protocol="groups",
        queries=("a", "b", "c", "d", "e"),
        names={1: "one", 2: "two", 3: "three"},
        num_database=3,
        truth={"positives": (ids(1), ids(2), ids(2), ids(1, 2), ids())},
        stages={"global": rankings},
        about={},
    )


def found(count: int = 10) -> Failures:
    return find_failures(make_run(), "global", "mAP", count)


def test_the_worst_come_first_and_what_is_perfect_is_left_out() -> None:
    assert [(f.query, f.value) for f in found().worst] == [(2, 1 / 3), (1, 0.5), (3, 0.5)]
    assert (found().num_failed, found().num_scored) == (3, 4)


def test_no_more_than_wished_are_kept_and_all_are_counted() -> None:
    assert [f.query for f in found(1).worst] == [2]
    assert found(1).num_failed == 3


def test_the_first_wrong_result_and_the_positive_behind_it_are_named() -> None:
    worst = found().worst[0]
    assert worst.wrong is not None
    assert worst.missed is not None
    assert (worst.wrong.database_id, worst.wrong.rank, worst.wrong.mark) == (3, 1, "wrong")
    assert (worst.missed.database_id, worst.missed.rank, worst.missed.mark) == (2, 3, "right")
    assert (worst.first_right, worst.num_positives) == (3, 1)
    assert [result.mark for result in worst.results] == ["wrong", "wrong", "right"]
    assert worst.wrong.num_inliers is None


def test_a_positive_that_was_not_kept_is_missed_without_rank() -> None:
    fourth = found().worst[2]
    assert fourth.missed is not None
    assert (fourth.missed.database_id, fourth.missed.rank) == (2, None)
    assert fourth.first_right == 1


def test_junk_is_neither_right_nor_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    truths = [GroundTruth(positives, ids(3)) for positives in make_run().truth["positives"]]
    monkeypatch.setattr(
        module, "judged", lambda run, stage: list(zip(run.stages[stage], truths, strict=True))
    )
    worst = found().worst[0]
    assert [result.mark for result in worst.results] == ["junk", "wrong", "right"]
    assert worst.wrong is not None
    assert worst.wrong.database_id == 1


def test_ranks_are_those_of_the_whole_ranking() -> None:
    sparse = Ranking(ids(3, 1, 2), ids(0, 4, 90), np.float32([3, 2, 1]), np.int32([9, 8, -1]))
    run = make_run()
    run = replace(run, stages={"global": (*run.stages["global"][:2], sparse, *[ranking(1)] * 2)})
    worst = find_failures(run, "global", "mAP", 1).worst[0]
    assert worst.first_right == 91
    assert [(result.rank, result.num_inliers) for result in worst.results] == [(1, 9), (5, 8)]


@pytest.mark.parametrize(
    ("stage", "measure", "message"),
    [
        pytest.param("verified", "mAP", "stage must be one of global, got 'verified'", id="stage"),
        pytest.param(
            "global", "GAP", "measure must be one of mAP, R@1, .* got 'GAP'", id="measure"
        ),
    ],
)
def test_what_is_not_there_is_an_error(stage: str, measure: str, message: str) -> None:
    with pytest.raises(OpenDelgError, match=message):
        find_failures(make_run(), stage, measure, 1)


def test_without_truth_nothing_is_known_to_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "measures", lambda _: {})
    with pytest.raises(OpenDelgError, match="run must have ground truth"):
        found()
