import dataclasses

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from skimage.measure import ransac
from skimage.transform import AffineTransform

from opendelg.features import LocalFeatures
from opendelg.geometry import apply_affine, invert_affine
from opendelg.matching import match_nearest
from opendelg.verification import VerificationSettings, regions, verify, verify_many

SIZE = (1024, 768)
PAPER = VerificationSettings(mode="paper")
UPRIGHT = np.array([[0.9, 0.02, 30.0], [-0.03, 0.95, 20.0]])
TURNED = np.array([[0.6, -0.75, 560.0], [0.7, 0.55, -40.0]])  # 50 degrees


def scene(transform=UPRIGHT, num_same=60, num_other=60, noise=2.0, scale=1.0, seed=0):
    """Features of two images: the first ``num_same`` follow the transform, the others nothing."""
    rng = np.random.default_rng(seed)
    num_all = num_same + num_other
    descriptors = rng.normal(size=(2, num_all, 32))
    descriptors[1] = descriptors[0] + rng.normal(scale=0.3, size=(num_all, 32))
    descriptors /= np.linalg.norm(descriptors, axis=2, keepdims=True)
    query_points = rng.uniform((0, 0), SIZE, (num_all, 2))
    database_points = apply_affine(transform, query_points) + rng.normal(0, noise, (num_all, 2))
    database_points[num_same:] = rng.uniform((0, 0), SIZE, (num_other, 2))
    order = rng.permutation(num_all)  # rows of the database image do not give the answer away
    query = features(query_points, descriptors[0], scale)
    return query, features(database_points[order], descriptors[1][order], 1.0)


def features(points, descriptors, scale=1.0):
    ones = np.ones(len(points), np.float32)
    return LocalFeatures(
        points.astype(np.float32), descriptors.astype(np.float32), ones, ones * np.float32(scale)
    )


def verified(query, database, settings=None):
    return verify(query, database, SIZE, SIZE, settings)


@pytest.mark.parametrize("mode", ["standard", "paper"])
@pytest.mark.parametrize("transform", [UPRIGHT, TURNED], ids=["upright", "turned"])
def test_a_known_transform_is_recovered(mode, transform):
    found = verified(*scene(transform), VerificationSettings(mode=mode))
    corners = np.array([[0, 0], [1023, 0], [1023, 767], [0, 767]])
    expected = apply_affine(transform, corners)
    assert_allclose(apply_affine(found.database_from_query, corners), expected, atol=10)


@pytest.mark.parametrize("mode", ["standard", "paper"])
def test_inliers_are_the_matches_that_follow_the_transform(mode):
    found = verified(*scene(), VerificationSettings(mode=mode))
    follows = found.matches[:, 0] < 60
    assert found.inliers[follows].all()
    assert found.num_inliers == np.count_nonzero(found.inliers)
    assert found.inliers[~follows].sum() <= 3  # near the transform by chance


def test_residuals_of_all_inliers_are_below_the_limit_in_query_pixels():
    query, database = scene(noise=8.0)
    found = verified(query, database)
    query_from_database = invert_affine(found.database_from_query)
    arrived = apply_affine(query_from_database, database.keypoints[found.matches[:, 1]])
    residuals = np.linalg.norm(arrived - query.keypoints[found.matches[:, 0]], axis=1)
    assert_array_equal(found.inliers, residuals < VerificationSettings().max_residual)


def test_scales_tell_the_zoom_where_few_matches_are_true():
    zoomed = np.array([[2, 0, -300], [0, 2, -200]])
    found = verified(*scene(zoomed, num_same=14, num_other=150, scale=2.0))
    assert_allclose(found.database_from_query[:, :2], zoomed[:, :2], atol=0.15)


def test_ransac_finds_a_zoom_that_the_scales_contradict():
    found = verified(*scene(np.array([[3, 0, -300], [0, 3, -200]]), noise=1.0, scale=0.25))
    assert_allclose(found.database_from_query[:, :2], [[3, 0], [0, 3]], atol=0.1)


def test_few_matches_of_a_turned_image_suffice_if_all_agree():
    found = verified(*scene(TURNED, num_same=8, num_other=0))
    assert found.num_inliers == len(found.matches) == 8


@pytest.mark.parametrize(
    "transform",
    [
        pytest.param([[-1, 0, 1023], [0, 1, 0]], id="mirrored"),
        pytest.param([[0.05, 0, 500], [0, 0.05, 300]], id="collapsed"),
        pytest.param([[1, 0, 0], [0, 0.1, 300]], id="flattened"),
        pytest.param([[1, 3, 0], [0, 1, 0]], id="sheared"),
    ],
)
def test_a_transform_that_no_camera_makes_is_rejected(transform):
    found = verified(*scene(np.array(transform, float), noise=0.0))
    assert found.num_inliers < 30


def test_unrelated_images_share_few_inliers():
    assert verified(*scene(num_same=0, num_other=200)).num_inliers < 20


def test_large_photos_have_a_residual_in_proportion():
    query, database = scene(noise=5.0)
    large = (4096, 3072)
    grown = [dataclasses.replace(side, keypoints=side.keypoints * 4) for side in (query, database)]
    expected = verified(query, database)
    actual = verify(*grown, large, large)
    assert_array_equal(actual.inliers, expected.inliers)
    assert actual.spread == pytest.approx(expected.spread, rel=1e-2)


def test_a_large_photo_fits_a_small_one_of_the_same_view():
    query, database = scene(np.array([[0.25, 0, 0], [0, 0.25, 0]]), noise=1.0)
    query = dataclasses.replace(query, keypoints=query.keypoints * 4)
    found = verify(query, database, (4096, 3072), (256, 192))
    assert found.num_inliers >= 60


def test_turning_both_images_keeps_the_inliers():
    query, database = scene()
    turned = [
        dataclasses.replace(
            side, keypoints=side.keypoints[:, ::-1] * np.float32([-1, 1]) + [768, 0]
        )
        for side in (query, database)
    ]
    assert (
        verify(*turned, SIZE[::-1], SIZE[::-1]).num_inliers == verified(query, database).num_inliers
    )


@pytest.mark.parametrize("mode", ["standard", "paper"])
@pytest.mark.parametrize("counts", [(0, 0), (0, 9), (9, 0), (1, 1), (3, 3)])
def test_too_few_features_find_nothing(mode, counts):
    query, database = (side.take(slice(count)) for side, count in zip(scene(), counts, strict=True))
    found = verified(query, database, VerificationSettings(mode=mode))
    assert (found.num_inliers, found.database_from_query, found.spread) == (0, None, 0.0)
    assert found.inliers.shape == (len(found.matches),)
    assert found.matches.shape[1:] == (2,)


@pytest.mark.parametrize("mode", ["standard", "paper"])
@pytest.mark.parametrize("direction", [(0, 0), (1, 2)], ids=["one-place", "one-line"])
def test_keypoints_without_extent_are_harmless(mode, direction):
    query, database = scene(num_same=40, num_other=0)
    points = np.arange(40)[:, None] * np.float32(direction)
    query = dataclasses.replace(query, keypoints=points.astype(np.float32))
    found = verified(query, database, VerificationSettings(mode=mode))
    assert found.spread == 0
    assert len(found.inliers) == len(found.matches)


@pytest.mark.parametrize("mode", ["standard", "paper"])
def test_many_images_are_verified_as_one_by_one(mode):
    settings = VerificationSettings(mode=mode)
    query, _ = scene(seed=0)
    databases = [scene(seed=seed, num_other=10 * seed)[1] for seed in range(4)]
    databases.append(LocalFeatures.empty(32))
    databases[0] = scene(seed=0)[1]
    many = verify_many(query, databases, SIZE, [SIZE] * 5, settings)
    for database, actual in zip(databases, many, strict=True):
        assert_same(actual, verify(query, database, SIZE, SIZE, settings))
    assert many[0].num_inliers >= 60


def test_enough_images_for_threads_are_verified_as_one_by_one():
    query, _ = scene()
    databases = [scene(seed=seed % 3, num_other=10 + seed)[1] for seed in range(19)]
    many = verify_many(query, databases, SIZE, [SIZE] * 19)
    for database, actual in zip(databases, many, strict=True):
        assert_same(actual, verified(query, database))


@pytest.mark.parametrize("mode", ["standard", "paper"])
def test_nothing_outside_the_arguments_changes_a_bit(mode):
    settings = VerificationSettings(mode=mode)
    query, database = scene(TURNED, num_same=20, num_other=100)
    expected = verified(query, database, settings)
    cv2.setRNGSeed(1234)
    np.random.default_rng(5).random(3)
    verified(*scene(seed=9), settings)
    assert_same(verified(query, database, settings), expected)


def assert_same(actual, expected):
    assert_array_equal(actual.matches, expected.matches)
    assert_array_equal(actual.inliers, expected.inliers)
    assert_array_equal(actual.database_from_query, expected.database_from_query)
    assert actual.spread == expected.spread


def test_nothing_to_verify_gives_an_empty_list():
    assert verify_many(scene()[0], [], SIZE, []) == []


def test_each_database_image_needs_a_size():
    query, database = scene()
    with pytest.raises(ValueError, match="one size per image, got 1 sizes of 2 images"):
        verify_many(query, [database] * 2, SIZE, [SIZE])


def test_spread_is_the_share_of_the_query_inside_the_hull():
    corners = np.array([[0, 0], [512, 0], [512, 384], [0, 384], [9, 9]])
    side = features(corners, np.eye(5, 32))
    assert verified(side, side).spread == pytest.approx(0.25)


def test_regions_are_where_the_inliers_are_in_each_image():
    corners = np.array([[100, 100], [300, 100], [300, 200], [100, 200], [200, 150]])
    offset = np.array([40, 30])
    descriptors = np.eye(5, 32)
    query, database = features(corners, descriptors), features(corners + offset, descriptors)
    found = verified(query, database)
    query_region, database_region = regions(query, database, found, SIZE, (331, 400))
    assert_array_equal(query_region, corners[:4])
    assert_array_equal(database_region.max(axis=0), [330, 230])  # clipped to the last pixel


def test_no_inliers_have_no_regions():
    query, database = scene(num_same=2, num_other=0)
    assert [
        len(part) for part in regions(query, database, verified(query, database), SIZE, SIZE)
    ] == [
        0,
        0,
    ]


@pytest.mark.parametrize("noise", [0.0, 6.0, 15.0])
def test_paper_mode_scores_as_scikit_image_does(noise):
    query, database = scene(num_same=40, num_other=80, noise=noise, seed=3)
    matches, _ = match_nearest(query.descriptors, database.descriptors, 1.0)
    points = database.keypoints[matches[:, 1]], query.keypoints[matches[:, 0]]
    model, inliers = ransac(
        tuple(side.astype(np.float64) for side in points),
        AffineTransform,
        min_samples=3,
        residual_threshold=20,
        max_trials=1000,
        rng=0,
    )
    found = verified(query, database, PAPER)
    assert_array_equal(found.inliers, inliers)
    assert_allclose(found.database_from_query, invert_affine(model.params[:2]), rtol=1e-2, atol=0.5)


def test_paper_mode_reads_the_seed_only():
    query, database = scene(noise=15.0)
    other = VerificationSettings(mode="paper", max_residual=1.0, min_similarity=0.99, num_trials=1)
    assert_same(verified(query, database, other), verified(query, database, PAPER))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mode", "fast"),
        ("min_similarity", 1.5),
        ("max_residual", 0.0),
        ("max_residual", float("nan")),
        ("max_image_size", 0),
        ("num_trials", 0),
        ("seed", -1),
        ("min_inliers", 2),
        ("num_hypotheses", 0),
        ("max_scale_ratio", 0.5),
        ("max_zoom", 0.5),
        ("max_anisotropy", 0.5),
    ],
)
def test_settings_out_of_range_are_refused(field, value):
    with pytest.raises(ValueError, match=f"^{field} must be .*, got {value!r}$"):
        VerificationSettings(**{field: value})


@pytest.mark.parametrize(
    ("size", "reduction"),
    [((2048, 100), 2.0), ((1024, 768), 1.0), ((700, 400), 1.0), ((256, 128), 0.5)],
)
def test_sizes_are_compared_with_what_was_extracted(
    size: tuple[int, int], reduction: float
) -> None:
    settings = VerificationSettings(max_image_size=1024, min_image_size=512)
    assert settings.reduction(size) == reduction
