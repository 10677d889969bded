"""Bytes that are foretold, against those of collections that were written."""

import os
from pathlib import Path

import numpy as np
import pytest

from opendelg.collection import (
    PRECISIONS,
    Collection,
    Layout,
    Precision,
    current_index,
    pack_local,
    sizes,
)
from opendelg.collection.codebook import Codebook
from opendelg.collection.codes import Codes, code_bytes
from opendelg.collection.packing import record_bytes
from opendelg.collection.speed import made_up
from opendelg.features import ImageFeatures
from tests.collection_samples import RECIPE, file_stat, local_features


def written(
    folder: Path, root: Path, num_images: int, dimensions: int, precision: Precision = "int8"
) -> tuple[Layout, Path]:
    """A collection of seeded images with 0 to 399 keypoints, closed, and its layout."""
    rows = made_up(num_images, dimensions)
    numbers = np.random.default_rng(0).integers(0, 400, num_images)
    names = [f"{seed % 7}/photo number {seed}.jpg" for seed in range(num_images)]
    with Collection.create(folder, RECIPE, precision) as made:
        with made.batch():
            for seed, name in enumerate(names):
                features = ImageFeatures(
                    (640, 480), rows[seed], local_features(seed, int(numbers[seed]), 128)
                )
                made.add(root / name, root, file_stat(seed), features)
        made.update_index()
    return Layout(dimensions, 128, precision, numbers.tolist(), [len(n) for n in names]), folder


def bytes_of(folder: Path, pattern: str) -> int:
    return sum(os.path.getsize(path) for path in folder.glob(pattern))


@pytest.mark.parametrize("dimensions", [16, 512, 2048])
@pytest.mark.parametrize("precision", ["int8", "float16", "1bit"])
def test_the_catalogue_is_as_large_as_foretold(
    tmp_path: Path, dimensions: int, precision: Precision
) -> None:
    layout, folder = written(tmp_path / "c", tmp_path, 300, dimensions, precision)
    found = bytes_of(folder, "catalogue.sqlite*")
    assert layout.of(300).catalogue == pytest.approx(found, rel=0.02)


def test_an_exact_index_is_as_large_as_foretold(tmp_path: Path) -> None:
    layout, folder = written(tmp_path / "c", tmp_path, 300, 512)
    assert layout.of(300).index == pytest.approx(bytes_of(folder, "nearest.faiss"), abs=200)
    assert (layout.of(300).exact_images, layout.of(300).coded_images) == (300, 0)


def test_segments_are_as_large_as_foretold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(current_index, "SEGMENT_ROWS", 128)
    monkeypatch.setattr(current_index, "_CHUNK", 64)
    monkeypatch.setattr(sizes, "SEGMENT_ROWS", 128)
    layout, folder = written(tmp_path / "c", tmp_path, 300, 512)
    expected = layout.of(300)
    assert len(list(folder.glob("*.segment"))) == 2
    assert expected.index == pytest.approx(bytes_of(folder, "nearest*"), abs=2048)
    assert (expected.exact_images, expected.coded_images) == (44, 256)
    assert expected.mapped == 256 * 512 * 4


@pytest.mark.parametrize("count", [1, 31, 33, 1000])
@pytest.mark.parametrize("dimensions", [5, 512, 1000])
def test_codes_are_as_large_as_foretold(count: int, dimensions: int) -> None:
    found = len(Codes.encode(made_up(count, dimensions)).to_bytes())
    assert code_bytes(count, dimensions) == pytest.approx(found, abs=1024)


@pytest.mark.parametrize("count", [0, 1, 77])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_records_are_as_large_as_foretold(count: int, precision: Precision) -> None:
    book = Codebook.learn(local_features(1, 300, 128).descriptors) if precision == "pq" else None
    record = pack_local(local_features(0, count, 128), precision, book)
    assert record_bytes(count, 128, precision) == len(record)


def test_a_row_that_does_not_fit_a_page_takes_pages_of_its_own() -> None:
    assert 8192 < sizes.row_bytes([8200]) < 2 * 8192
    assert sizes.row_bytes([100]) < 120
    assert sizes.row_bytes([150_000]) == pytest.approx(150_000, rel=0.05)


def test_rows_of_different_sizes_share_pages() -> None:
    assert sizes.row_bytes([6000, 100]) == pytest.approx(8192 / 2, rel=0.01)
    assert sizes.row_bytes([5000, 5000]) == pytest.approx(8192, rel=0.01)
