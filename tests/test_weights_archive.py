"""Archives of models: only plain files are unpacked, and nothing lands outside."""

import gzip
import io
import resource
import tarfile

import pytest

from opendelg.errors import WeightsError
from opendelg.weights.archive import unpack_model


def add(tar, name, data=b"x", **changes):
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for key, value in changes.items():
        setattr(member, key, value)
    tar.addfile(member, io.BytesIO(data))


@pytest.fixture
def unpack(tmp_path):
    """Unpack an archive that ``fill`` makes; gives the files by relative path."""

    def run(fill):
        path, folder = tmp_path / "model.tar.gz", tmp_path / "out"
        folder.mkdir()
        with tarfile.open(path, "w:gz") as tar:
            fill(tar)
        unpack_model(path, folder)
        return {
            str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()
        }

    return run


def test_only_the_files_of_a_model_are_unpacked(unpack):
    def fill(tar):
        add(tar, "./deep/model/saved_model.pb", b"graph")
        add(tar, "./deep/model/variables/variables.index", b"index")
        add(tar, "./deep/model/variables/variables.data-00000-of-00001", b"data")
        add(tar, "./deep/model/README.md")
        add(tar, "./deep/model/._saved_model.pb")

    assert unpack(fill) == {
        "deep-model/saved_model.pb": b"graph",
        "deep-model/variables/variables.index": b"index",
        "deep-model/variables/variables.data-00000-of-00001": b"data",
    }


@pytest.mark.parametrize(
    "name", ["../saved_model.pb", "/etc/saved_model.pb", "a/../../saved_model.pb", "a\\..\\b.pb"]
)
def test_paths_that_lead_out_are_refused(unpack, name):
    with pytest.raises(WeightsError, match="paths must stay inside"):
        unpack(lambda tar: add(tar, name))


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE]
)
def test_links_and_devices_are_refused(unpack, kind):
    with pytest.raises(WeightsError, match="members must be files and folders, got 'm/saved_mod"):
        unpack(lambda tar: add(tar, "m/saved_model.pb", b"", type=kind, linkname="/etc/passwd"))


def test_a_member_that_comes_twice_is_refused(unpack):
    with pytest.raises(WeightsError, match="members must be distinct"):
        unpack(lambda tar: [add(tar, "m/saved_model.pb"), add(tar, "m/saved_model.pb")])


def test_a_bomb_is_refused(tmp_path):
    path = tmp_path / "bomb.tar.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(80):
            file.write(bytes(2**20))
    with pytest.raises(WeightsError, match="archive must unpack to at most 67108864 bytes"):
        unpack_model(path, tmp_path)


def test_a_header_of_many_bytes_is_not_read_at_once(tmp_path):
    path = tmp_path / "header.tar.gz"
    member = tarfile.TarInfo("x")
    member.type, member.size = tarfile.XHDTYPE, 60 * 2**20
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(member.tobuf() + bytes(60 * 2**20))
    with pytest.raises(WeightsError, match=r"whole .tar.gz file, got .*header of \d+ bytes"):
        unpack_model(path, tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_a_cut_off_archive_is_refused(tmp_path, share):
    path = tmp_path / "model.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        add(tar, "m/saved_model.pb", bytes(range(256)) * 999)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(WeightsError, match=r"archive must be a whole .tar.gz file"):
        unpack_model(path, tmp_path)


@pytest.mark.parametrize(
    "data", [b"no archive", b"\x1f\x8b", b"\x1f\x8b\x08" + bytes(30), bytes(99)]
)
def test_another_file_is_refused(tmp_path, data):
    (tmp_path / "x.tar.gz").write_bytes(data)
    with pytest.raises(WeightsError, match=r"archive must be a whole .tar.gz file"):
        unpack_model(tmp_path / "x.tar.gz", tmp_path)


def test_a_member_larger_than_the_archive_is_refused(tmp_path):
    path = tmp_path / "x.tar"
    member = tarfile.TarInfo("m/saved_model.pb")
    member.size = 2**33
    path.write_bytes(member.tobuf() + bytes(1024))
    with pytest.raises(WeightsError, match=r"archive must be a whole|members must be whole"):
        unpack_model(path, tmp_path)


@pytest.mark.parametrize("room", [0, 100_000])
def test_a_full_temporary_folder_is_told(tmp_path, room):
    path = tmp_path / "model.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        add(tar, "m/saved_model.pb", bytes(200_000))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with pytest.raises(WeightsError, match=r"temporary folder must have room.*TMPDIR names"):
            unpack_model(path, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
