"""Collections with so many images that their descriptors are set aside in segments."""

import os
from dataclasses import replace

import numpy as np
import pytest

from opendelg.collection import Collection, current_index
from opendelg.collection.codes import Codes
from opendelg.collection.current_index import CurrentIndex
from opendelg.collection.segments import EXHAUSTIVE, open_segment
from tests.collection_samples import (
    RECIPE,
    add_image,
    file_stat,
    image_features,
    local_features,
    unit_rows,
)

ROWS = 40  # of a segment here


@pytest.fixture(autouse=True)
def _small_segments(monkeypatch):
    monkeypatch.setattr(current_index, "SEGMENT_ROWS", ROWS)
    monkeypatch.setattr(current_index, "_CHUNK", 8)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "photos").mkdir()
    return tmp_path / "photos"


def make(folder, root, num_images=100):
    collection = Collection.create(folder, RECIPE)
    with collection.batch():
        for seed in range(num_images):
            add_image(collection, root, seed)
    collection.update_index()
    return collection


@pytest.fixture
def collection(tmp_path, root):
    with make(tmp_path / "collection", root) as made:
        yield made


def segments(collection):
    return sorted(path.name for path in collection.folder.glob("*.segment"))


def assert_exact(collection, k=30):
    """With so few images all are candidates: the answer must be that of sorting all products."""
    ids, rows = collection.global_descriptors()
    for query in unit_rows(np.random.default_rng(4), 4, 16):
        found, similarities = collection.nearest(query, k)
        products = (rows.astype(np.float64) * query.astype(np.float64)).sum(axis=1)
        order = np.lexsort((ids, -products.astype(np.float32)))[:k]
        np.testing.assert_array_equal(found, ids[order])
        np.testing.assert_allclose(similarities, products[order], atol=1e-6)


def test_many_images_are_set_aside_and_found(collection):
    assert segments(collection) == ["nearest-0-40-100.segment", "nearest-40-80-100.segment"]
    assert_exact(collection)


def test_an_opened_collection_reads_no_descriptor_of_the_catalogue(collection, monkeypatch):
    collection.close()
    with Collection.open(collection.folder, read_only=True) as opened:
        seen = []
        original = opened._catalogue.descriptors_after
        monkeypatch.setattr(
            opened._catalogue,
            "descriptors_after",
            lambda *bounds: seen.extend(rows := list(original(*bounds))) or iter(rows),
        )
        opened.nearest(image_features(5).global_descriptor, 3)
        assert seen == []
        assert opened.nearest(image_features(5).global_descriptor, 1)[0].tolist() == [6]


def test_added_images_leave_the_segments_alone(collection, root):
    before = segments(collection)
    for seed in range(100, 130):
        add_image(collection, root, seed)
    assert_exact(collection)
    collection.update_index()
    assert segments(collection) == [*before[:2], "nearest-80-124-130.segment"]
    assert_exact(collection)


def test_removed_images_are_not_found_and_cost_no_rebuild(collection):
    before = segments(collection)
    collection.remove([3, 40, 79, 81])
    collection.update_index()
    assert segments(collection) == before
    assert_exact(collection)
    assert not np.isin([3, 40, 79, 81], collection.nearest(np.ones(16, np.float32), 100)[0]).any()


def test_changed_images_are_found_as_they_are_now(collection, root):
    changed = replace(image_features(10), global_descriptor=image_features(777).global_descriptor)
    path = root / "photo 010.jpg"
    collection.add(path, root, file_stat(777), changed)
    collection.add(path, root, file_stat(778), changed)
    assert collection.nearest(changed.global_descriptor, 1)[0].tolist() == [11]
    assert_exact(collection)


def test_a_changed_image_that_is_removed_is_gone(collection, root):
    changed = replace(image_features(10), global_descriptor=image_features(777).global_descriptor)
    collection.add(root / "photo 010.jpg", root, file_stat(777), changed)
    collection.remove([11])
    assert_exact(collection)


def test_a_segment_that_lost_much_is_written_anew(collection):
    collection.remove(range(1, 21))
    collection.update_index()
    assert segments(collection) == ["nearest-0-40-120.segment", "nearest-40-80-100.segment"]
    assert_exact(collection)


def test_a_segment_that_lost_its_last_image_still_connects(collection):
    collection.remove(range(20, 41))
    collection.update_index()
    assert segments(collection) == ["nearest-0-19-121.segment", "nearest-40-80-100.segment"]
    collection.close()
    with Collection.open(collection.folder, read_only=True) as opened:
        assert_exact(opened)


def test_a_segment_that_lost_all_is_passed_over(collection):
    collection.remove(range(1, 41))
    collection.update_index()
    assert_exact(collection, k=60)


def test_all_may_be_removed(collection):
    collection.remove(range(1, 101))
    collection.update_index()
    assert collection.nearest(np.ones(16, np.float32), 5)[0].tolist() == []


def test_the_best_being_removed_together_does_not_hide_the_next(tmp_path, root, monkeypatch):
    monkeypatch.setattr(current_index, "SEGMENT_ROWS", 3000)
    monkeypatch.setattr(current_index, "_CHUNK", 1000)
    with Collection.create(tmp_path / "c", RECIPE) as collection:
        rng = np.random.default_rng(0)
        near = unit_rows(rng, 1, 256) + 0.02 * unit_rows(rng, 600, 256)
        rows = np.concatenate([near, unit_rows(rng, 2400, 256)])
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        with collection.batch():
            for seed, row in enumerate(rows.astype(np.float32)):
                features = replace(image_features(0), global_descriptor=row)
                features = replace(features, local=local_features(0, 1))
                collection.add(root / f"{seed}.jpg", root, file_stat(seed), features)
        collection.update_index()
        collection.remove(range(1, 600))
        found, _ = collection.nearest(rows[0].astype(np.float32), 1)
        assert found.tolist() == [600]


@pytest.mark.parametrize("position", [-2, -30, -300, -900])
def test_a_damaged_segment_is_reported_and_not_used(collection, position):
    path = collection.folder / segments(collection)[0]
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    assert "damaged" in collection.verify()[0]
    collection._index.forget()
    assert_exact(collection)
    assert collection.verify() == []


def test_damaged_descriptors_are_found_by_verify(collection):
    path = collection.folder / segments(collection)[0]
    with path.open("r+b") as file:
        file.seek(5)
        file.write(b"x")
    problems = collection.verify()
    assert problems[0] == (
        "descriptors in nearest-0-40-100.segment are damaged; delete it, it is made again"
    )
    assert "differs from the catalogue in image 1" in problems[1]


@pytest.mark.parametrize("number", [0, 1])
def test_a_missing_segment_is_made_again(collection, number):
    (collection.folder / segments(collection)[number]).unlink()
    collection._index.forget()
    assert_exact(collection)
    assert len(segments(collection)) >= 2
    assert collection.verify() == []


def test_a_kill_after_a_segment_was_written_adds_nothing_twice(tmp_path, root, monkeypatch):
    with make(tmp_path / "collection", root, ROWS) as collection:  # nothing is left beside it
        with collection.batch():
            for seed in range(ROWS, 2 * ROWS):
                add_image(collection, root, seed)
        with monkeypatch.context() as patch:
            patch.setattr(CurrentIndex, "_write", killed)
            with pytest.raises(KeyboardInterrupt):
                collection.update_index()
        assert len(segments(collection)) == 2
    with Collection.open(tmp_path / "collection") as collection:
        assert_exact(collection, k=2 * ROWS)
        assert len(collection.nearest(unit_rows(np.random.default_rng(4), 1, 16)[0], 999)[0]) == 80


def killed(*_arguments):
    raise KeyboardInterrupt


def test_what_a_killed_process_left_is_removed_at_the_next_start(collection):
    draft = collection.folder / ".89abcdef.part"
    draft.write_bytes(b"half a segment")
    collection.close()
    Collection.open(collection.folder, read_only=True).close()
    assert draft.exists()
    Collection.open(collection.folder).close()
    assert not draft.exists()


def test_segments_of_another_collection_are_not_used(collection, tmp_path, root):
    with make(tmp_path / "other", root, 90) as other:
        add_image(other, root, 555)
        for name in segments(other):
            os.replace(other.folder / name, collection.folder / f"x{name}")
    collection._index.forget()
    assert_exact(collection)
    collection.update_index()
    assert segments(collection) == ["nearest-0-40-100.segment", "nearest-40-80-100.segment"]


def test_a_folder_that_takes_no_segment_is_searched_all_the_same(collection, monkeypatch):
    for name in segments(collection):
        (collection.folder / name).unlink()
    monkeypatch.setattr(
        current_index, "write_segment", lambda *_: (_ for _ in ()).throw(OSError("full"))
    )
    collection._index.forget()
    assert_exact(collection)


def test_an_older_version_is_upgraded_when_it_is_written_to(collection):
    catalogue = collection._catalogue
    catalogue.query("DROP TABLE dropped")
    catalogue.query("DROP TABLE codebook")
    catalogue.query("PRAGMA user_version = 1")
    collection.close()
    with Collection.open(collection.folder, read_only=True) as opened:
        assert_exact(opened)
    with Collection.open(collection.folder) as opened:
        opened.remove([5])
        assert_exact(opened)
        opened.update_index()
        opened.remove([50])
        assert_exact(opened)


def test_an_older_version_that_was_changed_since_makes_its_segments_anew(collection):
    collection.remove([7])
    collection._catalogue.query("DROP TABLE dropped")
    collection._catalogue.query("DROP TABLE codebook")
    collection._catalogue.query("PRAGMA user_version = 1")
    collection.close()
    with Collection.open(collection.folder, read_only=True) as opened:
        assert_exact(opened)
    with Collection.open(collection.folder) as opened:
        assert_exact(opened)


def test_where_codes_do_not_serve_all_are_read(tmp_path, root, monkeypatch):
    monkeypatch.setattr("opendelg.collection.segments.measured_candidates", lambda *_: None)
    with make(tmp_path / "c", root) as collection:
        segment = open_segment(collection.folder / segments(collection)[0])
        assert segment.num_candidates == EXHAUSTIVE
        monkeypatch.setattr(Codes, "search", None)
        assert_exact(collection)


def test_info_says_how_a_search_goes(collection, tmp_path, root):
    assert collection.info().search == (
        "one-bit codes of 80 images in 2 segments, the best 200 measured exactly "
        "(recall at 100 of at least 0.99), and 20 images exactly"
    )
    with make(tmp_path / "few", root, 3) as few:
        assert few.info().search == "exact, 3 images"
