import numpy as np
import pytest

from opendelg.metrics import bootstrap as module
from opendelg.metrics.bootstrap import bootstrap, mean_of

VALUES = np.random.default_rng(3).normal(0.02, 0.1, 50)


def plain(values: np.ndarray, num_resamples: int, seed: int) -> list[float]:
    """Value, interval and share, one draw after the other."""
    random = np.random.default_rng(seed)
    means = []
    for _ in range(num_resamples):
        chosen = [values[i] for i in random.integers(len(values), size=len(values))]
        means.append(sum(chosen) / len(chosen))
    means.sort()
    ends = [np.interp(q * (num_resamples - 1), range(num_resamples), means) for q in (0.025, 0.975)]
    share = sum((mean > 0) == (values.mean() > 0) for mean in means) / num_resamples
    return [values.mean(), *ends, share]


def test_the_interval_is_that_of_drawing_one_by_one() -> None:
    found = bootstrap(mean_of(VALUES), len(VALUES), num_resamples=500, seed=4)
    np.testing.assert_allclose(list(vars(found).values()), plain(VALUES, 500, 4), atol=1e-12)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bootstrap(mean_of(VALUES), len(VALUES), num_resamples=100)
    monkeypatch.setattr(module, "MAX_DRAWN", 7 * len(VALUES))
    assert bootstrap(mean_of(VALUES), len(VALUES), num_resamples=100) == whole


def test_the_same_seed_gives_the_same_interval() -> None:
    first, again, other = (bootstrap(mean_of(VALUES), 50, 200, seed=s) for s in (1, 1, 2))
    assert first == again
    assert first != other


def covered(random: np.random.Generator, num_queries: int, mean: float) -> bool:
    """Whether the interval of one simulated set of queries holds the true mean."""
    values = random.normal(mean, 0.2, num_queries)
    found = bootstrap(mean_of(values), num_queries, 1000, seed=int(random.integers(1 << 32)))
    return found.low <= mean <= found.high


def test_of_a_hundred_intervals_about_95_hold_the_truth() -> None:
    random = np.random.default_rng(0)
    share = np.mean([covered(random, 70, 0.03) for _ in range(1000)])
    # Percentiles are a little narrow at 70 queries; three standard errors are 2.1 %.
    assert 0.92 <= share <= 0.97


def test_pairing_takes_out_what_queries_have_in_common() -> None:
    hardness = np.random.default_rng(0).random(60)
    first, second = hardness, hardness + 0.01
    together = bootstrap(mean_of(second - first), 60)
    apart = bootstrap(mean_of(second), 60)
    assert together.high - together.low < 1e-9
    assert apart.high - apart.low > 0.1
    assert together.same_sign == 1.0


def test_a_figure_that_is_no_mean_is_computed_of_each_resample() -> None:
    def largest(chosen: np.ndarray) -> np.ndarray:
        return np.asarray(VALUES[chosen].max(axis=1))

    found = bootstrap(largest, 50)
    assert found.value == found.high == VALUES.max()
    assert found.low < found.high


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param([0.25], [0.25, 0.25, 0.25, 1.0], id="one query"),
        pytest.param([-0.5, -0.5], [-0.5, -0.5, -0.5, 1.0], id="all alike"),
        pytest.param([0.0, 0.0], [0.0, 0.0, 0.0, float("nan")], id="no difference"),
        pytest.param([], [float("nan")] * 4, id="no query"),
    ],
)
def test_few_queries(values: list[float], expected: list[float]) -> None:
    found = bootstrap(mean_of(np.array(values)), len(values), 50)
    np.testing.assert_equal(list(vars(found).values()), expected)


def test_settings_must_make_sense() -> None:
    with pytest.raises(ValueError, match="num_resamples must be at least 1, got 0"):
        bootstrap(mean_of(VALUES), 50, 0)
    with pytest.raises(ValueError, match="confidence must be between 0 and 1, got 95"):
        bootstrap(mean_of(VALUES), 50, confidence=95)
