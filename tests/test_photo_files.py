"""Paths that run through tars."""

import os
from pathlib import Path

import pytest

from opendelg.errors import ImageError, ImageTooLargeError
from opendelg.image import ImageLimits, read_file
from opendelg.photo_files import is_gone, is_there, place_in_tar, stat_photo
from tests.tar_samples import raw_member, write_files, write_raw


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    return write_files(tmp_path / "x.tar", {"a.jpg": b"one", "sub.tar/b.jpg": b"three"})


def test_a_file_in_a_tar_is_read_like_any_other(tar: Path) -> None:
    assert (read_file(tar / "a.jpg"), read_file(tar / "sub.tar/b.jpg")) == (b"one", b"three")


def test_a_tar_itself_is_a_file(tar: Path) -> None:
    assert read_file(tar) == tar.read_bytes()
    assert stat_photo(tar).size == tar.stat().st_size


def test_a_path_may_be_relative_or_run_through_links(
    tar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tar.parent / "link.TAR").symlink_to(tar)
    monkeypatch.chdir(tar.parent)
    assert read_file(Path("x.tar/a.jpg")) == read_file(Path("link.TAR/a.jpg")) == b"one"


def test_a_folder_named_like_a_tar_stays_a_folder(tmp_path: Path) -> None:
    (tmp_path / "x.tar").mkdir()
    (tmp_path / "x.tar" / "a.jpg").write_bytes(b"one")
    write_files(tmp_path / "x.tar" / "y.tar", {"b.jpg": b"two"})
    assert place_in_tar(tmp_path / "x.tar/a.jpg") is None
    assert read_file(tmp_path / "x.tar/a.jpg") == b"one"
    assert read_file(tmp_path / "x.tar/y.tar/b.jpg") == b"two"


def test_facts_are_the_size_of_the_file_and_the_time_of_the_tar(tar: Path) -> None:
    os.utime(tar, ns=(7, 7))
    first, second = stat_photo(tar / "a.jpg"), stat_photo(tar / "sub.tar/b.jpg")
    assert (first.size, first.mtime_ns, second.size, second.mtime_ns) == (3, 7, 5, 7)
    assert first.place != second.place


def test_limits_hold_for_files_in_tars(tar: Path) -> None:
    assert read_file(tar / "a.jpg", ImageLimits(max_file_bytes=3)) == b"one"
    with pytest.raises(ImageTooLargeError, match=r"at most 2 bytes, got 3 in .*x.tar/a.jpg"):
        read_file(tar / "a.jpg", ImageLimits(max_file_bytes=2))


@pytest.mark.parametrize("name", ["b.jpg", "a.jpg/b.jpg", "sub.tar", "../x.tar", "a.jpg\0"])
def test_what_is_not_in_a_tar_cannot_be_read(tar: Path, name: str) -> None:
    assert not is_there(tar / name)
    with pytest.raises(ImageError, match="image must be readable, got 'no such file in the tar'"):
        read_file(tar / name)


def test_a_tar_that_was_replaced_is_read_anew(tar: Path) -> None:
    assert read_file(tar / "a.jpg") == b"one"
    write_files(tar, {"0.jpg": b"none", "a.jpg": b"changed"})
    assert read_file(tar / "a.jpg") == b"changed"


def test_files_are_gone_if_the_tar_lacks_them_or_is_gone(tar: Path) -> None:
    assert not is_gone(tar / "a.jpg")
    assert is_gone(tar / "b.jpg")
    tar.unlink()
    assert is_gone(tar / "a.jpg")


def test_files_of_a_damaged_tar_may_still_be_there(tar: Path) -> None:
    write_raw(tar, [raw_member("a.jpg", b"one")], b"")
    assert not is_gone(tar / "sub.tar/b.jpg")


def test_files_of_a_tar_that_cannot_be_read_may_still_be_there(
    tar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: object, flags: int) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    assert not is_gone(tar / "a.jpg")
