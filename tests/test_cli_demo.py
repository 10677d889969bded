from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from opendelg.datasets import town
from opendelg.weights import Weights
from tests.conftest import draw_image

Run = Callable[..., SimpleNamespace]


def draw_photos(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True)
    for number in range(count):
        Image.fromarray(draw_image((96, 64), number).pixels).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def demo(delg: Run, tiny_weights: Weights, tmp_path: Path) -> Run:
    options = ["--out", tmp_path / "demo", "--model", tiny_weights.path, "--json"]
    return lambda *photos: delg("demo", *photos, *options)


def test_each_folder_of_photos_has_its_own_collection(demo: Run, tmp_path: Path) -> None:
    first, second = (draw_photos(tmp_path / name / "photos", 2) for name in "ab")
    assert demo(first).json["images"] == 2
    assert demo(second).json["images"] == 2
    names = [path.name for path in (tmp_path / "demo").glob("*.delg")]
    assert len(names) == 2
    assert all(name.startswith("photos-") for name in names)


def test_photos_that_are_not_there_leave_no_trace(demo: Run, tmp_path: Path) -> None:
    assert demo(tmp_path / "none").code == 1
    (tmp_path / "empty").mkdir()
    result = demo(tmp_path / "empty")
    assert (result.code, result.err.startswith("delg: error: photos must hold")) == (1, True)
    assert not (tmp_path / "demo").exists()


def test_photos_that_cannot_be_read_are_told_by_status_3(demo: Run, tmp_path: Path) -> None:
    photos = draw_photos(tmp_path / "photos", 2)
    (photos / "broken.png").write_bytes(b"nothing")
    result = demo(photos)
    assert (result.code, result.json["images"]) == (3, 2)
    assert "unreadable: " in result.err


def test_photos_none_of_which_can_be_read_are_an_error(demo: Run, tmp_path: Path) -> None:
    photos = draw_photos(tmp_path / "photos", 0)
    (photos / "broken.png").write_bytes(b"nothing")
    assert demo(photos).code == 1


def test_the_town_is_rendered_and_searched(
    demo: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = partial(
        town.render_town, num_places=2, views_per_place=2, num_distractors=1, size=(96, 64)
    )
    monkeypatch.setattr(town, "render_town", small)
    result = demo()
    assert (result.code, result.json["images"]) == (0, 3)
    assert (tmp_path / "demo" / "town.delg").is_dir()
    assert "rendering: 6 of 6" in result.err
