import io
import itertools
import tarfile
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from opendelg.errors import FormatError, ImageError, OpenDelgError
from opendelg.evaluation.shards import Shards, fill_shards, folder_sources, tar_sources
from opendelg.extraction import ExtractionConfig, Extractor
from tests.conftest import draw_image

CONFIG = ExtractionConfig(max_size=64, scales=(1.0,), global_scales=(1.0,))


def png(seed: int, size: tuple[int, int] = (48, 40)) -> bytes:
    file = io.BytesIO()
    Image.fromarray(draw_image(size, seed).pixels).save(file, "PNG")
    return file.getvalue()


def source(seed: int):
    return f"photo {seed}", partial(png, seed, (48 + seed, 40))


def unreadable(name: str):
    def read() -> bytes:
        raise ImageError(f"image must be readable, got nothing in {name!r}")

    return name, read


@pytest.fixture
def extractor(tiny_weights, tiny_runtime):
    return Extractor(tiny_weights, CONFIG, tiny_runtime)


def with_config(extractor, **changes):
    config = ExtractionConfig(**{**vars(CONFIG), **changes})
    return Extractor(extractor.weights, config, extractor.runtime)


@pytest.fixture
def folder(tmp_path, extractor):
    """Seven images, the third unreadable, in shards of three."""
    sources = [source(0), source(1), unreadable("bad \udcff"), *map(source, range(3, 7))]
    fill_shards(Shards.open(tmp_path / "s", extractor), extractor, sources, shard_images=3)
    return tmp_path / "s"


def descriptor(extractor, seed: int) -> np.ndarray:
    return extractor.extract(draw_image((48 + seed, 40), seed), want_local=False).global_descriptor


def test_shards_hold_what_was_extracted(folder, extractor) -> None:
    shards = Shards.open(folder, extractor)
    assert len(shards) == 7
    assert shards.is_readable().tolist() == [True, True, False, True, True, True, True]
    found = shards.descriptors(np.array([6, 0, 4, 0]))
    assert found.tolist() == [descriptor(extractor, seed).tolist() for seed in (6, 0, 4, 0)]
    assert shards.sizes(np.array([5, 2])).tolist() == [[53, 40], [0, 0]]
    assert shards.names(np.array([2, 6])) == ["bad \udcff", "photo 6"]
    assert shards.positions(["photo 6", "photo", "photo 60", "bad \udcff"]).tolist() == [
        6,
        -1,
        -1,
        2,
    ]


def test_failures_are_kept_with_their_reason(folder, extractor) -> None:
    ((position, name, reason),) = Shards.open(folder, extractor).failures()
    assert (position, name) == (2, "bad \udcff")
    assert reason.startswith("image must be readable, got nothing")


@pytest.mark.parametrize("rows", [1, 2, 100])
def test_blocks_give_every_descriptor_once(folder, extractor, rows) -> None:
    shards = Shards.open(folder, extractor)
    blocks = list(shards.blocks(rows))
    positions = np.concatenate([block[0] for block in blocks])
    assert positions.tolist() == [0, 1, 3, 4, 5, 6]
    assert max(len(block[0]) for block in blocks) <= rows
    rows_found = np.concatenate([block[1] for block in blocks])
    assert np.array_equal(rows_found, shards.descriptors(positions))


def test_blocks_give_the_wanted_only(folder, extractor) -> None:
    wanted = np.isin(np.arange(7), [2, 3, 6])
    blocks = list(Shards.open(folder, extractor).blocks(10, wanted))
    assert [positions.tolist() for positions, _ in blocks] == [[3], [6]]


def test_what_is_kept_is_not_extracted_again(folder, extractor) -> None:
    shards, done = Shards.open(folder, extractor), []
    more = [source(9), source(3), unreadable("bad \udcff"), source(8), source(9)]
    fill_shards(shards, extractor, more, progress=done.append)
    assert done == ["photo 9", "photo 8"]
    assert Shards.open(folder, extractor).positions(["photo 8", "photo 3"]).tolist() == [8, 3]
    found = shards.descriptors(np.array([7]))
    assert found.tolist() == [descriptor(extractor, 9).tolist()]


def test_an_interruption_costs_nothing_that_was_extracted(tmp_path, extractor) -> None:
    def stop(name: str) -> None:
        if name == "photo 4":
            raise KeyboardInterrupt

    shards = Shards.open(tmp_path / "s", extractor)
    with pytest.raises(KeyboardInterrupt):
        fill_shards(shards, extractor, map(source, itertools.count()), progress=stop)
    assert len(Shards.open(tmp_path / "s", extractor)) == 5


def test_a_shard_is_written_when_its_time_is_over(tmp_path, extractor) -> None:
    shards = Shards.open(tmp_path / "s", extractor)
    fill_shards(shards, extractor, map(source, range(3)), shard_seconds=0)
    assert len(list((tmp_path / "s").glob("*.npz"))) == 3


def test_half_a_shard_is_no_shard(folder, extractor) -> None:
    (folder / "000000006.npz").unlink()
    shards = Shards.open(folder, extractor)
    assert len(shards) == 6
    fill_shards(shards, extractor, [source(6)])
    assert shards.descriptors(np.array([6])).tolist() == [descriptor(extractor, 6).tolist()]


def test_what_a_killed_process_left_is_removed_at_the_next_start(folder, extractor) -> None:
    (folder / "000000006.npz").unlink()
    for name in (".0123abcd.part", "000000099.npy"):
        (folder / name).write_bytes(b"half")
    whole = ["000000000.npy", "000000000.npz", "000000003.npy", "000000003.npz", "recipe.json"]
    Shards.open(folder, extractor)
    assert sorted(path.name for path in folder.iterdir()) == whole


def test_another_recipe_is_refused_naming_both(folder, extractor) -> None:
    with pytest.raises(FormatError, match=r"extraction.max_size 32 instead of 64 in .*another"):
        Shards.open(folder, with_config(extractor, max_size=32))


def test_settings_of_local_features_may_differ(folder, extractor) -> None:
    assert len(Shards.open(folder, with_config(extractor, max_keypoints=7))) == 7


def test_shards_without_a_recipe_are_refused(folder, extractor) -> None:
    (folder / "recipe.json").unlink()
    with pytest.raises(FormatError, match="shards must have a recipe"):
        Shards.open(folder, extractor)


def test_a_damaged_recipe_is_an_error(folder, extractor) -> None:
    (folder / "recipe.json").write_bytes(b"\xff")
    with pytest.raises(FormatError, match="recipe"):
        Shards.open(folder, extractor)


@pytest.mark.parametrize("name", ["names", "sizes"])
def test_a_shard_of_other_arrays_is_an_error(folder, extractor, name) -> None:
    path = folder / "000000003.npz"
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **{**arrays, name: arrays[name][None]})
    with pytest.raises(FormatError, match=r"shard must be whole, got .* of shapes .*000000003.npz"):
        Shards.open(folder, extractor)


def test_a_gap_is_an_error(folder, extractor) -> None:
    (folder / "000000003.npz").unlink()
    with pytest.raises(FormatError, match=r"must begin at position 3, got .*000000006.npz"):
        Shards.open(folder, extractor)


@pytest.mark.parametrize("content", [b"", b"PK\3\4 no archive", b"x" * 100])
def test_a_damaged_shard_is_an_error(folder, extractor, content) -> None:
    (folder / "000000003.npz").write_bytes(content)
    with pytest.raises(FormatError, match=r"shard must be whole, .*000000003.npz"):
        Shards.open(folder, extractor)


def test_a_damaged_descriptor_is_an_error(folder, extractor) -> None:
    data = bytearray((folder / "000000003.npy").read_bytes())
    data[-1] ^= 1
    (folder / "000000003.npy").write_bytes(data)
    with pytest.raises(FormatError, match=r"another checksum.*000000003.npy"):
        list(Shards.open(folder, extractor).blocks(10))


def test_a_cut_off_table_is_an_error(folder, extractor) -> None:
    path = folder / "000000003.npy"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(FormatError, match="shard must be whole"):
        Shards.open(folder, extractor).descriptors(np.array([3]))


@pytest.mark.parametrize("position", [-1, 2, 7])
def test_what_has_no_descriptor_cannot_be_asked_for(folder, extractor, position) -> None:
    with pytest.raises(ValueError, match="positions must be those of images that could be read"):
        Shards.open(folder, extractor).descriptors(np.array([position]))


def test_a_shard_of_failures_only_has_no_descriptors(tmp_path, extractor) -> None:
    shards = Shards.open(tmp_path / "s", extractor)
    fill_shards(shards, extractor, [unreadable("a"), unreadable("b")], shard_images=1)
    shards = Shards.open(tmp_path / "s", extractor)
    assert (len(shards), list(shards.blocks(5))) == (2, [])
    assert shards.descriptors(np.zeros(0, np.int64)).shape[0] == 0


def test_an_empty_folder_has_nothing(tmp_path, extractor) -> None:
    shards = Shards.open(tmp_path / "s", extractor)
    assert (len(shards), shards.positions(["a"]).tolist(), shards.failures()) == (0, [-1], [])


# Sources.


def test_folders_give_their_images_by_relative_path(tmp_path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "1.png").write_bytes(png(1))
    (tmp_path / "a.png").write_bytes(png(2))
    (tmp_path / "text.txt").write_text("no image")
    assert [(name, read()) for name, read in folder_sources(tmp_path)] == [
        ("a.png", png(2)),
        ("b/1.png", png(1)),
    ]


def test_a_missing_folder_is_an_error(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="images must be an existing folder"):
        next(folder_sources(tmp_path / "none"))


def write_tar(path: Path, mode: str, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, mode) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize(("name", "mode"), [("x.tar", "w"), ("x.tar.gz", "w:gz")])
def test_tars_give_their_images_in_order(tmp_path, name, mode) -> None:
    tar = write_tar(tmp_path / name, mode, {"b.JPG": b"b", "notes.txt": b"-", "c/a.jpg": b"a"})
    assert [(found, read()) for found, read in tar_sources([tar])] == [
        (f"{name}/b.JPG", b"b"),
        (f"{name}/c/a.jpg", b"a"),
    ]


def test_files_larger_than_any_image_are_not_read(tmp_path, monkeypatch) -> None:
    limits = SimpleNamespace(max_file_bytes=10)
    monkeypatch.setattr("opendelg.evaluation.shards.ImageLimits", lambda: limits)
    tar = write_tar(tmp_path / "x.tar", "w", {"a.jpg": bytes(11), "b.jpg": bytes(10)})
    (_, large), (_, small) = tar_sources([tar])
    assert small() == bytes(10)
    with pytest.raises(ImageError, match=r"at most 10 bytes, got 11 in 'a\.jpg'"):
        large()


def test_bytes_that_were_read_are_told(tmp_path) -> None:
    tar = write_tar(tmp_path / "x.tar", "w", {"a.jpg": bytes(50_000), "b.jpg": bytes(9)})
    told: list[int] = []
    assert len(list(tar_sources([tar], told.append))) == 2
    assert 50_000 < told[0] <= told[1] <= tar.stat().st_size


@pytest.mark.parametrize(("name", "mode"), [("x.tar", "w"), ("x.tar.gz", "w:gz")])
def test_a_cut_off_tar_is_an_error(tmp_path, name, mode) -> None:
    data = np.random.default_rng(0).bytes(50_000)
    tar = write_tar(tmp_path / name, mode, {"a.jpg": data, "b.jpg": data})
    tar.write_bytes(tar.read_bytes()[:70_000])
    with pytest.raises(OpenDelgError, match=r"tar must be readable, got .*x.tar"):
        list(tar_sources([tar]))


def test_a_tar_that_names_a_place_above_it_is_an_error(tmp_path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("b/../../a.jpg"))
    with pytest.raises(OpenDelgError, match=r"must lie below their tar, got 'b/\.\./\.\./a\.jpg'"):
        list(tar_sources([tmp_path / "a.tar"]))
