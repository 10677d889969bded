import numpy as np
import pytest

from opendelg import whitening
from opendelg.errors import OpenDelgError
from opendelg.whitening import fit_whitening


@pytest.fixture
def descriptors() -> np.ndarray:
    """Two hundred rows whose columns have very different variances, turned."""
    random = np.random.default_rng(1)
    turn, _ = np.linalg.qr(random.standard_normal((6, 6)))
    rows = random.standard_normal((200, 6)) * [9, 5, 3, 2, 1, 0.5] @ turn + 1
    return rows.astype(np.float32)


def test_whitened_descriptors_have_no_correlation_and_variance_1(descriptors: np.ndarray) -> None:
    projected = fit_whitening(descriptors, 6).project(descriptors)
    np.testing.assert_allclose(projected.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(np.cov(projected.T, bias=True), np.eye(6), atol=1e-6)


def test_whitening_equals_the_textbook(descriptors: np.ndarray) -> None:
    covariance = np.cov(descriptors.T.astype(np.float64), bias=True)
    centred = descriptors - descriptors.mean(axis=0, dtype=np.float64)
    distances = np.einsum("ni,ij,mj->nm", centred, np.linalg.inv(covariance), centred)
    projected = fit_whitening(descriptors, 6).project(descriptors)
    np.testing.assert_allclose(projected @ projected.T, distances, rtol=1e-4, atol=1e-4)


def test_whitening_what_is_white_keeps_all_similarities(descriptors: np.ndarray) -> None:
    white = fit_whitening(descriptors, 6).project(descriptors)
    again = fit_whitening(white, 6)
    np.testing.assert_allclose(again.scales, 1, atol=1e-6)
    np.testing.assert_allclose(again.project(white) @ again.project(white).T, white @ white.T)


@pytest.mark.parametrize("shrinkage", [0.0, 0.3, 1.0])
def test_turning_and_shifting_all_descriptors_changes_no_similarity(
    descriptors: np.ndarray, shrinkage: float
) -> None:
    turn, _ = np.linalg.qr(np.random.default_rng(3).standard_normal((6, 6)))
    turned = (descriptors @ turn + 2).astype(np.float32)
    before = fit_whitening(descriptors, 4, shrinkage).apply(descriptors)
    after = fit_whitening(turned, 4, shrinkage).apply(turned)
    np.testing.assert_allclose(after @ after.T, before @ before.T, atol=1e-4)


def test_full_shrinkage_only_centres(descriptors: np.ndarray) -> None:
    found = fit_whitening(descriptors, 6, 1.0).apply(descriptors)
    centred = descriptors - descriptors.mean(axis=0, dtype=np.float64)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    np.testing.assert_allclose(found @ found.T, centred @ centred.T, atol=1e-5)


def test_the_axes_of_largest_variance_are_kept(descriptors: np.ndarray) -> None:
    whole, part = fit_whitening(descriptors, 6), fit_whitening(descriptors, 2)
    assert (np.diff(whole.variances) < 0).all()
    np.testing.assert_array_equal(part.axes, whole.axes[:, :2])


def test_axes_without_variance_are_not_kept(descriptors: np.ndarray) -> None:
    flat = np.hstack([descriptors, descriptors[:, :2], np.ones((200, 1), np.float32)])
    assert fit_whitening(flat, 99).apply(flat).shape == (200, 6)


def test_fewer_descriptors_than_dimensions_are_enough(descriptors: np.ndarray) -> None:
    found = fit_whitening(descriptors[:3], 6).apply(descriptors)
    assert found.shape == (200, 2)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_a_descriptor_at_the_mean_becomes_zeros(descriptors: np.ndarray) -> None:
    made = fit_whitening(descriptors, 6)
    np.testing.assert_array_equal(made.apply(made.mean[None]), np.zeros((1, 6)))


def test_blocks_give_what_the_whole_gives(
    descriptors: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit_whitening(descriptors, 6, 0.2).apply(descriptors)
    monkeypatch.setattr(whitening, "_BLOCK_ROWS", 7)
    parts = fit_whitening(descriptors, 6, 0.2).apply(descriptors)
    np.testing.assert_allclose(parts, whole, atol=1e-6)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_equal_descriptors_teach_nothing(count: int) -> None:
    with pytest.raises(
        OpenDelgError, match=f"must be learnt on descriptors that differ, .* {count}"
    ):
        fit_whitening(np.ones((count, 4), np.float32), 4)


def test_settings_out_of_range_are_refused(descriptors: np.ndarray) -> None:
    with pytest.raises(ValueError, match="max_dimensions must be at least 1, got 0"):
        fit_whitening(descriptors, 0)
    with pytest.raises(ValueError, match=r"shrinkage must be between 0 and 1, got 1\.5"):
        fit_whitening(descriptors, 4, 1.5)
