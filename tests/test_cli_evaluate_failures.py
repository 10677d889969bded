import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from opendelg.evaluation.failures import find_failures
from opendelg.evaluation.failures_shown import (
    PhotoFeatures,
    Photos,
    extractor_of,
    show_failures,
    verification_of,
)
from opendelg.evaluation.runs import Run, read_run, write_run
from opendelg.weights import Weights
from tests.conftest import draw_image

Command = Callable[..., SimpleNamespace]


@dataclass(frozen=True)
class Saved:
    """A saved run, its images and its collection."""

    run: Path
    images: Path
    collection: Path


@pytest.fixture
def saved(delg: Command, tiny_weights: Weights, tmp_path: Path) -> Saved:
    """Three pairs of drawings; the query of the first is said to show the second."""
    images = tmp_path / "images"
    images.mkdir()
    rows = ["image,group,role"]
    for number in range(3):
        pixels = draw_image((192, 128), number).pixels
        Image.fromarray(pixels).save(images / f"q{number}.png")
        Image.fromarray(pixels[:, 8:]).save(images / f"d{number}.png")
        rows += [f"q{number}.png,{max(number, 1)},query", f"d{number}.png,{number},database"]
    (tmp_path / "table.csv").write_text("\n".join(rows))
    made = Saved(tmp_path / "run.zip", images, tmp_path / "c")
    options = ["--csv", tmp_path / "table.csv", "--images", images, "--collection", tmp_path / "c"]
    options += ["--model", tiny_weights.path, "--save-run", made.run]
    assert delg("evaluate", "groups", *options).code == 0
    return made


def test_the_failure_is_shown_with_its_wrong_result(
    delg: Command, saved: Saved, tmp_path: Path
) -> None:
    options = ["--images", saved.images, "--out", tmp_path / "out", "--collection"]
    answer = delg("evaluate", "failures", saved.run, *options, saved.collection, "--json").json
    assert (answer["queries"], answer["failed"]) == (3, 1)
    assert [(f["query"], f["wrong"]) for f in answer["worst"]] == [("q0.png", "d0.png")]
    html = (tmp_path / "out" / "index.html").read_text()
    assert answer["page"] == str(tmp_path / "out" / "index.html")
    assert "1 of 3 queries failed" in html
    assert f"from {saved.collection}" in html


def test_without_a_collection_features_are_extracted_and_it_is_said(
    delg: Command, saved: Saved, tmp_path: Path
) -> None:
    result = delg("evaluate", "failures", saved.run, "--images", saved.images, "--out", tmp_path)
    assert result.out.splitlines() == ["1 of 3 queries failed", f"page: {tmp_path / 'index.html'}"]
    assert "extracted again from the images" in (tmp_path / "index.html").read_text()


def inliers_shown(saved: Saved, run: Run) -> list[tuple[int | None, int]]:
    """Inliers in the run and as drawn, of the pairs of the only failure."""
    failures = find_failures(run, "verified", "mAP", 1).worst
    photos = Photos(run, saved.images)
    with PhotoFeatures(extractor_of(run)) as features:
        features.extract(features.missing(saved.images.iterdir()), None)
        (shown,) = show_failures(run, "verified", "mAP", failures, photos, features)
    drawn = [evidence.num_inliers for _, evidence in shown.pairs]
    (failure,) = failures
    kept = [found.num_inliers for found in (failure.wrong, failure.missed) if found is not None]
    return list(zip(kept, drawn, strict=True))


def test_what_is_drawn_is_what_the_run_counted(saved: Saved) -> None:
    pairs = inliers_shown(saved, read_run(saved.run))
    assert len(pairs) == 2
    assert [kept for kept, _ in pairs] == [drawn for _, drawn in pairs]
    assert pairs[0][1] > 10


def test_a_query_with_a_box_is_extracted_inside_it(saved: Saved) -> None:
    run = read_run(saved.run)
    boxes = np.array([[0, 0, 96, 128]] * 3, np.float64)
    failures = find_failures(run, "verified", "mAP", 1).worst
    boxed = replace(run, extra={"boxes": boxes})
    with PhotoFeatures(extractor_of(run)) as features:
        features.extract(features.missing(saved.images.iterdir()), None)
        photos = Photos(boxed, saved.images)
        (shown,) = show_failures(boxed, "verified", "mAP", failures, photos, features)
    assert shown.box == (0, 0, 96, 128)
    assert shown.query.size == (192, 128)
    assert shown.pairs[0][1].query_points[:, 0].max() < 96


def test_official_stages_are_verified_the_official_way(saved: Saved) -> None:
    run = read_run(saved.run)
    both = replace(run, about={**run.about, "official_verification": {"mode": "paper"}})
    assert verification_of(both, "official hard").mode == "paper"
    assert verification_of(both, "verified hard").mode == "standard"


def test_a_photo_that_is_gone_costs_only_its_lines(
    delg: Command, saved: Saved, tmp_path: Path
) -> None:
    (saved.images / "d0.png").unlink()
    (saved.images / "d1.png").write_bytes(b"no photo")
    result = delg("evaluate", "failures", saved.run, "--images", saved.images, "--out", tmp_path)
    assert result.code == 0
    assert (tmp_path / "index.html").read_text().count("photo not available") > 1


def test_another_folder_of_images_is_an_error(delg: Command, saved: Saved, tmp_path: Path) -> None:
    result = delg("evaluate", "failures", saved.run, "--images", tmp_path, "--out", tmp_path / "o")
    assert result.code == 1
    assert "images must be the folder that the names of the run start from" in result.err
    assert not (tmp_path / "o").exists()


def test_other_weights_than_the_run_s_are_an_error(
    delg: Command, saved: Saved, tmp_path: Path
) -> None:
    options = ["--images", saved.images, "--out", tmp_path / "o", "--model", "starter"]
    result = delg("evaluate", "failures", saved.run, *options)
    assert result.code == 1
    assert "weights must be those of the run" in result.err


def test_another_collection_than_the_run_s_is_an_error(
    delg: Command, saved: Saved, tiny_weights: Weights, tmp_path: Path
) -> None:
    options = ["--model", tiny_weights.path, "--profile", "fast"]
    delg("index", saved.images, "--collection", tmp_path / "other", *options)
    options = ["--images", saved.images, "--out", tmp_path / "o", "--collection"]
    result = delg("evaluate", "failures", saved.run, *options, tmp_path / "other")
    assert result.code == 1
    assert "recipe must be the one that made the collection" in result.err


@pytest.mark.parametrize("name", ["../d0.png", "/etc/d0.png", "d0\0.png"])
def test_names_that_lead_out_of_the_folder_are_refused(
    delg: Command, saved: Saved, tmp_path: Path, name: str
) -> None:
    run = read_run(saved.run)
    names = {i: name if known == "d0.png" else known for i, known in run.names.items()}
    write_run(tmp_path / "bad.zip", replace(run, names=names))
    options = ["--images", saved.images, "--out", tmp_path / "o"]
    result = delg("evaluate", "failures", tmp_path / "bad.zip", *options)
    assert result.code == 1
    assert "image must lie below the folder of images" in result.err


def test_a_run_that_does_not_say_what_made_it_is_an_error(
    delg: Command, saved: Saved, tmp_path: Path
) -> None:
    write_run(tmp_path / "bad.zip", replace(read_run(saved.run), about={}))
    options = ["--images", saved.images, "--out", tmp_path / "o"]
    result = delg("evaluate", "failures", tmp_path / "bad.zip", *options)
    assert (result.code, "run must say what made it" in result.err) == (1, True)


@pytest.mark.parametrize("layout", ["{}", "{}.jpg", "jpg/{}.jpg"])
def test_photos_are_found_where_datasets_keep_them(
    saved: Saved, tmp_path: Path, layout: str
) -> None:
    path = tmp_path / "set" / layout.format("q0.png")
    path.parent.mkdir(parents=True)
    shutil.copy(saved.images / "q0.png", path)
    assert Photos(read_run(saved.run), tmp_path / "set").query(0) == path


def test_photos_of_revisited_runs_are_found_anywhere(saved: Saved, tmp_path: Path) -> None:
    run = replace(read_run(saved.run), queries=("q0", "q1", "elsewhere"))
    assert Photos(run, saved.images).query(0) == saved.images / "q0"
    photos = Photos(replace(run, protocol="rparis6k"), tmp_path)
    assert [photos.query(row) for row in (0, 2)] == [
        saved.images / "q0.png",
        tmp_path / "elsewhere",
    ]
