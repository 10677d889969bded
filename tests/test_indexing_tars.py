"""Tars are indexed as if they were folders."""

import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from opendelg import finding
from opendelg.collection import Collection
from opendelg.errors import OpenDelgError
from opendelg.evidence import Side
from opendelg.evidence.photos import read_photo
from opendelg.extraction import Extractor
from opendelg.forecast import forecast
from opendelg.image import read_image
from opendelg.indexing import IndexReport, index_photos, plan_indexing
from opendelg.recipes import recipe_of
from opendelg.search import Searcher
from tests.conftest import draw_image
from tests.tar_samples import END, pack, raw_member, write_files, write_raw

Index = Callable[..., IndexReport]
NAMES = ["0.png", "1.png", "sub/2.png", "sub/Zürich 橋.png"]


def png(seed: int, folder: Path) -> bytes:
    path = folder / "drawn.png"
    Image.fromarray(draw_image((96, 64), seed).pixels).save(path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("drawings")
    return [png(seed, folder) for seed in range(8)]


@pytest.fixture
def files(drawings: list[bytes]) -> dict[str, bytes]:
    return dict(zip(NAMES, drawings, strict=False))


@pytest.fixture
def tar(tmp_path: Path, files: dict[str, bytes]) -> Path:
    (tmp_path / "photos").mkdir()
    return write_files(tmp_path / "photos" / "x.tar", files)


def paths(collection: Collection) -> list[Path]:
    return [image.path for image in collection.images(collection.ids())]


def planned(collection: Collection, *given: Path) -> list[Path]:
    return [photo.path for photo in plan_indexing(collection, given).new]


# A tar and a folder of the same photos


def test_a_tar_gives_what_its_folder_gives(
    tmp_path: Path, extractor: Extractor, files: dict[str, bytes]
) -> None:
    for name, data in files.items():
        path = tmp_path / "folder" / "y.tar" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (tmp_path / "tars").mkdir()
    pack(tmp_path / "tars" / "y.tar", tmp_path / "folder" / "y.tar")
    digests, found, drawn = [], [], []
    for root in (tmp_path / "folder", tmp_path / "tars"):
        with Collection.create(root / "c", recipe_of(extractor)) as made:
            index_photos(made, extractor, plan_indexing(made, [root]))
            query = root / "y.tar" / "0.png"
            assert made.find(query) == 1
            response = Searcher(made, extractor).search(read_image(query))
            digests.append((made.digest(), made.ids().tolist()))
        found.append(
            [(r.image.path.relative_to(root), r.candidate.similarity, r.candidate.num_inliers)
             for r in response.results]
        )  # fmt: skip
        photo = read_photo(Side("0.png", query, (96, 64)), 64)
        assert photo.is_as_indexed
        drawn.append(photo.pixels)
    assert digests[0] == digests[1]
    assert found[0] == found[1]
    np.testing.assert_array_equal(drawn[0], drawn[1])


def test_photos_in_a_tar_have_its_path_before_theirs(
    index: Index, collection: Collection, tar: Path
) -> None:
    assert index(tar).num_added == 4
    assert paths(collection) == [tar / name for name in NAMES]
    assert collection.info().roots == (tar.parent,)
    assert collection.verify() == []


@pytest.mark.parametrize("other", [".", "x.tar", "x.tar/sub", "y.tar/..", "x.tar/0.png"])
def test_a_photo_given_in_two_ways_counts_once(
    collection: Collection, tar: Path, other: str
) -> None:
    (tar.parent / "y.tar").mkdir()
    assert len(planned(collection, tar, tar.parent / other)) == 4
    assert len(planned(collection, tar.parent / other, tar)) == 4


def test_parts_of_a_tar_can_be_given(collection: Collection, tar: Path) -> None:
    assert planned(collection, tar / "sub") == [tar / name for name in NAMES[2:]]
    assert planned(collection, tar / "0.png") == [tar / "0.png"]


def test_the_same_tar_given_in_another_way_is_known(index: Index, tar: Path) -> None:
    index(tar)
    again = index(tar.parent)
    assert (again.num_added, again.num_unchanged) == (0, 4)
    assert index(tar / "sub").num_unchanged == 2


def test_a_tar_that_is_a_link_keeps_its_name(
    index: Index, collection: Collection, tar: Path
) -> None:
    tar.rename(tar.parent / "blob")
    tar.symlink_to(tar.parent / "blob")
    assert index(tar).num_added == 4
    assert paths(collection) == [tar / name for name in NAMES]
    assert collection.find(tar / "0.png") == 1


def test_a_folder_named_like_a_tar_is_a_folder(
    collection: Collection, tar: Path, files: dict[str, bytes]
) -> None:
    tar.unlink()
    for folder in ("x.tar", "empty.tar"):
        (tar.parent / folder).mkdir()
    (tar / "0.png").write_bytes(files["0.png"])
    plan = plan_indexing(collection, [tar.parent, tar])
    assert ([photo.path for photo in plan.new], plan.unreadable) == ([tar / "0.png"], [])


def test_hidden_files_are_left_out_unless_they_are_given(collection: Collection, tar: Path) -> None:
    names = ["._0.png", ".git/1.png", "__MACOSX/2.png", "a/@eaDir/3.png", "notes.txt", "4.PNG"]
    write_files(tar, dict.fromkeys(names, b""))
    assert planned(collection, tar) == [tar / "4.PNG"]
    assert planned(collection, tar / ".git") == [tar / ".git/1.png"]
    assert planned(collection, tar / "notes.txt") == [tar / "notes.txt"]


# Changes


def test_a_replaced_tar_is_updated(
    index: Index, collection: Collection, tar: Path, drawings: list[bytes]
) -> None:
    index(tar)
    again = {"0.png": drawings[5], "1.png": drawings[1], "sub/2.png": drawings[2], "new.png":
             drawings[6]}  # fmt: skip
    write_files(tar, again)
    outdated = index(tar)
    assert (outdated.num_added, outdated.num_outdated) == (1, 3)
    report = index(tar, update=True)
    counts = report.num_updated, report.num_removed, report.num_unchanged
    assert counts == (1, 1, 3)
    assert plan_indexing(collection, [tar]).changed == []
    assert collection.find(tar / NAMES[3]) is None


def test_a_photo_of_the_same_size_and_time_in_a_replaced_tar_is_noticed(
    index: Index, collection: Collection, tar: Path
) -> None:
    bmp = tar.parent.parent / "a.bmp"
    for seed in (0, 1):
        Image.fromarray(draw_image((96, 64), seed).pixels).save(bmp)
        write_files(tar, {"a.bmp": bmp.read_bytes()}, mtime=0)
        report = index(tar, update=True)
    assert report.num_updated == 1


def test_a_touched_tar_is_read_but_not_extracted(index: Index, tar: Path) -> None:
    index(tar)
    os.utime(tar, ns=(0, 0))
    report = index(tar, update=True)
    assert (report.num_updated, report.num_unchanged) == (0, 4)


def test_an_unpacked_tar_is_unchanged(index: Index, tar: Path) -> None:
    index(tar)
    tar.rename(tar.parent / "packed")
    with tarfile.open(tar.parent / "packed") as packed:
        packed.extractall(tar, filter="data")
    report = index(tar.parent, update=True)
    assert (report.num_updated, report.num_removed, report.num_unchanged) == (0, 0, 4)


def test_an_update_of_a_tar_leaves_its_neighbours(
    index: Index, collection: Collection, tar: Path, drawings: list[bytes]
) -> None:
    (tar.parent / "beside.png").write_bytes(drawings[7])
    index(tar.parent)
    (tar.parent / "beside.png").unlink()
    assert index(tar, update=True).num_removed == 0
    assert index(tar.parent, update=True).num_removed == 1


def test_photos_of_a_deleted_tar_are_removed_with_its_folder(
    index: Index, tar: Path, files: dict[str, bytes]
) -> None:
    write_files(tar.parent / "y.tar", files)
    index(tar.parent)
    tar.unlink()
    assert index(tar.parent, update=True).num_removed == 4


def test_a_folder_that_lost_its_only_tar_is_refused(
    index: Index, collection: Collection, tar: Path
) -> None:
    index(tar.parent)
    tar.unlink()
    with pytest.raises(OpenDelgError, match=r"folder must still hold photos, .* has 4;"):
        index(tar.parent, update=True)
    assert len(collection) == 4


@pytest.mark.parametrize("others", [0, 3])
def test_a_given_tar_that_lost_all_photos_is_refused(
    index: Index, tar: Path, files: dict[str, bytes], others: int
) -> None:
    more = [write_files(tar.parent / f"{n}.tar", files) for n in range(others)]
    index(tar, *more)
    write_files(tar, {"notes.txt": b"empty"})
    with pytest.raises(OpenDelgError, match=r"must still hold photos, .*x.tar', .* has 4;"):
        index(*more, tar, update=True)


def test_a_given_tar_that_is_gone_is_an_error(index: Index, tar: Path) -> None:
    index(tar)
    tar.unlink()
    with pytest.raises(OpenDelgError, match="photos must exist"):
        index(tar, update=True)


def test_photos_are_removed_by_their_paths(index: Index, collection: Collection, tar: Path) -> None:
    index(tar)
    assert collection.remove([tar / "sub/2.png"]) == 1
    assert index(tar).num_added == 1


# Damage


def test_photos_before_the_damage_are_indexed_and_those_behind_it_stay(
    index: Index, collection: Collection, tar: Path
) -> None:
    index(tar)
    data = tar.read_bytes()
    place = data.index(b"sub/2.png")
    tar.write_bytes(data[: place + 600])
    report = index(tar, update=True)
    reason = f"tar must be plain and intact, got 'cut off within the member at byte {place}'"
    assert report.failures == [(tar, reason)]
    assert (report.num_unchanged, report.num_removed, len(collection)) == (2, 0, 4)


def test_photos_behind_a_hole_in_a_tar_stay(
    index: Index, collection: Collection, tar: Path
) -> None:
    index(tar)
    data = bytearray(tar.read_bytes())
    place = data.index(b"1.png")
    data[place : place + 512] = bytes(512)
    tar.write_bytes(data)
    report = index(tar, update=True)
    assert [path for path, _ in report.failures] == [tar]
    assert (report.num_removed, len(collection)) == (0, 4)


def test_a_damaged_tar_does_not_stop_the_others(
    index: Index, tar: Path, files: dict[str, bytes]
) -> None:
    (tar.parent / "text.tar").write_text("no tar")
    (tar.parent / "empty.tar").touch()
    data = bytearray(write_files(tar.parent / "y.tar", files).read_bytes())
    data[data.index(b"sub/2.png")] ^= 0xFF
    (tar.parent / "y.tar").write_bytes(data)
    report = index(tar.parent)
    assert report.num_added == 4 + 2
    assert [path.name for path, _ in report.failures] == ["empty.tar", "text.tar", "y.tar"]


def test_a_tar_that_cannot_be_opened_is_reported(
    index: Index, tar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index(tar)

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(finding, "list_tar", refuse)
    report = index(tar.parent, update=True)
    assert report.failures == [(tar, "tar must be readable, got 'permission denied'")]
    assert report.num_removed == 0


def test_links_devices_and_mad_names_are_reported(
    index: Index, tar: Path, drawings: list[bytes]
) -> None:
    parts = [
        raw_member("link.jpg", kind=tarfile.SYMTYPE),
        raw_member("link", kind=tarfile.SYMTYPE),
        raw_member("pipe.jpg", kind=tarfile.FIFOTYPE),
        raw_member("../../up.jpg", drawings[0]),
        raw_member("/etc/absolute.png", drawings[1]),
        raw_member("caf\udce9.png", drawings[2]),
        raw_member("inner.tar", raw_member("hidden.png", drawings[3]) + END),
    ]
    report = index(write_raw(tar, parts))
    assert [str(path.relative_to(tar)) for path, _ in report.failures] == [
        "link.jpg",
        "pipe.jpg",
        "../../up.jpg",
    ]
    assert report.num_added == 2


def test_a_pipe_named_like_a_tar_is_a_failure(index: Index, tar: Path) -> None:
    os.mkfifo(tar.parent / "pipe.tar")
    (tar.parent / "nowhere.tar").symlink_to("nothing")
    report = index(tar.parent)
    assert [(path.name, "got " + reason.split("got ")[1]) for path, reason in report.failures] == [
        ("nowhere.tar", "got 'no such file or directory'"),
        ("pipe.tar", "got a pipe"),
    ]


def test_a_photo_in_a_tar_that_is_damaged_is_a_failure_that_is_kept(
    index: Index, collection: Collection, tar: Path, drawings: list[bytes]
) -> None:
    write_files(tar, {"bad.png": drawings[0][:200], "good.png": drawings[1]})
    assert index(tar).num_added == 1
    assert [failure.path for failure in collection.failures()] == [tar / "bad.png"]
    assert len(index(tar).failures) == 1


# Compressed tars


@pytest.mark.parametrize(
    ("name", "tool"),
    [("x.tar.gz", "gunzip"), ("x.TGZ", "gunzip"), ("x.tar.bz2", "bunzip2"), ("x.tar.xz", "unxz"),
     ("x.tar.zst", "unzstd")],
)  # fmt: skip
def test_a_compressed_tar_is_an_error_that_says_what_to_do(
    collection: Collection, tmp_path: Path, name: str, tool: str
) -> None:
    (tmp_path / name).touch()
    with pytest.raises(OpenDelgError, match=rf"tar must be a plain one .*\({tool}\) or unpack it"):
        plan_indexing(collection, [tmp_path / name])


def test_compressed_tars_below_a_folder_are_left_out_with_one_warning(
    collection: Collection, tar: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.tar.gz", "b.tgz", "c.gz"):
        (tar.parent / name).touch()
    plan = plan_indexing(collection, [tar.parent])
    assert (len(plan.new), plan.unreadable) == (4, [])
    (record,) = caplog.records
    assert record.getMessage().startswith("compressed tars are left out: 2, the first is")


# Where photos are


@pytest.mark.parametrize("given", [".", "x.tar"])
def test_a_tar_that_moved_along_is_found(
    tmp_path: Path, extractor: Extractor, files: dict[str, bytes], given: str
) -> None:
    home = tmp_path / "home"
    (home / "photos").mkdir(parents=True)
    tar = write_files(home / "photos" / "x.tar", files)
    with Collection.create(home / "c", recipe_of(extractor)) as made:
        index_photos(made, extractor, plan_indexing(made, [home / "photos" / given]))
    shutil.copytree(home, tmp_path / "copy")
    with Collection.open(tmp_path / "copy/c") as moved:
        there = tmp_path / "copy/photos"
        assert paths(moved) == [there / "x.tar" / name for name in NAMES]
        assert len(plan_indexing(moved, [there / given]).unchanged) == 4
        index_photos(moved, extractor, plan_indexing(moved, [there / given]), update=True)
        assert moved.info().roots == (there,)
    (home / "c").rename(tmp_path / "alone")
    with Collection.open(tmp_path / "alone", read_only=True) as alone:
        assert paths(alone)[0] == tar / "0.png"


def test_a_forecast_samples_tars(tar: Path, extractor: Extractor) -> None:
    assert forecast([tar], extractor, num_sampled=2).num_images == 4
