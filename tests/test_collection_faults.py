"""Foreign, damaged, read-only and full: what a user's disk does to a collection."""

import os
import shutil
import sqlite3
import tempfile
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from opendelg.collection import Collection
from opendelg.errors import FormatError, OpenDelgError
from tests.collection_samples import RECIPE, add_image, image_features, small_collection


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "collection"
    with small_collection(folder, tmp_path) as collection:
        collection.update_index()
    return folder


def execute(folder, *statements):
    with closing(sqlite3.connect(folder / "catalogue.sqlite", isolation_level=None)) as sql:
        for statement in statements:
            sql.execute(statement)


def first_neighbour(folder, seed=1):
    with Collection.open(folder, read_only=True) as collection:
        return collection.nearest(image_features(seed).global_descriptor, 1)[0].tolist()


@contextmanager
def as_ordinary_user():
    """Drops the right of root to write anywhere, as far as the system lets us."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def read_only_folder(folder):
    """A collection that an ordinary user may read but not write."""
    place = Path(tempfile.mkdtemp())
    copy = place / "collection"
    shutil.copytree(folder, copy)
    for path in [place, copy]:
        path.chmod(0o555)
    for path in copy.iterdir():
        path.chmod(0o444)
    yield copy
    place.chmod(0o755)
    copy.chmod(0o755)
    shutil.rmtree(place)


@pytest.mark.parametrize("read_only", [True, False])
def test_a_folder_without_collection_is_refused(tmp_path, read_only):
    with pytest.raises(FormatError, match="must be a folder made by `delg index`"):
        Collection.open(tmp_path / "missing", read_only)
    with pytest.raises(FormatError, match="must be a folder made by `delg index`"):
        Collection.open(tmp_path, read_only)
    assert list(tmp_path.iterdir()) == []


def test_a_second_collection_in_a_folder_is_refused(folder):
    with pytest.raises(FormatError, match="folder must not hold a collection yet"):
        Collection.create(folder, RECIPE)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OpenDelgError, match="collection must be in a folder"):
        Collection.create(tmp_path / "file", RECIPE)
    with pytest.raises(FormatError, match="must be a folder made by `delg index`"):
        Collection.open(tmp_path / "file")


@pytest.mark.parametrize("read_only", [True, False])
def test_a_file_that_is_not_sqlite_is_refused(folder, read_only):
    (folder / "catalogue.sqlite").write_bytes(b"GIF89a" * 1000)
    with pytest.raises(FormatError, match=r"intact SQLite file, got .*catalogue.sqlite"):
        Collection.open(folder, read_only)


@pytest.mark.parametrize("read_only", [True, False])
def test_another_programs_database_is_refused(folder, read_only):
    execute(folder, "PRAGMA application_id = 7")
    with pytest.raises(FormatError, match="of another program"):
        Collection.open(folder, read_only)


def test_a_newer_version_is_refused(folder):
    execute(folder, "PRAGMA user_version = 99")
    with pytest.raises(FormatError, match=r"version 3 or older, got 99 .*upgrade"):
        Collection.open(folder)


def test_a_cut_catalogue_is_refused(folder):
    path = folder / "catalogue.sqlite"
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(FormatError, match=r"intact SQLite file.*restore it from a copy"):
        Collection.open(folder, read_only=True)


@pytest.mark.parametrize("page", range(1, 9))
def test_a_page_of_rubbish_is_found(folder, page):
    path = folder / "catalogue.sqlite"
    content = bytearray(path.read_bytes())
    content[page << 13 : (page + 1) << 13] = b"\xa5" * (1 << 13)
    path.write_bytes(content)
    with Collection.open(folder, read_only=True) as collection:
        assert collection.verify() != []


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        pytest.param(
            "UPDATE local_features SET record = substr(record, 1, 50) WHERE image_id = 2",
            "image 2 'photo 001.jpg': local features are damaged",
            id="local features cut",
        ),
        pytest.param(
            "UPDATE global_descriptors SET descriptor = zeroblob(64) WHERE image_id = 3",
            "image 3 'photo 002.jpg': global descriptor is damaged",
            id="global descriptor changed",
        ),
        pytest.param(
            "DELETE FROM local_features WHERE image_id = 1",
            "image 1 'photo 000.jpg': local features are missing",
            id="local features lost",
        ),
        pytest.param(
            "DELETE FROM global_descriptors WHERE image_id = 1",
            "image 1 'photo 000.jpg': global descriptor is missing",
            id="global descriptor lost",
        ),
        pytest.param(
            "DELETE FROM images WHERE id = 1",
            "1 rows refer to images for global descriptors that do not exist",
            id="orphan",
        ),
        pytest.param(
            "UPDATE images SET num_local = 4 WHERE id = 1",
            "image 1: row is damaged",
            id="facts changed",
        ),
    ],
)
def test_verify_names_the_fault(folder, statement, problem):
    execute(folder, statement)
    with Collection.open(folder, read_only=True) as collection:
        assert collection.verify()[0].startswith(problem)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE collection SET recipe = x'00', identity = x'00'",
        "UPDATE images SET width = 'wide'",
        "DELETE FROM roots",
        "UPDATE roots SET absolute = 7",
        "UPDATE local_features SET record = 'text'",
        "UPDATE global_descriptors SET descriptor = 'text'",
        "ALTER TABLE images RENAME COLUMN width TO breadth",
        "DELETE FROM collection",
    ],
)
def test_any_damage_is_an_error_with_a_remedy(folder, statement):
    execute(folder, statement)
    (folder / "nearest.faiss").unlink()

    def use_everything():
        with Collection.open(folder, read_only=True) as collection:
            assert collection.verify() != []
            collection.nearest(image_features(1).global_descriptor, 1)
            collection.images([1, 2, 3])
            collection.local_features([1, 2, 3])

    with pytest.raises(FormatError, match=r"; .*(index|restore)"):
        use_everything()


def test_damaged_local_features_are_not_returned(folder):
    execute(folder, "UPDATE local_features SET record = zeroblob(200) WHERE image_id = 2")
    with Collection.open(folder, read_only=True) as collection:
        with pytest.raises(FormatError, match=r"image 2 must be intact.*delg verify"):
            collection.local_features([1, 2])
        assert len(collection.local_features([1, 3])) == 2


@pytest.mark.parametrize("content", [None, b"", b"nonsense" * 500], ids=["none", "empty", "other"])
def test_search_works_without_a_sound_index_file(folder, content):
    path = folder / "nearest.faiss"
    path.unlink() if content is None else path.write_bytes(content)
    assert first_neighbour(folder) == [2]


def test_verify_names_a_damaged_index(folder):
    (folder / "nearest.faiss").write_bytes(b"nonsense")
    with Collection.open(folder, read_only=True) as collection:
        assert collection.verify() == [
            "nearest.faiss is damaged or unreadable; the next search does without it"
        ]


def test_update_index_replaces_a_damaged_file(folder):
    (folder / "nearest.faiss").write_bytes(b"nonsense")
    with Collection.open(folder) as collection:
        collection.update_index()
        assert collection.verify() == []


def test_the_index_of_another_collection_is_not_used(folder, tmp_path):
    with Collection.create(tmp_path / "other", RECIPE) as other:
        for seed in [1, 0, 2]:
            add_image(other, tmp_path, seed)
        other.update_index()
    shutil.copy(tmp_path / "other/nearest.faiss", folder)
    assert first_neighbour(folder) == [2]


def test_an_older_copy_put_back_and_continued_does_not_use_the_newer_index(folder, tmp_path):
    shutil.copy(folder / "catalogue.sqlite", tmp_path / "old")
    with Collection.open(folder) as collection:
        add_image(collection, tmp_path, 7)
        collection.update_index()
    shutil.copy(tmp_path / "old", folder / "catalogue.sqlite")
    with Collection.open(folder) as collection:
        add_image(collection, tmp_path, 8)
        similarity = collection.nearest(image_features(8).global_descriptor, 1)[1]
    np.testing.assert_allclose(similarity, 1.0, atol=1e-6)


def test_a_read_only_folder_can_be_searched(read_only_folder):
    with as_ordinary_user():
        assert first_neighbour(read_only_folder) == [2]
        with Collection.open(read_only_folder, read_only=True) as collection:
            assert len(collection.local_features([1, 2, 3])) == 3
            collection.update_index()


def test_a_read_only_folder_without_index_can_be_searched(read_only_folder):
    read_only_folder.chmod(0o755)
    (read_only_folder / "nearest.faiss").unlink()
    read_only_folder.chmod(0o555)
    with as_ordinary_user():
        assert first_neighbour(read_only_folder) == [2]


def test_writing_to_a_read_only_folder_says_so(read_only_folder):
    with as_ordinary_user(), pytest.raises(OpenDelgError, match="that you may write"):
        Collection.open(read_only_folder)


def test_creating_in_a_read_only_folder_says_so(read_only_folder):
    with as_ordinary_user():
        with pytest.raises(OpenDelgError, match="that you may write"):
            Collection.create(read_only_folder / "new", RECIPE)
        with pytest.raises(OpenDelgError, match="that you may write"):
            Collection.create(read_only_folder.parent, RECIPE)


def test_a_reader_on_a_read_only_folder_notices_a_writer(read_only_folder, tmp_path):
    with as_ordinary_user():
        reader = Collection.open(read_only_folder, read_only=True)
        assert len(reader) == 3
    read_only_folder.chmod(0o777)
    for path in read_only_folder.iterdir():
        path.chmod(0o666)
    with Collection.open(read_only_folder) as writer:
        add_image(writer, tmp_path, 7)
    with as_ordinary_user():
        assert len(reader) == 4
        reader.close()


def test_a_collection_opened_for_reading_cannot_be_changed(folder, tmp_path):
    with Collection.open(folder, read_only=True) as collection:
        with pytest.raises(OpenDelgError, match="open for writing"):
            add_image(collection, tmp_path, 7)
        with pytest.raises(OpenDelgError, match="open for writing"):
            collection.remove([1])


def test_a_full_disk_is_named_and_costs_only_the_open_batch(folder, tmp_path):
    with Collection.open(folder) as collection:
        before = collection.digest()
        sql = collection._catalogue._connection.sql
        (pages,) = sql.execute("PRAGMA page_count").fetchone()
        sql.execute(f"PRAGMA max_page_count = {pages}")

        def add_many():
            with collection.batch():
                for seed in range(10, 200):
                    add_image(collection, tmp_path, seed)

        with pytest.raises(OpenDelgError, match=r"disk must have room .*free some space"):
            add_many()
        assert collection.digest() == before
        sql.execute("PRAGMA max_page_count = 1000000")
        assert add_image(collection, tmp_path, 9) == 4
        assert collection.verify() == []


def test_a_batch_cannot_go_on_after_a_full_disk(folder, tmp_path):
    with Collection.open(folder) as collection:
        sql = collection._catalogue._connection.sql

        def go_on():
            with collection.batch():
                sql.execute("ROLLBACK")  # as SQLite does when the disk is full
                add_image(collection, tmp_path, 9)

        with pytest.raises(OpenDelgError, match="batch must end after a failed write"):
            go_on()
        assert len(collection) == 3


def test_an_interrupted_creation_is_repeated(tmp_path):
    for name in ["catalogue.sqlite.new", "catalogue.sqlite.new-wal", "catalogue.sqlite-wal"]:
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / "catalogue.sqlite").touch()
    with small_collection(tmp_path, tmp_path) as collection:
        assert collection.verify() == []
