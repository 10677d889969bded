import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from opendelg.collection import Collection
from opendelg.weights import Weights
from tests.conftest import draw_image

Run = Callable[..., SimpleNamespace]


def save(path: Path, size: tuple[int, int] = (96, 64), seed: int = 0, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw_image(size, seed).pixels).save(path, **options)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(4):
        save(tmp_path / "photos" / f"{number}.png", seed=number)
    return tmp_path / "photos"


@pytest.fixture
def index(delg: Run, tiny_weights: Weights, tmp_path: Path) -> Run:
    def run(*arguments: object, collection: Path = tmp_path / "c.delg") -> SimpleNamespace:
        return delg(
            "index", *arguments, "--collection", collection, "--model", tiny_weights.path, "--json"
        )

    return run


def test_every_photo_is_indexed(index: Run, photos: Path) -> None:
    result = index(photos)
    assert result.code == 0
    assert result.json["added"] == result.json["images"] == 4


def test_a_second_run_does_nothing(index: Run, photos: Path) -> None:
    index(photos)
    again = index(photos).json
    assert (again["added"], again["unchanged"]) == (0, 4)


def test_update_follows_new_changed_and_deleted_files(index: Run, photos: Path) -> None:
    index(photos)
    save(photos / "0.png", seed=10)
    os.utime(photos / "0.png", ns=(0, 0))
    (photos / "1.png").unlink()
    save(photos / "sub" / "4.png", seed=4)
    result = index(photos, "--update").json
    counts = [result[name] for name in ("added", "updated", "removed", "unchanged")]
    assert counts == [1, 1, 1, 2]


def test_without_update_changes_are_told_and_left(index: Run, photos: Path) -> None:
    index(photos)
    os.utime(photos / "0.png", ns=(0, 0))
    (photos / "1.png").unlink()
    result = index(photos).json
    assert (result["outdated"], result["updated"], result["images"]) == (1, 0, 4)


def make_hostile(folder: Path) -> None:
    whole = save(folder / "good.jpg").read_bytes()
    (folder / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("not a photo")
    (folder / "folder.jpg").mkdir()
    save(folder / "long.png", (1, 5000))


def test_bad_files_are_listed_with_reasons_and_good_ones_kept(index: Run, tmp_path: Path) -> None:
    make_hostile(tmp_path / "photos")
    result = index(tmp_path / "photos")
    listed = {Path(failure["path"]).name for failure in result.json["failures"]}
    assert result.code == 3
    assert listed == {"truncated.jpg", "empty.jpg", "text.jpg", "folder.jpg", "long.png"}
    assert result.json["images"] == 1
    assert all(failure["reason"] for failure in result.json["failures"])


def test_bad_files_are_listed_again_by_the_next_run(index: Run, tmp_path: Path) -> None:
    make_hostile(tmp_path / "photos")
    index(tmp_path / "photos")
    again = index(tmp_path / "photos")
    assert (again.code, len(again.json["failures"]), again.json["added"]) == (3, 5, 0)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "I;16", "CMYK"])
def test_every_kind_of_pixel_is_indexed(index: Run, tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(draw_image((96, 64)).pixels)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    else:
        image = image.convert(mode)
    (tmp_path / "photos").mkdir()
    image.save(tmp_path / "photos" / ("a.tif" if mode == "CMYK" else "a.png"))
    assert index(tmp_path / "photos").json["images"] == 1


def test_a_rotated_photo_is_indexed_upright(index: Run, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "photos" / "a.jpg", (96, 64), exif=exif)
    index(tmp_path / "photos")
    with Collection.open(tmp_path / "c.delg", read_only=True) as collection:
        assert collection.image(1).size == (64, 96)


def test_names_with_spaces_and_any_letters_or_bytes(index: Run, tmp_path: Path) -> None:
    for name in ("a b.png", "žluťoučký kůň 猫.png", os.fsdecode(b"\xff\xfe.png")):
        save(tmp_path / "plain.png").rename(tmp_path / name)
    assert index(tmp_path).json["images"] == 3


def test_another_profile_is_refused(index: Run, photos: Path) -> None:
    index(photos)
    result = index(photos, "--profile", "fast")
    assert result.code == 1
    assert "max_size" in result.err
    assert "Traceback" not in result.err


def test_photos_that_do_not_exist_are_an_error(index: Run, tmp_path: Path) -> None:
    result = index(tmp_path / "nowhere")
    assert (result.code, "nowhere" in result.err) == (1, True)


def test_photos_that_do_not_exist_leave_no_collection(index: Run, tmp_path: Path) -> None:
    index(tmp_path / "nowhere", "--profile", "fast")
    assert not (tmp_path / "c.delg").exists()


def test_a_link_that_leads_nowhere_is_a_failure(index: Run, photos: Path) -> None:
    (photos / "link.png").symlink_to(photos / "gone.png")
    result = index(*sorted(photos.iterdir()))
    assert (result.code, result.json["images"], len(result.json["failures"])) == (3, 4, 1)


def test_folders_given_twice_are_indexed_once(
    index: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(photos / "sub" / "4.png", seed=4)
    (photos.parent / "link").symlink_to(photos)
    monkeypatch.chdir(photos.parent)
    result = index(photos, photos, "photos", photos.parent / "link", photos / "sub")
    assert (result.code, result.json["images"], result.json["added"]) == (0, 5, 5)


def test_update_of_an_emptied_folder_says_what_to_do(index: Run, photos: Path) -> None:
    index(photos)
    for photo in photos.iterdir():
        photo.unlink()
    result = index(photos, "--update")
    assert (result.code, "mount" in result.err, "delg remove" in result.err) == (1, True, True)


def test_a_collection_moved_with_its_photos_and_then_alone_still_finds_them(
    index: Run, photos: Path, tmp_path: Path
) -> None:
    index(photos, collection=tmp_path / "photos" / "c.delg")
    photos.rename(tmp_path / "new")
    index(tmp_path / "new", "--update", collection=tmp_path / "new" / "c.delg")
    (tmp_path / "new" / "c.delg").rename(tmp_path / "alone.delg")
    with Collection.open(tmp_path / "alone.delg", read_only=True) as collection:
        assert collection.image(1).path == tmp_path / "new" / "0.png"


@pytest.mark.slow
def test_a_killed_run_continues_and_ends_as_if_never_killed(
    index: Run, tiny_weights: Weights, tmp_path: Path
) -> None:
    for number in range(40):
        save(tmp_path / "photos" / f"{number:02d}.png", (320, 240), seed=number)
    command = [sys.executable, "-m", "opendelg", "index", tmp_path / "photos"]
    command += ["--collection", tmp_path / "killed", "--model", tiny_weights.path]
    for seconds in (0.9, 1.3, 1.7):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
    index(tmp_path / "photos", collection=tmp_path / "killed")
    index(tmp_path / "photos", collection=tmp_path / "whole")
    with (
        Collection.open(tmp_path / "killed") as killed,
        Collection.open(tmp_path / "whole") as whole,
    ):
        assert killed.verify() == []
        assert killed.digest() == whole.digest()
        assert len(json.dumps(killed.ids().tolist())) == len(json.dumps(whole.ids().tolist()))
