from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from opendelg.candidates import Candidate, confirmed, rerank
from opendelg.collection import Collection, FileStat, Recipe
from opendelg.expansion import ExpansionConfig
from opendelg.extraction import ExtractionConfig, Extractor
from opendelg.features import ImageFeatures
from opendelg.image import DecodedImage, read_image
from opendelg.indexing import index_photos, plan_indexing
from opendelg.runtime import Runtime
from opendelg.search import SearchConfig, Searcher, SearchResponse
from opendelg.verification import Verification, VerificationSettings
from opendelg.weights import Weights
from tests.conftest import draw_image

STANDARD, PAPER = VerificationSettings(), VerificationSettings(mode="paper")
CONFIG = ExtractionConfig(scales=(0.5, 1.0), global_scales=(1.0,), max_keypoints=200)


def candidate(image_id: int, similarity: float, num_inliers: int | None) -> Candidate:
    if num_inliers is None:
        return Candidate(image_id, similarity, None, None)
    matches = np.zeros((num_inliers, 2), np.int64)
    found = Verification(matches, np.ones(num_inliers, bool), None, 0.0)
    return Candidate(image_id, similarity, found, 0.5)


# 0.3 + 42/70 = 0.9, 0.8 + 0 = 0.8, 0.1 + 70/70 = 1.1
FOUND = [candidate(1, 0.3, 42), candidate(2, 0.8, 0), candidate(3, 0.1, 300)]


@pytest.mark.parametrize("settings", [STANDARD, PAPER])
def test_many_inliers_rank_before_similarity(settings: VerificationSettings) -> None:
    assert [found.id for found in rerank(FOUND, settings)] == [3, 1, 2]


@pytest.mark.parametrize(("settings", "expected"), [(STANDARD, [1, 2]), (PAPER, [2, 1])])
def test_few_inliers_rank_before_similarity_as_published_only(
    settings: VerificationSettings, expected: list[int]
) -> None:
    ranked = rerank([candidate(2, 0.5, 12), candidate(1, 0.8, 3)], settings)
    assert [found.id for found in ranked] == expected


@pytest.mark.parametrize("settings", [STANDARD, PAPER])
def test_ties_go_by_similarity_then_id(settings: VerificationSettings) -> None:
    ranked = rerank([candidate(3, 0.5, 7), candidate(1, 0.5, 7), candidate(2, 0.6, 7)], settings)
    assert [found.id for found in ranked] == [2, 1, 3]


def test_nothing_has_an_order() -> None:
    assert rerank([], STANDARD) == []


@pytest.fixture
def extractor(tiny_weights: Weights, tiny_runtime: Runtime) -> Extractor:
    return Extractor(tiny_weights, CONFIG, tiny_runtime)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six drawn photos; the last is a crop of the first."""
    for number in range(5):
        Image.fromarray(draw_image((320, 240), number).pixels).save(tmp_path / f"{number}.png")
    crop = draw_image((320, 240), 0).pixels[32:, 64:]
    Image.fromarray(crop).save(tmp_path / "crop.png")
    return tmp_path


@pytest.fixture
def collection(photos: Path, extractor: Extractor, tiny_weights: Weights) -> Collection:
    recipe = Recipe("tiny", tiny_weights.sha256, {}, {})
    made = Collection.create(photos / "c", recipe, "float16")
    index_photos(made, extractor, plan_indexing(made, [photos]))
    return made


def names(response: SimpleNamespace) -> list[str]:
    return [result.image.path.name for result in response.results]


def test_a_photo_finds_itself_first(
    collection: Collection, extractor: Extractor, photos: Path
) -> None:
    response = Searcher(collection, extractor).search(read_image(photos / "3.png"))
    assert names(response)[0] == "3.png"
    assert response.results[0].candidate.similarity == pytest.approx(1.0, abs=1e-5)


def test_a_crop_is_found_with_its_place(
    collection: Collection, extractor: Extractor, photos: Path
) -> None:
    response = Searcher(collection, extractor).search(read_image(photos / "crop.png"))
    whole = response.results[names(response).index("0.png")]
    assert whole.candidate.verification is not None
    transform = whole.candidate.verification.database_from_query
    assert transform is not None
    np.testing.assert_allclose(transform, [[1, 0, 64], [0, 1, 32]], atol=8)


def test_a_stored_image_is_left_out_of_its_own_results(
    collection: Collection, extractor: Extractor
) -> None:
    response = Searcher(collection, extractor).search_stored(2)
    assert 2 not in [result.image.id for result in response.results]
    assert len(response.results) == 5


def test_without_reranking_results_go_by_similarity(
    collection: Collection, extractor: Extractor, photos: Path
) -> None:
    searcher = Searcher(collection, extractor, SearchConfig(top=4, rerank=0))
    response = searcher.search(read_image(photos / "0.png"))
    similarities = [result.candidate.similarity for result in response.results]
    assert similarities == sorted(similarities, reverse=True)
    assert [result.candidate.same for result in response.results] == [None] * 4


def test_what_was_not_verified_follows_what_was(
    collection: Collection, extractor: Extractor, photos: Path
) -> None:
    searcher = Searcher(collection, extractor, SearchConfig(top=6, rerank=2))
    response = searcher.search(read_image(photos / "0.png"))
    verified = [result.candidate.verification is not None for result in response.results]
    assert verified == [True] * 2 + [False] * 4


def test_a_box_searches_that_part(
    collection: Collection, extractor: Extractor, photos: Path, drawn: Callable[..., DecodedImage]
) -> None:
    response = Searcher(collection, extractor).search(drawn((320, 240), 0), (64, 32, 320, 240))
    assert response.query.local.keypoints.min(axis=0).tolist() == [64, 32]
    assert set(names(response)[:2]) == {"0.png", "crop.png"}


def test_an_empty_collection_answers_with_nothing(
    extractor: Extractor, tmp_path: Path, drawn: Callable[..., DecodedImage]
) -> None:
    with Collection.create(tmp_path / "c", Recipe("tiny", "0", {}, {})) as empty:
        assert Searcher(empty, extractor).search(drawn((96, 64))).results == ()


def test_searching_sees_what_another_connection_adds(
    collection: Collection, extractor: Extractor, photos: Path
) -> None:
    query = extractor.extract(read_image(photos / "0.png"))
    with Collection.open(photos / "c", read_only=True) as reader:
        searcher = Searcher(reader, extractor)
        before = len(searcher.search_features(query).results)
        added = ImageFeatures((320, 240), query.global_descriptor, query.local)
        collection.add(photos / "new.png", photos, FileStat(1, 1, "0"), added)
        assert len(searcher.search_features(query).results) == before + 1


def searcher(collection: Collection, extractor: Extractor, **expansion: float) -> Searcher:
    config = SearchConfig(expansion=ExpansionConfig(**expansion))  # type: ignore[arg-type]
    return Searcher(collection, extractor, config)


def ids_and_inliers(response: SearchResponse) -> list[tuple[int, int]]:
    return [(result.image.id, result.candidate.num_inliers) for result in response.results]


def test_a_query_is_expanded_with_its_nearest_images_other_than_itself(
    collection: Collection, extractor: Extractor
) -> None:
    response = searcher(collection, extractor, nearest=2, alpha=2.0).search_stored(2)
    plain = Searcher(collection, extractor, SearchConfig(rerank=0)).search_stored(2)
    used = [result.image.id for result in plain.results[:2]]
    assert response.expanded_with == tuple(used)
    query = collection.global_descriptor(2)
    total = query + sum(
        result.candidate.similarity**2 * collection.global_descriptor(result.image.id)
        for result in plain.results[:2]
    )
    found = {result.image.id: result.candidate for result in response.results}
    expected = collection.global_descriptor(used[0]) @ (total / np.linalg.norm(total))
    assert found[used[0]].expanded_similarity == pytest.approx(expected, abs=1e-6)
    assert found[used[0]].similarity == plain.results[0].candidate.similarity


def test_without_expansion_nothing_tells_of_one(
    collection: Collection, extractor: Extractor
) -> None:
    response = searcher(collection, extractor).search_stored(2)
    assert response.expanded_with is None
    assert [result.candidate.expanded_similarity for result in response.results] == [None] * 5


def test_an_expanded_query_is_verified_with_its_own_local_features(
    collection: Collection, extractor: Extractor
) -> None:
    plain = searcher(collection, extractor).search_stored(1)
    expanded = searcher(collection, extractor, nearest=5, verified=True).search_stored(1)
    assert dict(ids_and_inliers(expanded)) == dict(ids_and_inliers(plain))
    assert len(expanded.query.local) == len(plain.query.local)


def test_a_query_is_expanded_with_what_verification_confirmed(
    collection: Collection, extractor: Extractor, photos: Path
) -> None:
    response = searcher(collection, extractor, verified=True, min_inliers=20).search_stored(1)
    sure = [image_id for image_id, inliers in ids_and_inliers(response) if inliers >= 20]
    assert response.expanded_with == tuple(sure)
    assert "crop.png" in [collection.image(image_id).path.name for image_id in sure]


def test_a_query_of_which_nothing_is_confirmed_stays_what_it_is(
    collection: Collection, extractor: Extractor
) -> None:
    response = searcher(collection, extractor, verified=True, min_inliers=10**6).search_stored(1)
    assert response.expanded_with == ()
    plain = searcher(collection, extractor).search_stored(1)
    assert ids_and_inliers(response) == ids_and_inliers(plain)


def test_an_expanded_query_brings_new_images_that_are_verified_too(
    collection: Collection, extractor: Extractor
) -> None:
    config = SearchConfig(rerank=2, expansion=ExpansionConfig(verified=True, min_inliers=0))
    response = Searcher(collection, extractor, config).search_stored(1)
    verified = [result.candidate.verification is not None for result in response.results]
    assert 2 <= sum(verified) <= 4
    assert verified == sorted(verified, reverse=True)
    assert len(response.results) == 5


@pytest.mark.parametrize("verified", [True, False])
def test_an_empty_collection_expands_nothing(
    extractor: Extractor, tmp_path: Path, drawn: Callable[..., DecodedImage], verified: bool
) -> None:
    with Collection.create(tmp_path / "c", Recipe("tiny", "0", {}, {})) as empty:
        response = searcher(empty, extractor, nearest=3, verified=verified).search(drawn((96, 64)))
    assert (response.results, response.expanded_with) == ((), ())


def test_images_found_through_others_come_after_those_with_inliers() -> None:
    through = replace(candidate(1, 0.1, 0), expanded_similarity=0.9)
    further = replace(candidate(2, 0.3, 0), expanded_similarity=0.8)
    verified = replace(candidate(3, 0.2, 63), expanded_similarity=0.1)
    assert [found.id for found in rerank([further, through, verified], STANDARD)] == [3, 1, 2]


def test_the_surest_are_those_of_high_probability_else_of_many_inliers() -> None:
    rated = [replace(candidate(1, 0.5, 30), same=0.5), replace(candidate(2, 0.5, 8), same=0.95)]
    unrated = [replace(candidate(3, 0.5, 19), same=None), replace(candidate(4, 0.5, 20), same=None)]
    sure = confirmed([*rated, *unrated], ExpansionConfig(min_inliers=20))
    assert [found.id for found in sure] == [2, 4]
