"""Commands on photos in tars."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from opendelg.weights import Weights
from tests.conftest import draw_image
from tests.tar_samples import pack

Run = Callable[..., SimpleNamespace]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "photos" / "sub").mkdir(parents=True)
    for number, name in enumerate(["0.png", "sub/1.png", "sub/2.png"]):
        path = tmp_path / "photos" / name
        Image.fromarray(draw_image((192, 128), number).pixels).save(path)
    return tmp_path / "photos"


@pytest.fixture
def tar(folder: Path) -> Path:
    return pack(folder.parent / "x.tar", folder)


@pytest.fixture
def collection(delg: Run, tar: Path, tiny_weights: Weights) -> Path:
    made = tar.parent / "c"
    assert delg("index", tar, "--collection", made, "--model", tiny_weights.path).code == 0
    return made


def test_a_photo_in_a_tar_is_searched_by_its_path(
    delg: Run, collection: Path, tar: Path, folder: Path
) -> None:
    inside = delg("search", collection, tar / "sub/1.png", "--json").json
    outside = delg("search", collection, folder / "sub/1.png", "--json").json
    assert inside["results"] == outside["results"]
    assert inside["query"]["path"] == inside["results"][0]["path"] == str(tar / "sub/1.png")
    assert inside["query"]["id"] == 2


@pytest.mark.parametrize("box", [[], ["--box", "10,10,150,100"]])
def test_evidence_of_a_tar_is_that_of_its_folder(
    delg: Run, collection: Path, tar: Path, folder: Path, tiny_weights: Weights, box: list[str]
) -> None:
    other = tar.parent / "other"
    delg("index", folder, "--collection", other, "--model", tiny_weights.path)
    out = [tar.parent / "html tar", tar.parent / "html folder"]
    delg("search", collection, tar / "0.png", "--html", out[0], *box)
    delg("search", other, folder / "0.png", "--html", out[1], *box)
    pictures = [sorted(page.glob("*.png")) for page in out]
    assert [path.name for path in pictures[0]] == [path.name for path in pictures[1]]
    assert len(pictures[0]) == 3
    assert [a.read_bytes() for a in pictures[0]] == [b.read_bytes() for b in pictures[1]]
    assert "no longer there" not in (out[0] / "index.html").read_text()


def test_evidence_says_that_a_tar_is_gone(
    delg: Run, collection: Path, tar: Path, folder: Path
) -> None:
    tar.unlink()
    assert delg("search", collection, folder / "0.png", "--html", tar.parent / "out").code == 0
    assert "the file is no longer there" in (tar.parent / "out/index.html").read_text()


def test_photos_of_a_tar_are_removed_verified_and_described(
    delg: Run, collection: Path, tar: Path
) -> None:
    assert delg("remove", collection, tar / "0.png", "--json").json == {"removed": 1, "images": 2}
    assert delg("verify", collection).code == 0
    assert delg("info", collection, "--json").json["roots"] == [str(tar.parent)]


def test_two_photos_of_a_tar_are_matched(delg: Run, tar: Path, tiny_weights: Weights) -> None:
    command = ["match", tar / "0.png", tar / "sub/1.png", "--model", tiny_weights.path, "--json"]
    assert delg(*command).json["path"] == str(tar / "sub/1.png")


def test_a_tar_is_planned(delg: Run, tar: Path, tiny_weights: Weights) -> None:
    answer = delg("plan", tar, "--sample", "2", "--model", tiny_weights.path, "--json")
    assert (answer.code, answer.json["num_images"]) == (0, 3)


@pytest.mark.parametrize("command", ["index", "plan"])
def test_a_compressed_tar_is_an_error_before_anything_is_made(
    delg: Run, tmp_path: Path, tiny_weights: Weights, command: str
) -> None:
    (tmp_path / "x.tar.gz").touch()
    made = tmp_path / "c"
    answer = delg(command, tmp_path / "x.tar.gz", "-c", made, "--model", tiny_weights.path)
    assert (answer.code, "decompress it (gunzip) or unpack it" in answer.err) == (1, True)
    assert not made.exists()


def test_a_damaged_tar_is_listed_and_the_rest_is_indexed(
    delg: Run, collection: Path, tar: Path
) -> None:
    (tar.parent / "y.tar").write_text("no tar")
    answer = delg("index", tar.parent / "y.tar", tar, "--collection", collection, "--json")
    assert (answer.code, answer.json["unchanged"]) == (3, 3)
    assert answer.json["failures"] == [
        {
            "path": str(tar.parent / "y.tar"),
            "reason": "tar must be plain and intact, got 'cut off at byte 0'",
        }
    ]
