"""Collections whose local descriptors are product-quantised, or one bit each."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from opendelg.collection import Collection, quantising
from opendelg.errors import FormatError
from opendelg.features import ImageFeatures, LocalFeatures
from tests.collection_samples import RECIPE, add_image, file_stat, image_features, local_features

LEARNT_ON = 1500  # descriptors; 30 images


@pytest.fixture(autouse=True)
def learns_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantising, "LEARNT_ON", LEARNT_ON)


def features(seed: int) -> ImageFeatures:
    whole = image_features(seed)
    return ImageFeatures(whole.size, whole.global_descriptor, local_features(seed, 50))


def fill(collection: Collection, root: Path, seeds: range) -> None:
    for seed in seeds:
        with collection.batch():
            path = root / f"{seed:03}.jpg"
            collection.add(path, root, file_stat(seed), features(seed))


def stored(collection: Collection, seed: int) -> LocalFeatures:
    return collection.local_features([seed + 1])[0]


def codes(collection: Collection) -> list[int]:
    """The precision of each record, as its header says."""
    records = collection._catalogue.records(collection.ids().tolist())
    return [records[image_id][4] for image_id in sorted(records)]


def test_records_are_int8_until_the_codebook_is_learnt(tmp_path: Path) -> None:
    with Collection.create(tmp_path / "c", RECIPE, "pq") as collection:
        fill(collection, tmp_path, range(29))
        assert codes(collection) == [1] * 29
        fill(collection, tmp_path, range(29, 32))
        assert codes(collection) == [3] * 32
        assert collection.verify() == []
        expected = features(7).local
        distortion = ((stored(collection, 7).descriptors - expected.descriptors) ** 2).sum(axis=1)
        assert distortion.mean() < 0.12
        np.testing.assert_allclose(stored(collection, 7).keypoints, expected.keypoints, atol=0.04)


def test_an_interrupted_run_ends_in_the_same_collection(tmp_path: Path) -> None:
    with Collection.create(tmp_path / "whole", RECIPE, "pq") as whole:
        fill(whole, tmp_path, range(35))
    for part in (range(10), range(10, 30), range(30, 35)):
        folder = tmp_path / "parts"
        opened = (
            Collection.open(folder)
            if Collection.exists(folder)
            else Collection.create(folder, RECIPE, "pq")
        )
        with opened:
            fill(opened, tmp_path, part)
    with Collection.open(tmp_path / "whole") as a, Collection.open(tmp_path / "parts") as b:
        assert a.digest() == b.digest()


def test_a_codebook_that_was_not_committed_is_not_used(tmp_path: Path) -> None:
    with Collection.create(tmp_path / "c", RECIPE, "pq") as collection:
        fill(collection, tmp_path, range(29))
        with suppress(KeyboardInterrupt), collection.batch():
            fill(collection, tmp_path, range(29, 31))
            raise KeyboardInterrupt
        assert codes(collection) == [1] * 29
        fill(collection, tmp_path, range(29, 31))
        assert collection.verify() == []


def test_readers_see_all_images_while_the_codebook_is_learnt(tmp_path: Path) -> None:
    with Collection.create(tmp_path / "c", RECIPE, "pq") as collection:
        fill(collection, tmp_path, range(29))
        with Collection.open(tmp_path / "c", read_only=True) as reader:
            with reader.snapshot():
                before = stored(reader, 3)
                fill(collection, tmp_path, range(29, 31))
                np.testing.assert_array_equal(stored(reader, 3).descriptors, before.descriptors)
            assert not np.array_equal(stored(reader, 3).descriptors, before.descriptors)


def test_images_without_local_features_teach_nothing(tmp_path: Path) -> None:
    with Collection.create(tmp_path / "c", RECIPE, "pq") as collection:
        whole = image_features(1)
        empty = ImageFeatures(whole.size, whole.global_descriptor, LocalFeatures.empty(8))
        collection.add(tmp_path / "a.jpg", tmp_path, file_stat(1), empty)
        assert len(stored(collection, 0)) == 0
        assert collection.verify() == []


def test_a_damaged_codebook_is_told(tmp_path: Path) -> None:
    with Collection.create(tmp_path / "c", RECIPE, "pq") as collection:
        fill(collection, tmp_path, range(31))
        collection._catalogue.query("UPDATE codebook SET content = x'00'")
        assert any("codebook must start with" in problem for problem in collection.verify())
        with pytest.raises(FormatError, match="codebook must start with"):
            stored(collection, 0)


def test_pq_takes_descriptors_that_it_can_divide_only(tmp_path: Path) -> None:
    with Collection.create(tmp_path / "c", RECIPE, "pq") as collection:
        whole = image_features(1)
        odd = ImageFeatures(whole.size, whole.global_descriptor, local_features(1, 5, 10))
        with pytest.raises(FormatError, match="multiple of 4 columns for pq, got 10"):
            collection.add(tmp_path / "a.jpg", tmp_path, file_stat(1), odd)
        assert len(collection) == 0


def test_one_bit_records_are_read_back_as_signs(tmp_path: Path) -> None:
    with Collection.create(tmp_path / "c", RECIPE, "1bit") as collection:
        add_image(collection, tmp_path, 5)
        back = stored(collection, 0).descriptors
        np.testing.assert_array_equal(np.sign(back), np.sign(image_features(5).local.descriptors))
        assert collection.info().precision == "1bit"
