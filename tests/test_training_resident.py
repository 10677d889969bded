from dataclasses import replace

import numpy as np
import pytest
import torch

from opendelg.training.augmentation import AugmentationConfig
from opendelg.training.chance import LIGHT, Chance, seeds_of
from opendelg.training.resident import ResidentPhotos, random_corners

WHOLE = AugmentationConfig(min_area=1.0, max_aspect=1.0, max_rotation_deg=0.0, max_perspective=0.0)
CPU = torch.device("cpu")


def chance(count, seed):
    return Chance(seeds_of(seed, LIGHT, np.arange(count)), CPU)


def views(pixels, size, config, positions=(0,), seed=0):
    photos = ResidentPhotos(pixels, CPU)
    return photos.views(torch.tensor(positions), size, config, chance(len(positions), seed)).numpy()


@pytest.fixture
def ramp():
    """Red grows with x, green with y, blue is full: what lies outside would be black."""
    pixels = np.full((40, 60, 3), 255, np.uint8)
    pixels[..., 0], pixels[..., 1] = np.arange(60) * 4, np.arange(40)[:, None] * 6
    return pixels


def test_a_view_of_everything_is_the_photo(ramp):
    (view,) = views([ramp[:40, :40]], 40, WHOLE)
    np.testing.assert_allclose(view, ramp[:40, :40].transpose(2, 0, 1), atol=1.5)


def test_a_whole_view_squeezes_the_photo_to_a_square(ramp):
    (view,) = views([ramp], 20, WHOLE)
    np.testing.assert_allclose(view[0].mean(axis=0), np.arange(20) * 12 + 4, atol=2)
    np.testing.assert_allclose(view[1].mean(axis=1), np.arange(20) * 12 + 3, atol=2)


def test_nothing_outside_a_photo_is_seen(ramp):
    """The first photo is smaller than the canvas, whose rest is black."""
    hard = replace(AugmentationConfig(), max_rotation_deg=60.0, max_perspective=0.3)
    big = np.zeros((90, 90, 3), np.uint8)
    seen = views([ramp, big], 32, hard, positions=[0] * 64)
    assert seen[:, 2].min() > 254.9


def test_each_photo_gives_its_own_view(ramp):
    red, dark = views([ramp, ramp // 2], 16, WHOLE, positions=[0, 1])
    np.testing.assert_allclose(dark, red / 2, atol=1)


def test_the_same_seed_gives_the_same_views(ramp):
    config = AugmentationConfig()
    np.testing.assert_array_equal(
        views([ramp], 16, config, [0, 0], seed=3), views([ramp], 16, config, [0, 0], seed=3)
    )
    assert not np.array_equal(
        views([ramp], 16, config, [0], seed=3), views([ramp], 16, config, [0], seed=4)
    )


def test_boxes_lie_inside_the_photo_and_cover_the_least_area():
    config = AugmentationConfig(min_area=0.25, max_rotation_deg=0.0, max_perspective=0.0)
    sizes = torch.tensor([[300.0, 200.0]]).repeat(2000, 1)
    corners = random_corners(sizes, config, chance(2000, 0))
    low, high = corners.amin(dim=1), corners.amax(dim=1)
    assert low.min() > -1e-3
    assert (high - sizes).max() < 1e-3
    share = (high - low).prod(dim=1) / 60000
    # A box that would leave the photo is cut to it, at most by the stretch.
    assert share.min() > 0.25 / config.max_aspect
    assert share.max() > 0.9


def test_a_corner_of_the_view_shows_the_corner_of_the_quadrangle():
    """Red tells x and green y, so that each view says where its corners were taken from."""
    pixels = np.zeros((120, 120, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = np.arange(120) * 2, np.arange(120)[:, None] * 2
    config = AugmentationConfig(min_area=0.3, max_perspective=0.1)
    sizes = torch.full((16, 2), 120.0)
    corners = random_corners(sizes, config, chance(16, 5)).numpy()
    seen = views([pixels], 64, config, positions=[0] * 16, seed=5)
    shown = seen[:, :2, [0, 0, -1, -1], [0, -1, -1, 0]].transpose(0, 2, 1) / 2 + 0.5
    inside = ((corners > 2) & (corners < 118)).all(axis=2)
    assert inside.sum() > 16
    np.testing.assert_allclose(shown[inside], corners[inside], atol=2.5)
