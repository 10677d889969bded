import shutil
from pathlib import Path

import pytest

from opendelg.collection import Collection
from tests.collection_samples import add_image, file_stat, image_features, small_collection


@pytest.fixture
def home(tmp_path):
    """A folder with photos and their collection."""
    home = tmp_path / "home"
    (home / "photos").mkdir(parents=True)
    for seed in range(3):
        (home / "photos" / f"photo {seed:03}.jpg").touch()
    small_collection(home / "collection", home / "photos").close()
    return home


def path_of_first(folder):
    with Collection.open(folder, read_only=True) as collection:
        return collection.image(1).path


def test_photos_that_moved_along_are_found(home, tmp_path):
    home.rename(tmp_path / "new")
    assert path_of_first(tmp_path / "new/collection") == tmp_path / "new/photos/photo 000.jpg"


def test_photos_that_stayed_are_found(home, tmp_path):
    (home / "collection").rename(tmp_path / "moved")
    assert path_of_first(tmp_path / "moved") == home / "photos/photo 000.jpg"


def test_a_copy_of_both_uses_its_own_photos(home, tmp_path):
    shutil.copytree(home, tmp_path / "copy")
    assert path_of_first(tmp_path / "copy/collection") == tmp_path / "copy/photos/photo 000.jpg"


def test_a_folder_at_the_relative_place_is_not_mistaken_for_the_photos(home, tmp_path):
    (tmp_path / "other/photos").mkdir(parents=True)
    (home / "collection").rename(tmp_path / "other/collection")
    assert path_of_first(tmp_path / "other/collection") == home / "photos/photo 000.jpg"


def test_a_moved_collection_can_be_updated(home, tmp_path):
    home.rename(tmp_path / "new")
    photos = tmp_path / "new" / "photos"
    with Collection.open(tmp_path / "new/collection") as collection:
        assert len(collection.known(photos)) == 3
        assert add_image(collection, photos, 1) == 2
        assert add_image(collection, photos, 3) == 4
        assert collection.info().roots == (photos,)
    (tmp_path / "new/collection").rename(tmp_path / "again")
    assert path_of_first(tmp_path / "again") == photos / "photo 000.jpg"


def test_a_root_may_be_written_in_many_ways(home, monkeypatch):
    (home / "link").symlink_to(home / "photos")
    monkeypatch.chdir(home)
    with Collection.open(home / "collection") as collection:
        for root in [Path("photos"), home / "link", home / "x/../photos"]:
            path = root / "photo 001.jpg"
            assert collection.add(path, root, file_stat(1), image_features(1)) == 2
        assert collection.info().roots == (home / "photos",)


def test_roots_inside_one_another_count_a_photo_once(home):
    photos = home / "photos"
    with Collection.open(home / "collection") as collection:
        deep = add_image(collection, photos, 7, "2020/deep.jpg")
        assert add_image(collection, photos / "2020", 7, "deep.jpg") == deep
        assert add_image(collection, home, 1, "photos/photo 001.jpg") == 2
        assert len(collection) == 4
        assert Path("deep.jpg") in collection.known(photos / "2020")
        assert set(collection.known(photos / "2020")) == {Path("deep.jpg")}
        assert Path("photos/2020/deep.jpg") in collection.known(home)


def test_names_that_only_start_alike_are_other_folders(home):
    with Collection.open(home / "collection") as collection:
        add_image(collection, home / "photos", 7, "a/x.jpg")
        assert collection.known(home / "photos" / "a b") == {}
        assert collection.known(home / "photo") == {}


def test_two_roots_may_hold_the_same_names(home):
    with Collection.open(home / "collection") as collection:
        image_id = add_image(collection, home / "more", 0)
        assert image_id == 4
        assert collection.find(home / "more/photo 000.jpg") == 4
        assert collection.find(home / "photos/photo 000.jpg") == 1
        assert len(collection.known(home / "more")) == 1


def test_photos_in_the_root_of_the_file_system_are_legal(home):
    with Collection.open(home / "collection") as collection:
        image_id = add_image(collection, Path("/"), 8, "x.jpg")
        assert collection.image(image_id).path == Path("/x.jpg")
        assert collection.find(Path("/x.jpg")) == image_id
        assert Path("x.jpg") in collection.known(Path("/"))
