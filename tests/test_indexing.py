import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from opendelg import indexing
from opendelg.collection import Collection
from opendelg.errors import ImageError, OpenDelgError
from opendelg.image import read_file
from opendelg.indexing import IndexReport, plan_indexing
from tests.conftest import draw_image

Index = Callable[..., IndexReport]


def save(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw_image((96, 64), seed).pixels).save(path)
    return path


def touch(path: Path) -> None:
    os.utime(path, ns=(0, 0))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number, name in enumerate(["0.png", "1.png", "sub/2.png"]):
        save(tmp_path / "photos" / name, number)
    return tmp_path / "photos"


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Make a folder impossible to list, or a file impossible to read."""
    scandir = os.scandir

    def run(refused: Path) -> None:
        def list_folder(path: str) -> object:
            if Path(path) == refused:
                raise PermissionError(13, "Permission denied", str(path))
            return scandir(path)

        def read(path: Path) -> bytes:
            if path == refused:
                raise ImageError(f"image must be readable, got 'i/o error' in {str(path)!r}")
            return read_file(path)

        monkeypatch.setattr(os, "scandir", list_folder)
        monkeypatch.setattr(indexing, "read_file", read)

    return run


# Paths that overlap


@pytest.mark.parametrize("other", [".", "sub", "../link", "../link/sub", "0.png", "../link/0.png"])
@pytest.mark.parametrize("is_first", [True, False])
def test_a_photo_given_in_two_ways_counts_once(
    collection: Collection, photos: Path, other: str, is_first: bool
) -> None:
    (photos.parent / "link").symlink_to(photos)
    given = [photos / other, photos] if is_first else [photos, photos / other]
    plan = plan_indexing(collection, given)
    names = sorted(str(photo.relative) for photo in plan.new)
    assert names == ["0.png", "1.png", "sub/2.png"]


def test_a_hidden_folder_inside_a_given_one_is_searched_if_it_is_given(
    index: Index, photos: Path
) -> None:
    save(photos / ".hidden" / "3.png", 3)
    assert index(photos, photos / ".hidden").num_added == 4
    assert index(photos, update=True).num_removed == 0


def test_the_same_photos_given_in_another_way_are_known(index: Index, photos: Path) -> None:
    (photos.parent / "link").symlink_to(photos)
    index(photos)
    again = index(photos.parent / "link", photos / "sub", photos / "0.png")
    assert (again.num_added, again.num_unchanged) == (0, 3)


# Folders that cannot be read, and folders that are empty


@pytest.mark.parametrize("folder", [".", "sub"])
def test_photos_of_an_unreadable_folder_stay_and_the_folder_is_a_failure(
    index: Index,
    collection: Collection,
    photos: Path,
    refuse: Callable[[Path], None],
    folder: str,
) -> None:
    index(photos)
    refuse(photos / folder)
    report = index(photos, update=True)
    reason = "folder must be readable, got 'permission denied'"
    assert report.failures == [(photos / folder, reason)]
    assert (report.num_removed, len(collection)) == (0, 3)


@pytest.mark.parametrize("given", [["sub"], [".", "sub"]])
def test_a_given_folder_that_lost_all_photos_is_refused(
    index: Index, collection: Collection, photos: Path, given: list[str]
) -> None:
    index(photos)
    (photos / "sub" / "2.png").unlink()
    with pytest.raises(OpenDelgError, match=r"folder must still hold photos, .*sub.* has 1;"):
        index(*(photos / name for name in given), update=True)
    assert len(collection) == 3


def test_photos_of_a_deleted_folder_inside_are_removed(index: Index, photos: Path) -> None:
    index(photos)
    (photos / "sub" / "2.png").unlink()
    (photos / "sub").rmdir()
    assert index(photos, update=True).num_removed == 1


# Failures


def test_a_file_that_was_never_read_is_tried_by_every_run(
    index: Index, photos: Path, refuse: Callable[[Path], None]
) -> None:
    refuse(photos / "0.png")
    assert len(index(photos).failures) == 1
    refuse(photos / "nothing")
    report = index(photos)
    assert (report.num_added, report.failures) == (1, [])


def test_a_damaged_file_is_tried_again_by_an_update_alone(
    index: Index, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "0.png").write_bytes(b"no photo")
    read: list[Path] = []

    def read_and_note(path: Path) -> bytes:
        read.append(path)
        return read_file(path)

    monkeypatch.setattr(indexing, "read_file", read_and_note)
    assert len(index(photos).failures) == 1
    assert len(index(photos).failures) == 1
    assert read.count(photos / "0.png") == 1
    assert len(index(photos, update=True).failures) == 1
    assert read.count(photos / "0.png") == 2


def test_a_damaged_file_that_was_mended_is_indexed(index: Index, photos: Path) -> None:
    (photos / "0.png").write_bytes(b"no photo")
    index(photos)
    save(photos / "0.png")
    report = index(photos)
    assert (report.num_added, report.failures) == (1, [])


def test_a_changed_file_that_cannot_be_read_keeps_its_image(
    index: Index, collection: Collection, photos: Path, refuse: Callable[[Path], None]
) -> None:
    index(photos)
    touch(photos / "0.png")
    refuse(photos / "0.png")
    report = index(photos, update=True)
    assert [path for path, _ in report.failures] == [photos / "0.png"]
    assert (len(collection), collection.failures()) == (3, [])


def test_a_changed_file_that_is_damaged_loses_its_image(
    index: Index, collection: Collection, photos: Path
) -> None:
    index(photos)
    (photos / "0.png").write_bytes(b"no photo")
    index(photos, update=True)
    assert (len(collection), len(collection.failures())) == (2, 1)


def test_reasons_do_not_depend_on_how_the_path_was_typed(
    index: Index, collection: Collection, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "empty.png").touch()
    (photos / "link.png").symlink_to(photos / "gone.png")
    monkeypatch.chdir(photos.parent)
    report = index(Path("photos"))
    reasons = {
        "image must not be empty, got 0 bytes",
        "image must be readable, got 'no such file or directory'",
    }
    assert {reason for _, reason in report.failures} == reasons
    assert {failure.reason for failure in collection.failures()} == reasons


# Files that were touched only


def test_touched_files_are_not_extracted_again(
    index: Index, collection: Collection, photos: Path
) -> None:
    index(photos)
    touch(photos / "0.png")
    report = index(photos, update=True)
    assert (report.num_updated, report.num_unchanged) == (0, 3)
    assert plan_indexing(collection, [photos]).changed == []
    assert collection.verify() == []
