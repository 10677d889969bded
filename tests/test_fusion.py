import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opendelg.fusion import fused_scores, order_of_verified
from opendelg.verification import VerificationSettings

STANDARD, PAPER = VerificationSettings(), VerificationSettings(mode="paper")


def test_scores_by_hand() -> None:
    scores = fused_scores(np.float32([0.5, 0.25, -0.5, 0.5]), np.array([0, 35, 300, -1]), 70)
    assert scores.tolist() == [0.5, 0.75, 0.5, 0.5]
    assert fused_scores(np.float32([0.5]), np.array([1]), max_inliers=4).tolist() == [0.75]


images = st.lists(
    st.tuples(st.integers(-4, 4), st.sampled_from([0, 4, 35, 70, 140])), min_size=1, max_size=8
)


@given(images)
def test_the_order_restated(found: list[tuple[int, int]]) -> None:
    similarities = np.float32([quarters / 4 for quarters, _ in found])
    inliers = np.array([count for _, count in found])
    ids = np.arange(len(found))[::-1]

    def by_sum(row: int) -> tuple[float, int]:
        return -(float(similarities[row]) + min(inliers[row], 70) / 70), ids[row]

    def as_published(row: int) -> tuple[int, float, int]:
        return -inliers[row], -float(similarities[row]), ids[row]

    rows = range(len(found))
    ordered = order_of_verified(similarities, inliers, ids, STANDARD).tolist()
    assert ordered == sorted(rows, key=by_sum)
    assert order_of_verified(similarities, inliers, ids, PAPER).tolist() == sorted(
        rows, key=as_published
    )


@pytest.mark.parametrize("settings", [STANDARD, PAPER])
def test_more_inliers_never_rank_lower(settings: VerificationSettings) -> None:
    order = order_of_verified(np.full(3, 0.5), np.array([4, 90, 30]), np.arange(3), settings)
    assert order.tolist() == [1, 2, 0]
