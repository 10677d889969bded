import numpy as np
import pytest

from opendelg.collection.nearest import NearestIndex, Stamp, remove_drafts
from tests.collection_samples import unit_rows

STAMP = Stamp(identity="0" * 32, revision=7, count=50, last_id=99, last_checksum=5)


def make_index(num_rows=50, num_columns=12, seed=0):
    rows = unit_rows(np.random.default_rng(seed), num_rows, num_columns)
    index = NearestIndex(num_columns)
    index.extend(np.arange(1, 2 * num_rows, 2), rows)
    return index, rows


@pytest.mark.parametrize("k", [1, 7, 50, 200])
def test_same_ranking_as_sorting_all_products(k):
    index, rows = make_index()
    query = unit_rows(np.random.default_rng(1), 1, 12)[0]
    products = rows.astype(np.float64) @ query.astype(np.float64)
    ids, similarities = index.search(query, k)
    expected = np.argsort(-products)[:k]
    np.testing.assert_array_equal(ids, 2 * expected + 1)
    np.testing.assert_allclose(similarities, products[expected], atol=1e-6)


@pytest.mark.parametrize("k", [1, 3, 30, 59, 60])
def test_equal_images_are_ranked_by_id(k):
    rng = np.random.default_rng(2)
    rows = unit_rows(rng, 120, 33)
    rows[::2] = rows[0]
    index = NearestIndex(33)
    index.extend(np.arange(120), rows)
    ids, similarities = index.search(rows[0], k)
    np.testing.assert_array_equal(ids, np.arange(0, 120, 2)[:k])
    assert len(set(similarities.tolist())) == 1


def test_pieces_give_the_same_index_as_the_whole():
    whole, rows = make_index()
    pieces = NearestIndex(12)
    pieces.extend(whole.ids[:20], rows[:20])
    pieces.extend(whole.ids[20:], rows[20:])
    np.testing.assert_array_equal(pieces.descriptors(), whole.descriptors())
    np.testing.assert_array_equal(pieces.ids, whole.ids)


def test_an_empty_index_finds_nothing():
    ids, similarities = NearestIndex(4).search(np.ones(4, np.float32), 3)
    assert (ids.shape, ids.dtype) == ((0,), np.int64)
    assert (similarities.shape, similarities.dtype) == ((0,), np.float32)


@pytest.mark.parametrize("name", ["nearest.faiss", "plus ä \udcff.faiss"])
def test_a_saved_index_comes_back_with_its_stamp(tmp_path, name):
    index, rows = make_index()
    assert index.save(tmp_path / name, STAMP)
    loaded, stamp = NearestIndex.load(tmp_path / name)
    assert stamp == STAMP
    np.testing.assert_array_equal(loaded.ids, index.ids)
    np.testing.assert_array_equal(loaded.descriptors(), rows)
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_a_loaded_index_can_grow(tmp_path):
    index, rows = make_index()
    index.save(tmp_path / "nearest.faiss", STAMP)
    loaded, _ = NearestIndex.load(tmp_path / "nearest.faiss")
    loaded.extend(np.array([200]), rows[:1])
    np.testing.assert_array_equal(loaded.search(rows[0], 2)[0], [1, 200])


@pytest.mark.parametrize("position", [0, 20, 1000, -1, -50, -90])
def test_any_changed_byte_makes_the_file_useless(tmp_path, position):
    path = tmp_path / "nearest.faiss"
    make_index()[0].save(path, STAMP)
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    assert NearestIndex.load(path) is None


@pytest.mark.parametrize("content", [b"", b"nonsense", bytes(5000)])
def test_other_content_is_not_an_index(tmp_path, content):
    path = tmp_path / "nearest.faiss"
    path.write_bytes(content)
    assert NearestIndex.load(path) is None


def test_a_missing_file_is_no_index(tmp_path):
    assert NearestIndex.load(tmp_path / "nearest.faiss") is None


def test_a_new_collection_is_told_to_have_no_index_yet(tmp_path, caplog):
    caplog.set_level("INFO")
    NearestIndex.load(tmp_path / "nearest.faiss")
    assert caplog.messages == [f"there is no index {tmp_path / 'nearest.faiss'} yet"]


def test_a_folder_that_is_missing_cannot_be_saved_to(tmp_path):
    assert not make_index()[0].save(tmp_path / "missing" / "nearest.faiss", STAMP)


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "nearest.faiss"
    path.write_bytes(b"old")
    index, _ = make_index()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("opendelg.collection.nearest.os.fsync", fail)
    assert not index.save(path, STAMP)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["nearest.faiss"]


def test_drafts_of_interrupted_saves_are_removed(tmp_path):
    (tmp_path / "nearest.faiss").touch()
    (tmp_path / "nearest.faiss.12ab.new").touch()
    remove_drafts(tmp_path / "nearest.faiss")
    assert [entry.name for entry in tmp_path.iterdir()] == ["nearest.faiss"]
