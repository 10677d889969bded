import math

import numpy as np
import pytest

from opendelg.same import SameModel, fit_same, is_confident


@pytest.fixture
def pairs():
    """2,000 pairs drawn from a known model, and that model."""
    random = np.random.default_rng(0)
    similarities, spreads = random.uniform(-0.2, 1, 2000), random.uniform(0, 1, 2000)
    num_inliers = random.integers(0, 200, 2000)
    model = SameModel(-6.0, 4.0, 1.0, 2.0)
    is_same = random.random(2000) < model.probability(similarities, num_inliers, spreads)
    return (similarities, num_inliers, spreads, is_same), model


def test_probability_is_the_logistic_of_the_sum():
    model = SameModel(-3.0, 2.0, 0.5, 1.0)
    log_odds = -3 + 2 * 0.8 + 0.5 * math.log(1 + 9) + 1.0 * 0.4
    actual = model.probability(np.array([0.8]), np.array([9]), np.array([0.4]))
    assert actual[0] == pytest.approx(1 / (1 + math.exp(-log_odds)))


def test_probabilities_stay_inside_0_and_1():
    extreme = SameModel(0.0, 1e6, 0.0, 0.0).probability(
        np.array([-1.0, 1.0]), np.zeros(2), np.zeros(2)
    )
    assert 0 < extreme[0] < 1e-10
    assert 1 - 1e-10 < extreme[1] < 1


def test_no_pairs_have_no_probabilities():
    none = np.zeros(0)
    assert SameModel(0.0, 1.0, 1.0, 1.0).probability(none, none, none).shape == (0,)


def test_a_known_model_is_recovered(pairs):
    (similarities, num_inliers, spreads, is_same), model = pairs
    fitted = fit_same(similarities, num_inliers, spreads, is_same)
    actual = [fitted.intercept, fitted.similarity, fitted.log_inliers, fitted.spread]
    expected = [model.intercept, model.similarity, model.log_inliers, model.spread]
    np.testing.assert_allclose(actual, expected, rtol=0.25)


def test_fitted_probabilities_are_calibrated(pairs):
    (similarities, num_inliers, spreads, is_same), _ = pairs
    fitted = fit_same(similarities, num_inliers, spreads, is_same)
    predicted = fitted.probability(similarities, num_inliers, spreads)
    # With an intercept that nothing shrinks, maximum likelihood meets the mean exactly.
    assert predicted.mean() == pytest.approx(is_same.mean(), abs=1e-6)


def test_fitting_is_at_the_minimum_of_its_penalised_likelihood(pairs):
    rows, _ = pairs
    fitted = fit_same(*rows, ridge=1e-9)

    def cost(model):
        predicted = model.probability(*rows[:3])
        return -np.log(np.where(rows[3], predicted, 1 - predicted)).sum()

    lowest = cost(fitted)
    for name in ("intercept", "similarity", "log_inliers", "spread"):
        for step in (-0.05, 0.05):
            moved = SameModel(**(vars(fitted) | {name: getattr(fitted, name) + step}))
            assert cost(moved) > lowest


def test_separable_pairs_give_finite_coefficients():
    num_inliers = np.array([0, 1, 2, 50, 60, 70])
    similarities, spreads = np.linspace(0, 1, 6), np.linspace(0, 0.5, 6)
    fitted = fit_same(similarities, num_inliers, spreads, num_inliers > 10)
    probabilities = fitted.probability(similarities, num_inliers, spreads)
    assert all(math.isfinite(value) for value in vars(fitted).values())
    assert (probabilities[:3] < 0.05).all()
    assert (probabilities[3:] > 0.95).all()


@pytest.mark.parametrize("labels", [np.ones(5, bool), np.zeros(5, bool), np.zeros(0, bool)])
def test_both_labels_are_needed(labels):
    values = np.linspace(0, 1, len(labels))
    with pytest.raises(ValueError, match="is_same must hold both labels"):
        fit_same(values, values, values, labels)


def test_more_evidence_never_lowers_the_probability(pairs):
    (similarities, num_inliers, spreads, _), _ = pairs
    against = SameModel(0.0, -4.0, 1.0, -2.0)
    random = np.random.default_rng(1)
    is_same = random.random(2000) < against.probability(similarities, num_inliers, spreads)
    fitted = fit_same(similarities, num_inliers, spreads, is_same)
    assert (fitted.similarity, fitted.spread) == (0.0, 0.0)
    assert fitted.log_inliers > 0


@pytest.mark.parametrize(
    ("same", "expected"), [(0.9, True), (0.8999, False), (None, False), (math.nan, False)]
)
def test_a_match_is_confident_from_90_percent_on(same, expected):
    assert is_confident(same) is expected
