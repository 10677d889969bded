import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from opendelg.errors import FormatError, OpenDelgError
from opendelg.feature_files import is_current, read_npz, write_npz
from opendelg.features import ImageFeatures, LocalFeatures
from opendelg.weights import Weights
from tests.conftest import draw_image

Run = Callable[..., SimpleNamespace]
FEATURES = ImageFeatures((9, 7), np.ones(4, np.float32), LocalFeatures.empty(8))


def draw(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(draw_image((96, 64), seed).pixels).save(path)
    return path


@pytest.fixture
def extract(delg: Run, tiny_weights: Weights, tmp_path: Path) -> Run:
    def run(*images: Path) -> SimpleNamespace:
        options = ["--out", tmp_path / "f", "--model", tiny_weights.path, "--json"]
        return delg("extract", *images, *options)

    return run


def test_images_that_would_share_a_file_are_refused_before_any_work(
    extract: Run, tmp_path: Path
) -> None:
    images = [draw(tmp_path / folder / "a.png") for folder in ("one", "two")]
    result = extract(*images)
    assert result.code == 1
    assert all(repr(str(image)) in result.err for image in images)
    assert not (tmp_path / "f").exists()
    assert extract(tmp_path).json["written"] == 2


def test_a_changed_image_is_extracted_again(extract: Run, tmp_path: Path) -> None:
    image, other = draw(tmp_path / "p" / "a.png"), draw(tmp_path / "p" / "b.png")
    extract(image, other)
    draw(image, seed=1)
    status = image.stat()
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns + 10**10))
    answer = extract(image, other).json
    assert (answer["written"], answer["kept"]) == (1, 1)


def test_a_file_in_place_of_the_folder_is_one_line(extract: Run, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("a file")
    result = extract(draw(tmp_path / "p" / "a.png"))
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert "out must be a folder" in result.err


def test_a_name_that_is_too_long_is_one_line(extract: Run, tmp_path: Path) -> None:
    result = extract(draw(tmp_path / "p" / f"{'x' * 250}.png"))
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert "image must have a name of at most 251 bytes" in result.err
    assert not (tmp_path / "f").exists()


def test_the_longest_name_that_fits_is_written(tmp_path: Path) -> None:
    write_npz(tmp_path / f"{'x' * 251}.npz", FEATURES, "{}")
    assert len(list(tmp_path.iterdir())) == 1


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    write_npz(tmp_path / "new" / "a.npz", FEATURES, "{}")
    features, recipe = read_npz(tmp_path / "new" / "a.npz")
    assert (features.size, recipe) == ((9, 7), "{}")
    np.testing.assert_array_equal(features.global_descriptor, FEATURES.global_descriptor)


def test_a_folder_that_cannot_be_made_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OpenDelgError, match="feature file must be writable"):
        write_npz(tmp_path / "file" / "a.npz", FEATURES, "{}")


@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"\x93NUMPY\1\0", None])
def test_a_file_of_another_kind_is_not_current(tmp_path: Path, content: bytes | None) -> None:
    image, path = draw(tmp_path / "a.png"), tmp_path / "a.npz"
    if content is None:
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    else:
        path.write_bytes(content)
    assert not is_current(path, image, "{}")
    with pytest.raises(FormatError, match="feature file must be one that"):
        read_npz(path)


def test_only_the_same_recipe_is_current(tmp_path: Path) -> None:
    image = draw(tmp_path / "a.png")
    write_npz(tmp_path / "a.npz", FEATURES, "one")
    assert is_current(tmp_path / "a.npz", image, "one")
    assert not is_current(tmp_path / "a.npz", image, "two")
    assert not is_current(tmp_path / "b.npz", image, "one")


def test_a_folder_that_cannot_be_listed_is_told_and_the_status_is_3(
    extract: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = draw(tmp_path / "p" / "a.png")

    def walk(top: Path, onerror: Callable[[OSError], None]) -> list[tuple[str, list, list]]:
        onerror(PermissionError(13, "Permission denied", f"{top}/private"))
        return [(str(top), [], [image.name])]

    monkeypatch.setattr("opendelg.image.os.walk", walk)
    result = extract(tmp_path / "p")
    assert (result.code, result.json["written"]) == (3, 1)
    assert [failure["path"] for failure in result.json["failures"]] == [f"{image.parent}/private"]


def test_a_file_that_unpacks_to_very_much_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_npz(tmp_path / "a.npz", FEATURES, "{}")
    monkeypatch.setattr("opendelg.feature_files.npz.MAX_BYTES", 500)
    with pytest.raises(FormatError, match=r"arrays of [0-9]+ bytes, 500 at most"):
        read_npz(tmp_path / "a.npz")


def test_other_files_are_not_called_pickles(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"not an archive")
    with pytest.raises(FormatError, match=r"no .npz file"):
        read_npz(tmp_path / "a.npz")


def test_an_image_has_a_size(tmp_path: Path) -> None:
    write_npz(tmp_path / "a.npz", replace(FEATURES, size=(0, -5)), "{}")
    with pytest.raises(FormatError, match="size of 0 x -5 px"):
        read_npz(tmp_path / "a.npz")
