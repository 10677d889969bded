"""`delg extract --format`: every format holds the same features, resumes and keeps its recipe."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from opendelg.feature_files import (
    hloc_images,
    read_delg_global,
    read_delg_local,
    read_hloc_global,
    read_hloc_local,
    read_kapture_global,
    read_kapture_local,
    read_npz,
    write_hloc_local,
    write_npz,
)
from opendelg.features import ImageFeatures
from opendelg.weights import Weights
from tests.test_cli_extract import FEATURES, draw

Run = Callable[..., SimpleNamespace]
FORMATS = ["npz", "delg", "h5", "kapture"]
RECIPE_BESIDE = FORMATS[1:]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    draw(folder / "a.png")
    draw(folder / "sub.dir" / "b.c.png", seed=1)
    return folder


@pytest.fixture
def extract(delg: Run, tiny_weights: Weights, tmp_path: Path) -> Run:
    def run(*arguments: object) -> SimpleNamespace:
        options = ["--out", tmp_path / "f", "--model", tiny_weights.path, "--json"]
        return delg("extract", *arguments, *options)

    return run


def read(folder: Path, format: str, name: str) -> ImageFeatures:
    """The features of an image; its size is (0, 0) in formats that do not have it."""
    match format:
        case "npz":
            return read_npz(folder / f"{name}.npz")[0]
        case "delg":
            stem = name.removesuffix(".png")
            local = read_delg_local(folder / f"{stem}.delg_local", 8)
            return ImageFeatures((0, 0), read_delg_global(folder / f"{stem}.delg_global"), local)
        case "h5":
            local, size = read_hloc_local(folder / "features.h5", name)
            return ImageFeatures(size, read_hloc_global(folder / "global.h5", name), local)
    descriptor = read_kapture_global(folder, name)
    return ImageFeatures((0, 0), descriptor, read_kapture_local(folder, name))


@pytest.mark.parametrize("name", ["a.png", "sub.dir/b.c.png"])
@pytest.mark.parametrize("format", RECIPE_BESIDE)
def test_all_formats_hold_the_same_features(
    extract: Run, photos: Path, tmp_path: Path, format: str, name: str
) -> None:
    assert extract(photos).json["written"] == 2
    assert extract(photos, "--format", format).json["written"] == 2
    expected, actual = read(tmp_path / "f", "npz", name), read(tmp_path / "f", format, name)
    assert len(expected.local) > 0
    np.testing.assert_array_equal(actual.global_descriptor, expected.global_descriptor)
    for part, array in vars(expected.local).items():
        np.testing.assert_allclose(getattr(actual.local, part), array, rtol=0, atol=1e-5)


def test_delg_files_go_by_the_stem_of_the_image(extract: Run, photos: Path, tmp_path: Path) -> None:
    extract(photos, "--format", "delg")
    found = sorted(str(p.relative_to(tmp_path / "f")) for p in (tmp_path / "f").rglob("*.*"))
    assert found == [
        "a.delg_global",
        "a.delg_local",
        "recipe.json",
        "sub.dir",
        "sub.dir/b.c.delg_global",
        "sub.dir/b.c.delg_local",
    ]


def test_images_that_differ_in_the_extension_only_are_refused(
    extract: Run, photos: Path, tmp_path: Path
) -> None:
    draw(photos / "a.bmp")
    result = extract(photos, "--format", "delg")
    assert result.code == 1
    assert "images must have names that differ without their extension" in result.err
    assert not (tmp_path / "f").exists()
    assert extract(photos, "--format", "h5").json["written"] == 3


@pytest.mark.parametrize("format", FORMATS)
def test_a_second_run_extracts_only_what_is_new_or_changed(
    extract: Run, photos: Path, format: str
) -> None:
    extract(photos, "--format", format)
    again = extract(photos, "--format", format).json
    assert (again["written"], again["kept"]) == (0, 2)
    draw(photos / "new.png", seed=2)
    status = (photos / "a.png").stat()
    os.utime(photos / "a.png", ns=(status.st_atime_ns, status.st_mtime_ns + 10**10))
    again = extract(photos, "--format", format).json
    assert (again["written"], again["kept"]) == (2, 1)


@pytest.mark.parametrize("format", FORMATS)
def test_unreadable_images_are_listed_and_the_rest_is_written(
    extract: Run, photos: Path, tmp_path: Path, format: str
) -> None:
    (photos / "broken.png").write_bytes(b"no image")
    result = extract(photos, "--format", format)
    assert (result.code, result.json["written"]) == (3, 2)
    assert "unreadable: " in result.err
    assert len(read(tmp_path / "f", format, "a.png").local) > 0


@pytest.mark.parametrize("format", RECIPE_BESIDE)
def test_two_recipes_in_a_folder_are_refused_by_name(
    extract: Run, photos: Path, format: str
) -> None:
    extract(photos, "--format", format)
    result = extract(photos, "--format", format, "--profile", "paper")
    assert result.code == 1
    assert "recipe must be the one that made the features" in result.err
    assert "extraction.max_size 1024 instead of 768" in result.err


@pytest.mark.parametrize("format", RECIPE_BESIDE)
def test_features_of_an_unknown_recipe_are_not_touched(
    extract: Run, photos: Path, tmp_path: Path, format: str
) -> None:
    extract(photos, "--format", format)
    (tmp_path / "f" / "recipe.json").unlink()
    result = extract(photos, "--format", format)
    assert result.code == 1
    assert "features must lie beside the recipe that made them" in result.err
    (tmp_path / "f" / "recipe.json").write_text("{}")
    result = extract(photos, "--format", format)
    assert (result.code, "recipe must be one that" in result.err) == (1, True)


def test_an_interrupted_run_into_hdf5_loses_nothing(
    extract: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("opendelg.feature_files.folders._HlocFolder.finish", interrupt)
        assert extract(photos, "--format", "h5").code == 130
    assert not (tmp_path / "f" / "features.h5").exists()
    again = extract(photos, "--format", "h5").json
    assert (again["written"], again["kept"]) == (0, 2)
    assert len(hloc_images(tmp_path / "f" / "features.h5")) == 2
    assert sorted(p.name for p in (tmp_path / "f").iterdir()) == [
        ".lock",
        "features.h5",
        "global.h5",
        "recipe.json",
    ]


def test_what_another_run_writes_while_one_ends_is_not_lost(
    extract: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = tmp_path / "f" / ".waiting" / "other.png.npz"

    def store(path: Path, *arguments: Any) -> None:
        write_hloc_local(path, *arguments)
        write_npz(waiting, FEATURES, "{}")  # by the other run

    monkeypatch.setattr("opendelg.feature_files.folders.write_hloc_local", store)
    assert extract(photos, "--format", "h5").code == 0
    assert waiting.exists()


@pytest.mark.parametrize("format", FORMATS)
def test_a_full_disk_is_one_line_and_leaves_no_broken_file(
    photos: Path, tiny_weights: Weights, tmp_path: Path, format: str
) -> None:
    # No file may become larger than 4,000 bytes: enough for the recipe, not for features.
    code = (
        "import resource, sys; from opendelg.cli import main;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000)); main()"
    )
    arguments = ["extract", photos, "--out", tmp_path / "f", "--model", tiny_weights.path]
    result = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments), "--format", format],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert "delg: error: feature file must be writable, got 'File too large'" in result.stderr
    assert "Traceback" not in result.stderr
    files = [path for path in (tmp_path / "f").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".json", ".delg_global", ".txt", ".kpt"}


def test_hdf5_cannot_hold_names_that_are_no_text(
    extract: Run, photos: Path, tmp_path: Path
) -> None:
    os.rename(photos / "a.png", os.fsencode(photos) + b"/\xff.png")
    result = extract(photos, "--format", "h5")
    assert (result.code, "image must have a name in UTF-8" in result.err) == (1, True)
    assert extract(photos, "--format", "kapture").json["written"] == 2


@pytest.mark.parametrize("format", FORMATS)
def test_the_longest_name_is_written_or_refused_before_any_work(
    extract: Run, photos: Path, tmp_path: Path, format: str
) -> None:
    longest = {"npz": 251, "delg": 247, "h5": 251, "kapture": 249}[format]
    draw(photos / f"{'x' * (longest - 4)}.png")
    assert extract(photos, "--format", format).json["written"] == 3
    draw(photos / f"{'x' * (longest - 3)}.png")
    result = extract(photos, "--format", format)
    assert (result.code, f"a name of at most {longest} bytes" in result.err) == (1, True)


@pytest.mark.parametrize("format", FORMATS)
def test_weights_that_were_moved_are_the_same_recipe(
    delg: Run, extract: Run, photos: Path, tiny_weights: Weights, tmp_path: Path, format: str
) -> None:
    extract(photos, "--format", format)
    moved = shutil.copy(tiny_weights.path, tmp_path / "moved.safetensors")
    options = ["--out", tmp_path / "f", "--model", moved, "--format", format, "--json"]
    assert delg("extract", photos, *options).json["kept"] == 2


@pytest.mark.parametrize("name", ["..png", "...png"])
def test_names_of_dots_stay_in_the_folder(
    extract: Run, photos: Path, tmp_path: Path, name: str
) -> None:
    (photos / "a.png").rename(photos / name)
    assert extract(photos / name, "--format", "delg").code == 0
    assert (tmp_path / "f" / f"{name}.delg_local").is_file()
