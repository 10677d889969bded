import io
import multiprocessing
import os
import tarfile
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

from opendelg.datasets import tars
from opendelg.datasets.landmark_images import find_landmark_images
from opendelg.datasets.tars import TarMember
from opendelg.errors import ImageError
from tests.landmark_samples import member_name, write_tar

IDS = [letter * 16 for letter in "0a9f"]


def find(folder):
    return find_landmark_images(folder, folder / "index.npz")


def read(images, image_id):
    (position,) = images.positions(np.array([int(image_id, 16)], np.uint64)).tolist()
    assert position >= 0
    member = images.member(position)
    return images.name(position).read_bytes() if member is None else member.read()


def has(images, image_id):
    return images.positions(np.array([int(image_id, 16)], np.uint64)).tolist() != [-1]


def write_raw(path, *infos):
    """A tar of headers and contents as they are given."""
    with path.open("wb") as file:
        for info, data in infos:
            file.write(info.tobuf(tarfile.GNU_FORMAT))
            file.write(data + b"\0" * (-len(data) % 512))
        file.write(b"\0" * 1024)


def header(name, size=0, kind=tarfile.REGTYPE):
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info


@pytest.fixture
def folder(tmp_path):
    """Three images in two tars, one of them below a prefix, and an unpacked one."""
    write_tar(tmp_path / "images_000.tar", {member_name(IDS[0]): b"zero", member_name(IDS[1]): b""})
    write_tar(tmp_path / "images_001.tar", {f"./train/{member_name(IDS[2])}": b"n" * 1000})
    path = tmp_path / member_name(IDS[3])
    path.parent.mkdir(parents=True)
    path.write_bytes(b"loose")
    return tmp_path


def test_images_are_read_from_tars_and_folders(folder):
    images = find(folder)
    assert [read(images, image_id) for image_id in IDS] == [b"zero", b"", b"n" * 1000, b"loose"]
    assert not has(images, "1" * 16)


def test_names_say_where_an_image_lies(folder):
    images = find(folder)
    names = [images.name(n).relative_to(folder).as_posix() for n in range(len(images.ids))]
    assert names == [
        f"images_000.tar/{member_name(IDS[0])}",
        f"images_001.tar/{member_name(IDS[2])}",
        f"images_000.tar/{member_name(IDS[1])}",
        member_name(IDS[3]),
    ]


@pytest.mark.parametrize("kind", ["gnu", "pax", "ustar"])
def test_tars_of_every_format_are_read(tmp_path, kind):
    formats = {"gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT, "ustar": tarfile.USTAR_FORMAT}
    with tarfile.open(tmp_path / "images_000.tar", "w", format=formats[kind]) as tar:
        info = header(member_name(IDS[0]), 4)
        info.mtime = 1.5  # an extended header in pax
        tar.addfile(info, io.BytesIO(b"zero"))
    assert read(find(tmp_path), IDS[0]) == b"zero"


def test_an_empty_folder_has_no_images(tmp_path):
    assert not has(find(tmp_path), IDS[0])


def test_the_first_of_an_image_counts_and_an_unpacked_one_before_all(folder):
    write_tar(folder / "images_002.tar", {member_name(i): b"again" for i in (IDS[0], IDS[3])})
    images = find(folder)
    assert (read(images, IDS[0]), read(images, IDS[3])) == (b"zero", b"loose")


def test_known_tars_are_not_walked_again(folder, monkeypatch):
    find(folder)
    write_tar(folder / "images_002.tar", {member_name("1" * 16): b"one"})
    walked, walk = [], tars._walk
    monkeypatch.setattr(tars, "_walk", lambda tar: walked.append(tar.name) or walk(tar))
    assert read(find(folder), "1" * 16) == b"one"
    assert walked == ["images_002.tar"]


def test_a_tar_that_changed_is_walked_again(folder):
    find(folder)
    write_tar(folder / "images_000.tar", {"x/y": b"other", member_name(IDS[0]): b"zeta"})
    assert read(find(folder), IDS[0]) == b"zeta"


def test_a_tar_of_another_time_is_walked_again(folder):
    find(folder)
    write_tar(folder / "images_000.tar", {member_name("1" * 16): b"zero", "0/x": b""})
    os.utime(folder / "images_000.tar", ns=(1, 1))
    assert has(find(folder), "1" * 16)


@pytest.mark.parametrize("content", [b"", b"PK\3\4 no archive", b"x" * 100])
def test_a_damaged_index_is_made_anew(folder, content):
    find(folder)
    (folder / "index.npz").write_bytes(content)
    assert read(find(folder), IDS[0]) == b"zero"
    assert find_landmark_images(folder, folder / "index.npz").damaged_tars.count == 0


def test_an_index_that_is_cut_off_is_made_anew(folder):
    find(folder)
    data = (folder / "index.npz").read_bytes()
    (folder / "index.npz").write_bytes(data[: len(data) // 2])
    assert read(find(folder), IDS[2]) == b"n" * 1000


def test_an_index_that_cannot_be_written_is_a_warning(folder, caplog):
    (folder / "file").write_text("")
    images = find_landmark_images(folder, folder / "file" / "index.npz")
    assert read(images, IDS[0]) == b"zero"
    assert "index of tars was not written" in caplog.text


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_images_can_be_read_in_other_processes(folder, method):
    images = find(folder)
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        assert (
            list(pool.map(read, [images] * 8, IDS * 2)) == [b"zero", b"", b"n" * 1000, b"loose"] * 2
        )


# Hostile tars.


def test_a_cut_off_tar_gives_what_precedes_the_cut(folder):
    tar = folder / "images_001.tar"
    tar.write_bytes((folder / "images_000.tar").read_bytes()[:2048] + tar.read_bytes()[:1600])
    images = find(folder)
    assert read(images, IDS[0]) == b"zero"
    assert not has(images, IDS[2])
    assert images.damaged_tars.examples[0].startswith("images_001.tar: cut off")


@pytest.mark.parametrize("position", [0, 130, 150, 300])
def test_a_damaged_header_ends_the_tar_there(folder, position):
    data = bytearray((folder / "images_001.tar").read_bytes())
    place = data.index(b"./train/9/9/9/" + IDS[2].encode()) + position
    data[place] ^= 0x81
    (folder / "images_001.tar").write_bytes(data)
    images = find(folder)
    assert not has(images, IDS[2])
    assert "damaged header" in images.damaged_tars.examples[0]


@pytest.mark.parametrize(
    "content",
    [b"", b"x" * 100, b"\x1f\x8b" + b"z" * 3000, b"\xff" * 5000],
    ids=lambda c: str(len(c)),
)
def test_what_is_no_tar_is_reported(folder, content):
    (folder / "images_002.tar").write_bytes(content)
    images = find(folder)
    assert images.damaged_tars.count == 1
    assert read(images, IDS[0]) == b"zero"


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE]
)
def test_only_files_are_images(tmp_path, kind):
    info = header(member_name(IDS[0]), kind=kind)
    info.linkname = "/etc/passwd"
    write_raw(tmp_path / "images_000.tar", (info, b""), (header(member_name(IDS[1]), 3), b"one"))
    images = find(tmp_path)
    assert (has(images, IDS[0]), read(images, IDS[1])) == (False, b"one")


def test_links_with_a_size_have_no_content(tmp_path):
    link = header(member_name(IDS[0]), 10**6, tarfile.LNKTYPE)
    write_raw(tmp_path / "images_000.tar", (link, b""), (header(member_name(IDS[1]), 3), b"one"))
    assert read(find(tmp_path), IDS[1]) == b"one"


@pytest.mark.parametrize("size", [10**6, 8**11 - 1, 2**40, 2**62], ids=str)
def test_a_size_beyond_the_tar_is_damage(tmp_path, size):
    write_raw(tmp_path / "images_000.tar", (header(member_name(IDS[0]), size), b"short"))
    images = find(tmp_path)
    assert not has(images, IDS[0])
    assert images.damaged_tars.count == 1


def test_names_that_lead_elsewhere_lead_nowhere(tmp_path):
    escaping = f"../../../etc/{IDS[0]}.jpg"
    write_raw(tmp_path / "images_000.tar", (header(escaping, 4), b"zero"))
    images = find(tmp_path)
    assert read(images, IDS[0]) == b"zero"
    assert (
        images.name(0).relative_to(tmp_path).as_posix() == f"images_000.tar/{member_name(IDS[0])}"
    )


@pytest.mark.parametrize("name", ["images_000.tar.gz", "images_x.tar", "index_000.tar"])
def test_other_files_are_no_tars(tmp_path, name):
    write_tar(tmp_path / name, {member_name(IDS[0]): b"zero"})
    assert not has(find(tmp_path), IDS[0])


def test_a_tar_that_is_no_file_is_passed_over(folder):
    os.mkfifo(folder / "images_002.tar")
    (folder / "images_003.tar").mkdir()
    assert find(folder).damaged_tars.count == 0


@pytest.mark.parametrize(
    ("offset", "size", "message"),
    [
        (10**9, 5, "image must have 5 bytes, got 0"),
        (0, 2**40, "image must have at most"),
        (2**63, 5, "image must be readable"),
    ],
)
def test_positions_that_do_not_fit_are_errors_of_one_image(folder, offset, size, message):
    with pytest.raises(ImageError, match=message):
        TarMember(folder / "images_000.tar", offset, size).read()


def test_a_tar_that_is_gone_is_an_error_of_one_image(folder):
    images = find(folder)
    (folder / "images_000.tar").unlink()
    with pytest.raises(ImageError, match=r"no such file.*images_000.tar"):
        read(images, IDS[0])
