import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from opendelg.geometry import (
    apply_affine,
    clip_polygon,
    convex_hull,
    fit_affine,
    invert_affine,
    polygon_area,
    receptive_box_centres,
    stretches,
)

TRANSFORM = np.array([[0.9, -0.3, 12.0], [0.4, 1.2, -7.0]])
SQUARE = np.array([[0, 0], [10, 0], [10, 10], [0, 10]], np.float32)


def test_an_affine_transform_maps_x_and_y_by_hand():
    actual = apply_affine(np.array([[2, 0, 1], [0, 3, -1]]), np.array([[4, 5]]))
    assert_allclose(actual, [[9, 14]])


def test_no_points_stay_no_points():
    assert apply_affine(TRANSFORM, np.zeros((0, 2), np.float32)).shape == (0, 2)


def test_the_inverse_undoes_the_transform():
    points = np.random.default_rng(0).uniform(0, 4000, (20, 2))
    there = apply_affine(TRANSFORM, points)
    assert_allclose(apply_affine(invert_affine(TRANSFORM), there), points, atol=1e-9)


@pytest.mark.parametrize("transform", [np.zeros((2, 3)), np.array([[1, 2, 0], [2, 4, 0]])])
def test_a_collapsed_transform_has_no_inverse(transform):
    with pytest.raises(ValueError, match="transform must be invertible, got determinant 0"):
        invert_affine(transform)


def test_a_fit_to_exact_points_recovers_the_transform():
    points = np.random.default_rng(1).uniform(0, 4000, (30, 2))
    assert_allclose(fit_affine(points, apply_affine(TRANSFORM, points)), TRANSFORM, atol=1e-8)


def test_a_fit_to_noisy_points_equals_least_squares():
    rng = np.random.default_rng(2)
    source, target = rng.uniform(0, 500, (2, 40, 2))
    expected = np.linalg.lstsq(np.column_stack([source, np.ones(40)]), target)[0].T
    assert_allclose(fit_affine(source, target), expected, atol=1e-8)


@pytest.mark.parametrize("num_points", [0, 2, 9])
def test_points_on_a_line_have_no_fit(num_points):
    points = np.linspace(0, 50, num_points)[:, None] * [1.0, 2.0]
    assert np.isnan(fit_affine(points, points)).all()


def test_stretches_are_the_singular_values():
    expected = np.linalg.svd(TRANSFORM[:, :2], compute_uv=False)
    assert_allclose(stretches(TRANSFORM), expected)


def test_a_mirrored_transform_has_a_negative_stretch():
    assert_allclose(stretches(np.array([[-2, 0, 5], [0, 3, 5]])), (3, -2))


def test_the_hull_leaves_out_inner_points_and_runs_clockwise_on_the_screen():
    points = np.array([[5, 5], [10, 10], [0, 0], [0, 10], [3, 7], [10, 0], [5, 0]])
    assert_array_equal(convex_hull(points), SQUARE)


def test_the_hull_contains_every_point():
    points = np.random.default_rng(3).normal(0, 100, (200, 2)).astype(np.float32)
    hull = convex_hull(points).astype(np.float64)
    edges = np.roll(hull, -1, axis=0) - hull
    offsets = points[:, None] - hull
    sides = edges[:, 0] * offsets[..., 1] - edges[:, 1] * offsets[..., 0]
    assert sides.min() > -1e-2


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        pytest.param(np.zeros((0, 2)), np.zeros((0, 2)), id="none"),
        pytest.param([[3, 4]], [[3, 4]], id="one"),
        pytest.param([[3, 4]] * 5, [[3, 4]], id="one-repeated"),
        pytest.param([[2, 2], [0, 0], [1, 1]], [[0, 0], [2, 2]], id="diagonal"),
        pytest.param([[7, 9], [7, 1], [7, 5]], [[7, 1], [7, 9]], id="vertical"),
    ],
)
def test_a_degenerate_hull_is_a_point_or_a_segment(points, expected):
    hull = convex_hull(np.array(points))
    assert hull.dtype == np.float32
    assert_array_equal(hull, expected)


def test_the_area_of_a_square_is_positive_clockwise_on_the_screen():
    assert polygon_area(SQUARE) == 100
    assert polygon_area(SQUARE[::-1]) == -100
    assert polygon_area(SQUARE[:2]) == 0


def test_a_polygon_inside_is_not_clipped():
    assert_array_equal(clip_polygon(SQUARE, (11, 11)), SQUARE)


def test_a_clipped_polygon_ends_at_the_last_pixel_centre():
    expected = [[0, 0], [4, 0], [4, 3], [0, 3]]
    assert_array_equal(np.unique(clip_polygon(SQUARE, (5, 4)), axis=0), np.unique(expected, axis=0))


def test_a_polygon_around_the_image_becomes_the_image():
    clipped = clip_polygon(SQUARE * 100 - 300, (40, 30))
    assert polygon_area(clipped) == 39 * 29


def test_a_cut_corner_gains_a_side():
    triangle = np.array([[-2, 0], [6, 0], [6, 8]])
    assert polygon_area(clip_polygon(triangle, (100, 100))) == 32 - 2


@pytest.mark.parametrize(
    ("polygon", "expected"),
    [
        pytest.param(np.zeros((0, 2)), np.zeros((0, 2)), id="none"),
        pytest.param([[3, 4]], [[3, 4]], id="point"),
        pytest.param([[-3, 4]], np.zeros((0, 2)), id="point-outside"),
        pytest.param([[-5, 5], [5, 5]], [[0, 5], [5, 5]], id="segment"),
        pytest.param(SQUARE + 50, np.zeros((0, 2)), id="square-outside"),
    ],
)
def test_what_is_left_of_degenerate_polygons(polygon, expected):
    assert_array_equal(clip_polygon(np.array(polygon), (20, 20)), expected)


def test_keypoint_centres_are_the_stride_over_the_scale_row_by_row():
    expected = [[0, 0], [32, 0], [64, 0], [0, 32], [32, 32], [64, 32]]
    assert_array_equal(receptive_box_centres(2, 3, stride=16, scale=0.5), expected)
