"""Walking tars: every way of writing names, and every way of being broken."""

import io
import os
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from opendelg import tar_members
from opendelg.tar_members import TarListing, TarListings, list_tar
from tests.tar_samples import (
    blocks,
    header,
    pax_member,
    pax_records,
    raw_member,
    write_files,
    write_raw,
)

LONG = "/".join(["a folder with a long name"] * 12) + "/photo.jpg"


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    return tmp_path / "x.tar"


def listed(tar: Path) -> TarListing:
    with tar.open("rb") as file:
        return list_tar(file)


def contents(tar: Path) -> dict[str, bytes]:
    data = tar.read_bytes()
    return {name: data[start : start + size] for name, (start, size) in listed(tar).files.items()}


# Names


@pytest.mark.parametrize("format", ["gnu", "pax", "ustar"])
def test_files_of_every_format_are_found(tar: Path, format: str) -> None:
    files = {"a.jpg": b"one", "b/c.jpg": b"x" * 1000, "d" * 90 + "/" + "e" * 90: b"", "f": b"2"}
    write_files(tar, files, format, mtime=1.5)
    assert (contents(tar), listed(tar).fault) == (files, "")


@pytest.mark.parametrize("format", ["gnu", "pax"])
@pytest.mark.parametrize("name", [LONG, "Zürich/橋.jpg", f"ü{LONG}", "caf\udce9.jpg"])
def test_long_and_foreign_names_are_found(tar: Path, format: str, name: str) -> None:
    write_files(tar, {name: b"one", "b.jpg": b"two"}, format)
    assert contents(tar) == {name: b"one", "b.jpg": b"two"}


@pytest.mark.parametrize(
    ("name", "found"),
    [("./a.jpg", "a.jpg"), ("/etc/a.jpg", "etc/a.jpg"), (".//a/./b.jpg", "a/b.jpg")],
)
def test_names_count_from_the_tar(tar: Path, name: str, found: str) -> None:
    write_raw(tar, [raw_member(name, b"one")])
    assert contents(tar) == {found: b"one"}


def test_of_files_of_one_name_the_last_counts(tar: Path) -> None:
    write_raw(tar, [raw_member("a.jpg", b"one"), raw_member("./a.jpg", b"two")])
    assert contents(tar) == {"a.jpg": b"two"}


def test_a_link_that_takes_the_place_of_a_file_counts(tar: Path) -> None:
    write_raw(tar, [raw_member("a.jpg", b"one"), raw_member("a.jpg", kind=tarfile.SYMTYPE)])
    assert (contents(tar), [*listed(tar).refused]) == ({}, ["a.jpg"])


def test_a_size_in_an_extended_header_counts(tar: Path) -> None:
    member = bytearray(raw_member("a.jpg", b"123456789"))
    member[:512] = header("a.jpg", 0).tobuf(tarfile.GNU_FORMAT)
    extended = raw_member("pax", pax_records({"size": "9"}), tarfile.XHDTYPE)
    write_raw(tar, [extended, bytes(member), raw_member("b.jpg", b"two")])
    assert contents(tar) == {"a.jpg": b"123456789", "b.jpg": b"two"}


def test_sizes_in_binary_are_understood() -> None:
    assert tar_members._number(b"\x80" + (9 * 2**30).to_bytes(11, "big")) == 9 * 2**30
    assert tar_members._number(b"\xff" * 12) == -1


def test_folders_and_global_headers_are_no_files(tar: Path) -> None:
    parts = [
        raw_member("g", pax_records({"comment": "made by git"}), tarfile.XGLTYPE),
        raw_member("a.jpg", kind=tarfile.DIRTYPE),
        raw_member("old/", kind=tarfile.AREGTYPE),
        raw_member("old/b.jpg", b"one", tarfile.AREGTYPE),
    ]
    assert contents(write_raw(tar, parts)) == {"old/b.jpg": b"one"}
    assert listed(tar).refused == {}


# What is no plain file, or has no sane name


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        pytest.param(tarfile.LNKTYPE, "a link", id="hard link"),
        pytest.param(tarfile.SYMTYPE, "a link", id="link"),
        pytest.param(tarfile.CHRTYPE, "a device", id="device"),
        pytest.param(tarfile.BLKTYPE, "a device", id="disk"),
        pytest.param(tarfile.FIFOTYPE, "a pipe", id="pipe"),
        pytest.param(b"Z", "a member of an unknown kind", id="unknown"),
    ],
)
def test_what_is_no_plain_file_is_refused(tar: Path, kind: bytes, word: str) -> None:
    write_raw(tar, [raw_member("a.jpg", kind=kind), raw_member("b.jpg", b"two")])
    assert listed(tar).refused == {"a.jpg": f"photo must be a plain file in its tar, got {word}"}
    assert contents(tar) == {"b.jpg": b"two"}


def test_sparse_files_are_refused_with_their_maps(tar: Path) -> None:
    first = bytearray(header("old.jpg", 3, tarfile.GNUTYPE_SPARSE).tobuf(tarfile.GNU_FORMAT))
    first[482] = 1  # the map goes on in a block after the header
    checksum = sum(first) - sum(first[148:156]) + 256
    first[148:156] = b"%06o\0 " % checksum
    sparse = {"GNU.sparse.major": "1", "GNU.sparse.name": "new.jpg"}
    parts = [bytes(first), bytes(512), blocks(b"one"), pax_member(sparse, "GNUSparseFile/new.jpg")]
    write_raw(tar, [*parts, raw_member("b.jpg", b"two")])
    assert [*listed(tar).refused] == ["old.jpg", "new.jpg"]
    assert contents(tar) == {"b.jpg": b"two"}


@pytest.mark.parametrize(
    ("name", "shown", "word"),
    [
        pytest.param("../../etc/a.jpg", "../../etc/a.jpg", "lead out", id="up"),
        pytest.param("a/../../b.jpg", "a/../../b.jpg", "lead out", id="up inside"),
        pytest.param("a\0b.jpg", "a\\0b.jpg", "null byte", id="null"),
        pytest.param("a" * 256 + ".jpg", "a" * 256 + ".jpg", "short", id="long"),
        pytest.param("ab/" * 1365 + "b.jpg", "ab/" * 1365 + "b.jpg", "short", id="deep"),
    ],
)
def test_names_that_no_folder_can_hold_are_refused(
    tar: Path, name: str, shown: str, word: str
) -> None:
    write_raw(tar, [pax_member({"path": name}, "x.jpg", b"one"), raw_member("b.jpg", b"two")])
    ((refused, reason),) = listed(tar).refused.items()
    assert (refused, word in reason) == (shown, True)
    assert contents(tar) == {"b.jpg": b"two"}


def test_a_long_name_of_dots_does_not_end_the_walk(tar: Path) -> None:
    write_raw(tar, [pax_member({"path": "./" * 200 + "."}, "x"), raw_member("b.jpg", b"two")])
    assert (contents(tar), listed(tar).fault) == ({"b.jpg": b"two"}, "")


@pytest.mark.parametrize("name", ["", ".", "/", "./."])
def test_a_file_without_a_name_is_left_out(tar: Path, name: str) -> None:
    write_raw(tar, [raw_member(name, b"one"), raw_member("b.jpg", b"two")])
    assert (contents(tar), listed(tar).refused) == ({"b.jpg": b"two"}, {})


# Damage


def test_a_tar_that_is_cut_off_gives_what_precedes(tar: Path) -> None:
    write_raw(tar, [raw_member("a.jpg", b"one"), raw_member("b.jpg", bytes(2000))[:1500]], b"")
    assert contents(tar) == {"a.jpg": b"one"}
    assert listed(tar).fault == "cut off within the member at byte 1024"


def test_a_tar_without_its_end_is_cut_off(tar: Path) -> None:
    write_raw(tar, [raw_member("a.jpg", b"one")], b"")
    assert (contents(tar), listed(tar).fault) == ({"a.jpg": b"one"}, "cut off at byte 1024")


@pytest.mark.parametrize("zeros", [512, 5120])
def test_what_follows_the_end_of_a_tar_is_not_passed_over(tar: Path, zeros: int) -> None:
    """A download with a hole, or `cat a.tar b.tar`."""
    first, second = raw_member("a.jpg", b"one"), raw_member("b.jpg", b"two")
    write_raw(tar, [first, bytes(zeros), second])
    assert contents(tar) == {"a.jpg": b"one"}
    assert listed(tar).fault == f"more after its end at byte {len(first) + zeros}"


@pytest.mark.parametrize("zeros", [512, 1024, 10240, 3 * 2**20])
def test_zeros_at_the_end_of_a_tar_are_its_end(tar: Path, zeros: int) -> None:
    tar.write_bytes(raw_member("a.jpg", b"one") + bytes(zeros))
    assert listed(tar).fault == ""


@pytest.mark.parametrize("place", [0, 100, 124, 148, 160, 300])
def test_a_damaged_header_ends_the_tar_there(tar: Path, place: int) -> None:
    broken = bytearray(raw_member("b.jpg", b"two"))
    broken[place] ^= 0xFF
    write_raw(tar, [raw_member("a.jpg", b"one"), bytes(broken), raw_member("c.jpg", b"three")])
    assert contents(tar) == {"a.jpg": b"one"}
    assert listed(tar).fault == "damaged header at byte 1024"


@pytest.mark.parametrize(
    ("data", "word"),
    [
        pytest.param(b"", "cut off at byte 0", id="empty"),
        pytest.param(b"no tar" * 1000, "damaged header at byte 0", id="text"),
        pytest.param(b"\x1f\x8b" + bytes(600), "damaged header at byte 0", id="gzip"),
    ],
)
def test_what_is_no_tar_has_a_fault(tar: Path, data: bytes, word: str) -> None:
    tar.write_bytes(data)
    assert listed(tar) == TarListing(fault=word)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"9 path=a", id="too long"),
        pytest.param(b"99999999999999999999 path=a\n", id="far too long"),
        pytest.param(b"0 path=a\n", id="zero"),
        pytest.param(b"-9 path=a\n", id="negative"),
        pytest.param(b"path=a\n", id="no length"),
        pytest.param(b"7 path\n", id="no value"),
        pytest.param(b"10 path=abc\n", id="too short"),
        pytest.param(b"\xff" * 30, id="noise"),
    ],
)
def test_a_damaged_extended_header_ends_the_tar_there(tar: Path, data: bytes) -> None:
    parts = [raw_member("a.jpg", b"one"), raw_member("pax", data, tarfile.XHDTYPE)]
    write_raw(tar, [*parts, raw_member("b.jpg", b"two")])
    assert contents(tar) == {"a.jpg": b"one"}
    assert listed(tar).fault == "damaged extended header at byte 1536"


@pytest.mark.parametrize("size", ["-1", "1e3", "9" * 5000, "99999999999999999999", "\x80\1"])
def test_a_size_that_cannot_be_ends_the_tar_there(tar: Path, size: str) -> None:
    write_raw(tar, [pax_member({"size": size}, "a.jpg", b"one")])
    assert listed(tar).files == {}
    assert listed(tar).fault != ""


def test_an_extended_header_larger_than_any_path_is_not_read(tar: Path) -> None:
    write_raw(tar, [raw_member("a.jpg", b"one"), raw_member("x", bytes(2**20 + 1), b"L")])
    assert (contents(tar), "extended header of 1048577" in listed(tar).fault) == (
        {"a.jpg": b"one"},
        True,
    )


def test_no_damage_is_more_than_a_fault(tar: Path) -> None:
    """Every byte of a tar of all kinds of members, one at a time."""
    parts = [
        pax_member({"path": "ü" * 60 + ".jpg"}, "a.jpg", b"one"),
        raw_member("././@LongLink", LONG.encode() + b"\0", tarfile.GNUTYPE_LONGNAME),
        raw_member("b.jpg", b"two"),
        raw_member("c.jpg", b"", tarfile.GNUTYPE_SPARSE),
    ]
    whole = b"".join(parts) + bytes(1024)
    for place in range(0, len(whole), 3):
        broken = bytearray(whole)
        broken[place] ^= 0x55
        with io_file(tar, bytes(broken)) as file:
            assert len(list_tar(file).files) <= 2
    for length in range(0, len(whole), 61):
        with io_file(tar, whole[:length]) as file:
            assert len(list_tar(file).files) <= 2


def io_file(tar: Path, data: bytes) -> io.BufferedReader:
    tar.write_bytes(data)
    return tar.open("rb")


# Listings in memory


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with each walk."""
    walked: list[int] = []

    def walk(file: io.BufferedReader) -> TarListing:
        walked.append(1)
        return list_tar(file)

    monkeypatch.setattr(tar_members, "list_tar", walk)
    return walked


def test_a_tar_is_walked_once_while_it_stays(tar: Path, walks: list[int]) -> None:
    listings = TarListings()
    write_files(tar, {"a.jpg": b"one"})
    assert listings.at(tar) is listings.at(tar)
    write_files(tar, {"b.jpg": b"one"})
    os.utime(tar, ns=(1, 1))
    assert [*listings.at(tar).files] == ["b.jpg"]
    assert len(walks) == 2


def test_threads_walk_a_tar_once(tar: Path, walks: list[int]) -> None:
    listings, barrier = TarListings(), threading.Barrier(8)
    write_files(tar, {f"{number}.jpg": b"" for number in range(500)})

    def read(_: int) -> TarListing:
        barrier.wait()
        return listings.at(tar)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(read, range(8)))
    assert len(walks) == 1
    assert all(listing is found[0] for listing in found)


def test_the_listings_used_last_are_kept(tmp_path: Path, walks: list[int]) -> None:
    listings = TarListings(max_files=6)
    tars = [write_files(tmp_path / f"{n}.tar", {"a": b"", "b": b""}) for n in range(3)]
    for tar in (tars[0], tars[1], tars[0], tars[2], tars[0]):
        listings.at(tar)
    assert len(walks) == 3
    listings.at(tars[1])
    assert len(walks) == 4


def test_a_tar_that_cannot_be_read_now_may_be_later(
    tar: Path, walks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    listings = TarListings()
    write_files(tar, {"a.jpg": b"one"})

    def fail(file: object, position: int) -> bytes:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(tar_members, "_block", fail)
        with pytest.raises(OSError, match="Input/output"):
            listings.at(tar)
    assert [*listings.at(tar).files] == ["a.jpg"]
