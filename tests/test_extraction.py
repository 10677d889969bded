import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from opendelg.errors import ImageError, WeightsError
from opendelg.extraction import (
    PROFILES,
    ExtractionConfig,
    Extractor,
    extract_stream,
    profile,
)
from opendelg.features import ImageFeatures
from opendelg.image import DecodedImage, read_image
from opendelg.runtime import RawFeatures, Runtime
from opendelg.settings import read_settings, settings_as_dict
from opendelg.weights import Weights

Drawn = Callable[..., DecodedImage]
CONFIG = ExtractionConfig(scales=(0.5, 1.0), global_scales=(0.5, 1.0))
ONE_SCALE = ExtractionConfig(scales=(1.0,), global_scales=(1.0,))


class KnownScores:
    """A runtime whose cells have given scores; descriptors number the cells."""

    device = "cpu"

    def __init__(self, runtime: Runtime, *scores: np.ndarray) -> None:
        self.architecture = runtime.architecture
        self.scores = list(scores)
        self.images: list[np.ndarray] = []

    def run(self, images: np.ndarray, want_global: bool, want_local: bool) -> RawFeatures:
        scores = np.asarray(self.scores[len(self.images)], np.float32)
        self.images.append(images)
        cells = np.arange(1, scores.size + 1, dtype=np.float32).reshape(*scores.shape, 1)
        descriptors = np.concatenate([cells, np.zeros((*scores.shape, 7), np.float32)], axis=-1)
        raw_global = np.array([[3.0] + 15 * [4.0]], np.float32)
        return RawFeatures(raw_global, scores[None], descriptors[None])


def assert_equal(first: ImageFeatures, second: ImageFeatures) -> None:
    assert first.size == second.size
    assert np.array_equal(first.global_descriptor, second.global_descriptor)
    for name, array in vars(first.local).items():
        assert np.array_equal(array, getattr(second.local, name)), name


@pytest.fixture(scope="module")
def extractor(tiny_weights: Weights, tiny_runtime: Runtime) -> Extractor:
    return Extractor(tiny_weights, CONFIG, tiny_runtime)


def test_features_have_the_stated_shapes(extractor: Extractor, drawn: Drawn) -> None:
    features = extractor.extract(drawn((100, 60)))
    num_cells = 7 * 4 + 4 * 2  # 100 x 60 and 50 x 30 px in cells of 16, rounded up
    assert features.size == (100, 60)
    assert features.global_descriptor.shape == (16,)
    assert features.local.keypoints.shape == (num_cells, 2)
    assert features.local.descriptors.shape == (num_cells, 8)
    assert {array.dtype for array in vars(features.local).values()} == {np.dtype(np.float32)}


def test_descriptors_have_unit_length(extractor: Extractor, drawn: Drawn) -> None:
    features = extractor.extract(drawn((100, 60)))
    assert np.linalg.norm(features.global_descriptor) == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(np.linalg.norm(features.local.descriptors, axis=1), 1, atol=1e-6)


def test_keypoints_lie_at_cell_centres_of_the_original(
    tiny_weights: Weights, tiny_runtime: Runtime, drawn: Drawn
) -> None:
    config = replace(CONFIG, max_size=100)  # 200 x 120 px become 100 x 60: a factor of 2
    runtime = KnownScores(tiny_runtime, [[1, 2]], [[3, 4, 9], [5, 6, 7]])
    local = Extractor(tiny_weights, config, runtime).extract(drawn((200, 120))).local
    assert local.scores.tolist() == [9, 7, 6, 5, 4, 3, 2, 1]
    assert local.scales.tolist() == [1, 1, 1, 1, 1, 1, 0.5, 0.5]
    # cell (2, 0) at scale 1: 16 * 2 * 2; cell (1, 0) at scale 0.5: 16 * 1 / 0.5 * 2
    assert local.keypoints[[0, 1, 6]].tolist() == [[64, 0], [64, 32], [64, 0]]


def test_sides_shrunk_unequally_have_their_own_factors(
    tiny_weights: Weights, tiny_runtime: Runtime, drawn: Drawn
) -> None:
    config = replace(ONE_SCALE, max_size=50)  # 100 x 33 become 50 x 16 (16.5 rounds to even)
    runtime = KnownScores(tiny_runtime, [[1, 2], [4, 3]])
    local = Extractor(tiny_weights, config, runtime).extract(drawn((100, 33))).local
    np.testing.assert_allclose(local.keypoints[0], [0, 16 * 33 / 16])


def test_equal_scores_keep_the_order_of_scales_and_cells(
    tiny_weights: Weights, tiny_runtime: Runtime, drawn: Drawn
) -> None:
    runtime = KnownScores(tiny_runtime, [[1, 1]], [[1, 1, 1], [1, 1, 2]])
    config = replace(CONFIG, max_keypoints=4)
    local = Extractor(tiny_weights, config, runtime).extract(drawn((48, 32))).local
    assert local.scales.tolist() == [1, 0.5, 0.5, 1]
    assert local.keypoints.tolist() == [[32, 16], [0, 0], [32, 0], [0, 0]]


def test_scores_at_the_threshold_stay(
    tiny_weights: Weights, tiny_runtime: Runtime, drawn: Drawn
) -> None:
    runtime = KnownScores(tiny_runtime, [[1, 2, 3]])
    config = replace(ONE_SCALE, score_threshold=2.0)
    local = Extractor(tiny_weights, config, runtime).extract(drawn((48, 16))).local
    assert local.scores.tolist() == [3, 2]


def test_the_weights_threshold_counts_unless_one_is_set(
    tiny_weights: Weights, tiny_runtime: Runtime, drawn: Drawn
) -> None:
    strict = replace(tiny_weights, score_threshold=1e9)
    empty = Extractor(strict, CONFIG, tiny_runtime).extract(drawn((64, 64)))
    overridden = replace(CONFIG, score_threshold=0.0)
    full = Extractor(strict, overridden, tiny_runtime).extract(drawn((64, 64)))
    assert empty.local.descriptors.shape == (0, 8)
    assert empty.global_descriptor.shape == (16,)
    assert len(full.local) == 16 + 4


def test_the_network_sees_the_pyramid_of_the_resized_image(
    tiny_weights: Weights, tiny_runtime: Runtime, drawn: Drawn
) -> None:
    runtime = KnownScores(tiny_runtime, [[1]], [[1]])
    image = drawn((101, 51))
    Extractor(tiny_weights, CONFIG, runtime).extract(image)
    # Halves round to even: 50.5 to 50, 25.5 to 26.
    assert [images.shape for images in runtime.images] == [(1, 26, 50, 3), (1, 51, 101, 3)]
    assert np.array_equal(runtime.images[1][0], image.pixels)


def test_the_global_descriptor_is_the_same_without_local_features(
    tiny_weights: Weights, tiny_runtime: Runtime, drawn: Drawn
) -> None:
    config = replace(CONFIG, global_scales=(1.0, 0.7, 0.5))
    extractor = Extractor(tiny_weights, config, tiny_runtime)
    alone = extractor.extract(drawn((90, 70)), want_local=False)
    both = extractor.extract(drawn((90, 70)))
    assert np.array_equal(alone.global_descriptor, both.global_descriptor)
    assert alone.local.descriptors.shape == (0, 8)


def test_global_scales_count_equally_whatever_their_length(
    tiny_weights: Weights, tiny_runtime: Runtime, drawn: Drawn
) -> None:
    image = drawn((64, 64))
    raw = [
        tiny_runtime.run(_level(image, side), True, False).global_descriptors[0]
        for side in (32, 64)
    ]
    total = sum(descriptor / np.linalg.norm(descriptor) for descriptor in raw)
    actual = Extractor(tiny_weights, CONFIG, tiny_runtime).extract(image).global_descriptor
    np.testing.assert_allclose(actual, total / np.linalg.norm(total), atol=1e-6)


def _level(image: DecodedImage, side: int) -> np.ndarray:
    # Halving by half-pixel bilinear interpolation is the mean of 2 x 2 pixels.
    pixels = image.pixels.astype(np.float32)
    factor = len(pixels) // side
    return pixels.reshape(1, side, factor, side, factor, 3).mean(axis=(2, 4))


def test_a_batch_gives_what_single_images_give(extractor: Extractor, drawn: Drawn) -> None:
    images = [drawn(size, n) for n, size in enumerate([(64, 48), (48, 64), (64, 48), (64, 48)])]
    for batched, image in zip(extractor.extract_batch(images), images, strict=True):
        single = extractor.extract(image)
        np.testing.assert_allclose(batched.global_descriptor, single.global_descriptor, atol=1e-5)
        np.testing.assert_allclose(batched.local.keypoints, single.local.keypoints)


def test_extraction_repeats_bit_for_bit(extractor: Extractor, drawn: Drawn) -> None:
    assert_equal(extractor.extract(drawn((77, 91))), extractor.extract(drawn((77, 91))))


def test_a_box_gives_keypoints_of_the_whole_image(
    tiny_weights: Weights, tiny_runtime: Runtime, drawn: Drawn
) -> None:
    config = replace(ONE_SCALE, max_size=100)  # halves the whole image, so also the crop
    runtime = KnownScores(tiny_runtime, [[1, 2, 3]])
    features = Extractor(tiny_weights, config, runtime).extract(
        drawn((200, 100)), (40, 20, 120, 60)
    )
    assert runtime.images[0].shape == (1, 20, 40, 3)
    assert features.size == (200, 100)
    assert features.local.keypoints.tolist() == [[104, 20], [72, 20], [40, 20]]


def test_a_box_around_everything_changes_nothing(extractor: Extractor, drawn: Drawn) -> None:
    image = drawn((90, 70))
    assert_equal(extractor.extract(image, (-5, -5, 95, 75)), extractor.extract(image))


def test_an_impulse_is_felt_at_its_own_cell(tiny_weights: Weights, tiny_runtime: Runtime) -> None:
    plain = np.full((160, 240, 3), 128, np.uint8)
    changed = plain.copy()
    changed[94:99, 142:147] = 255  # around pixel (144, 96): the centre of cell (9, 6)
    extractor = Extractor(tiny_weights, ONE_SCALE, tiny_runtime)
    first, second = (
        extractor.runtime.run(pixels[None].astype(np.float32), False, True).local_descriptors[0]
        for pixels in (plain, changed)
    )
    difference = np.abs(first - second).sum(axis=-1)
    y, x = np.unravel_index(difference.argmax(), difference.shape)
    assert (x, y) == (9, 6)


@pytest.mark.parametrize("part", ["global_descriptors", "local_descriptors"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_descriptors_that_are_no_numbers_are_an_error(
    tiny_weights: Weights, tiny_runtime: Runtime, drawn: Drawn, part: str, value: float
) -> None:
    runtime = KnownScores(tiny_runtime, [[1, 1]])
    raw = runtime.run(np.zeros(0), True, True)
    broken = replace(raw, **{part: np.full_like(getattr(raw, part), value)})
    runtime.run = lambda *_: broken  # type: ignore[method-assign]
    with pytest.raises(WeightsError, match="descriptors must be finite"):
        Extractor(tiny_weights, ONE_SCALE, runtime).extract(drawn((64, 32)))


@pytest.mark.parametrize("size", [(9, 40), (40, 9), (1, 1)])
def test_images_below_ten_pixels_are_errors(
    size: tuple[int, int], extractor: Extractor, drawn: Drawn
) -> None:
    with pytest.raises(ImageError, match="at least 10 px"):
        extractor.extract(drawn(size))


@pytest.mark.parametrize("values", [{"min_size": 2**31 - 1}, {"min_size": 9000}])
def test_a_pyramid_that_would_fill_the_memory_is_an_error(
    values: dict[str, int], tiny_weights: Weights, tiny_runtime: Runtime, drawn: Drawn
) -> None:
    config = ExtractionConfig(max_size=-1, scales=(0.1,), global_scales=(1.0,), **values)
    with pytest.raises(ImageError, match="at most 33554432 px in a level, got"):
        Extractor(tiny_weights, config, tiny_runtime).prepare(drawn((40, 40)))


@pytest.mark.parametrize("size", [(10, 10), (10, 2000), (1500, 10)])
@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_takes_extreme_shapes(
    name: str, size: tuple[int, int], tiny_weights: Weights, tiny_runtime: Runtime, drawn: Drawn
) -> None:
    # Panoramas are first shrunk to few rows: lift the limit so that the rows remain.
    config = replace(profile(name), max_size=-1)
    features = Extractor(tiny_weights, config, tiny_runtime).extract(drawn(size))
    assert 0 < len(features.local) <= config.max_keypoints


@pytest.mark.parametrize("name", PROFILES)
def test_a_small_photo_gives_enough_keypoints(
    name: str, tiny_weights: Weights, tiny_runtime: Runtime, drawn: Drawn
) -> None:
    features = Extractor(tiny_weights, profile(name), tiny_runtime).extract(drawn((341, 256)))
    assert len(features.local) == profile(name).max_keypoints


def test_the_paper_profile_is_the_papers() -> None:
    config = profile("paper")
    assert config == ExtractionConfig()
    assert (config.max_size, config.min_size, config.max_keypoints) == (1024, -1, 1000)
    assert config.global_scales == config.scales[3:6]
    np.testing.assert_allclose(config.scales, 2.0 ** (np.arange(-4, 3) / 2), rtol=1e-6)


@pytest.mark.parametrize("name", PROFILES)
def test_profiles_survive_json(name: str) -> None:
    plain = settings_as_dict(profile(name))
    assert read_settings(ExtractionConfig, plain, "test") == profile(name)


def test_an_unknown_profile_names_the_known() -> None:
    with pytest.raises(ValueError, match="paper, accurate, balanced, fast, got 'best'"):
        profile("best")


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({"max_size": 0}, id="max_size"),
        pytest.param({"min_size": -2}, id="min_size"),
        pytest.param({"max_size": 500, "min_size": 501}, id="min_size above max_size"),
        pytest.param({"scales": ()}, id="no scales"),
        pytest.param({"scales": (1.0, 1.0)}, id="a scale twice"),
        pytest.param({"global_scales": (float("nan"),)}, id="NaN"),
        pytest.param({"max_keypoints": -1}, id="max_keypoints"),
        pytest.param({"score_threshold": float("nan")}, id="score_threshold"),
        pytest.param({"precision": "int4"}, id="precision"),
    ],
)
def test_settings_out_of_range_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"{next(reversed(values))} must be"):
        ExtractionConfig(**values)


def test_only_profiles_with_drafts_ask_for_them() -> None:
    assert profile("paper").draft_size is None
    assert profile("fast").draft_size == 480


@pytest.mark.parametrize(("decode_threads", "batch_size"), [(1, 1), (3, 1), (2, 4)])
def test_a_stream_keeps_the_order_and_survives_bad_files(
    decode_threads: int,
    batch_size: int,
    extractor: Extractor,
    drawn_files: list[Path],
    tmp_path: Path,
) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    bad = [tmp_path / "broken.jpg", tmp_path / "absent.png"]
    paths = [drawn_files[0], bad[0], *drawn_files[1:], bad[1]]
    results = list(extract_stream(paths, extractor, None, decode_threads, batch_size))
    assert [path for path, _ in results] == paths
    assert [path for path, result in results if isinstance(result, ImageError)] == bad
    single = extractor.extract(read_image(drawn_files[5]))
    np.testing.assert_allclose(results[6][1].global_descriptor, single.global_descriptor, atol=1e-5)


def test_a_stream_of_nothing_ends(extractor: Extractor) -> None:
    assert list(extract_stream([], extractor)) == []


def test_a_stream_reads_no_further_than_it_must(extractor: Extractor, drawn: Drawn) -> None:
    taken: list[int] = []

    def numbers() -> object:
        for number in range(100):
            taken.append(number)
            yield number

    stream = extract_stream(numbers(), extractor, lambda number: drawn((32, 32), number))
    next(stream)
    stream.close()
    assert len(taken) <= 4


def test_a_streams_threads_end_with_it(extractor: Extractor, drawn: Drawn) -> None:
    before = threading.active_count()
    stream = extract_stream(range(50), extractor, lambda number: drawn((32, 32), number), 2)
    next(stream)
    stream.close()
    assert threading.active_count() == before


def test_other_errors_of_a_loader_end_the_stream(extractor: Extractor) -> None:
    def fail(number: int) -> DecodedImage:
        raise KeyError(number)

    with pytest.raises(KeyError):
        list(extract_stream([1, 2], extractor, fail))
