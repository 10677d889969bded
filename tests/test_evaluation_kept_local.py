from functools import partial
from pathlib import Path

import numpy as np
import pytest

from opendelg.collection import Collection
from opendelg.errors import ImageError, OpenDelgError
from opendelg.evaluation.kept_local import KeptLocal
from opendelg.extraction import ExtractionConfig, Extractor
from opendelg.image import read_image
from opendelg.recipes import recipe_of
from tests.landmark_samples import jpeg


@pytest.fixture
def extractor(tiny_weights, tiny_runtime):
    config = ExtractionConfig(max_size=64, scales=(1.0,), global_scales=(1.0,), max_keypoints=5)
    return Extractor(tiny_weights, config, tiny_runtime)


@pytest.fixture
def collection(tmp_path, extractor):
    with Collection.create(tmp_path / "c", recipe_of(extractor), "float16") as opened:
        yield opened


def source(root: Path, seed: int):
    return root / "images_000.tar" / f"{seed}.jpg", partial(jpeg, seed)


def test_missing_images_are_extracted_once(tmp_path, collection, extractor) -> None:
    kept, done = KeptLocal(collection, extractor, tmp_path), []
    wanted = [source(tmp_path, seed) for seed in (3, 1, 3)]
    assert kept.num_missing(wanted) == 2
    ids = kept.ids(wanted, done.append)
    assert [path.name for path in done] == ["3.jpg", "1.jpg"]
    assert ids.tolist() == [1, 2, 1]
    again = KeptLocal(collection, extractor, tmp_path)
    assert again.num_missing(wanted) == 0
    assert again.ids([*wanted, source(tmp_path, 5)], done.append).tolist() == [1, 2, 1, 3]
    assert len(done) == 3


def test_the_features_are_those_of_the_image(tmp_path, collection, extractor) -> None:
    ids = KeptLocal(collection, extractor, tmp_path).ids([source(tmp_path, 2)])
    (found,) = collection.local_features(ids)
    expected = extractor.extract(read_image(jpeg(2))).local
    assert np.array_equal(found.keypoints, expected.keypoints)
    assert collection.images(ids)[0].size == (48, 40)


def test_what_was_committed_before_an_error_stays(
    tmp_path, collection, extractor, monkeypatch
) -> None:
    def broken() -> bytes:
        raise ImageError("image must be readable, got 'no such file or directory'")

    monkeypatch.setattr("opendelg.evaluation.kept_local.COMMIT_IMAGES", 1)
    sources = [source(tmp_path, 1), (tmp_path / "x.jpg", broken)]
    with pytest.raises(OpenDelgError, match=r"image must still be readable .*no such file"):
        KeptLocal(collection, extractor, tmp_path).ids(sources)
    assert len(collection) == 1
