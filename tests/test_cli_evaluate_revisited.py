from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from opendelg.evaluation.runs import read_run
from tests.revisited_samples import (
    GROUND_TRUTH,
    distractor_files,
    write_dataset,
    write_folder,
    write_tar,
)

Command = Callable[..., SimpleNamespace]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "data" / "roxford5k")


@pytest.fixture
def evaluate(delg: Command, tiny_weights: Any, folder: Path) -> Command:
    """`delg evaluate roxford5k` on the made-up dataset with tiny weights."""

    def run(*options: object) -> SimpleNamespace:
        fixed = ["--model", tiny_weights.path, "--profile", "fast", "--threads", 1]
        return delg("evaluate", "roxford5k", folder, *fixed, *options)

    return run


def without_notes(answer: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in answer.items() if key != "notes"}


def test_all_levels_and_stages_are_reported(evaluate: Command) -> None:
    answer = evaluate("--json").json
    assert (answer["protocol"], answer["queries"], answer["database"]) == ("roxford5k", 2, 8)
    assert list(answer)[-3:] == ["global", "verified", "official"]
    assert list(answer["official"]) == ["easy", "medium", "hard"]
    assert list(answer["global"]["hard"]["precision_at"]) == ["1", "5", "10"]
    assert 0 < answer["global"]["medium"]["mAP"] <= 1


def test_the_table_has_a_line_for_each_stage_and_level(evaluate: Command) -> None:
    lines = evaluate().out.splitlines()
    assert lines[0] == "roxford5k: 2 queries, 8 database images"
    assert lines[1].split() == ["stage", "mAP", "mP@1", "mP@5", "mP@10"]
    assert [line.split()[1] for line in lines[2:11]] == ["easy", "medium", "hard"] * 3
    assert lines[11].startswith("note: NOT COMPARABLE: the ground truth is not the published one")


def test_a_saved_run_is_scored_again_without_images(
    evaluate: Command, delg: Command, folder: Path, tmp_path: Path
) -> None:
    first = evaluate("--save-run", tmp_path / "run.zip")
    (folder / "gnd_roxford5k.pkl").unlink()
    assert delg("evaluate", "rescore", tmp_path / "run.zip").out == first.out


def test_missing_photos_are_an_error_without_subset(evaluate: Command, folder: Path) -> None:
    (folder / "jpg" / "db_2.jpg").unlink()
    result = evaluate()
    assert result.code == 1
    assert "got 1 missing" in result.err
    assert "--subset" in result.err
    assert result.out == ""


def test_a_subset_says_so(evaluate: Command, folder: Path) -> None:
    (folder / "jpg" / "db_2.jpg").unlink()
    out = evaluate("--subset").out
    assert "note: SUBSET: 2 of 2 queries, 7 of 8 database images: not comparable" in out
    assert "REDUCED" not in out


def test_uncropped_queries_are_not_comparable(evaluate: Command) -> None:
    assert "note: NOT COMPARABLE: queries are whole photos" in evaluate("--uncropped").out


def test_reduced_photos_need_the_side_that_they_were_reduced_from(
    evaluate: Command, folder: Path, tmp_path: Path
) -> None:
    truth = (folder / "gnd_roxford5k.pkl").read_bytes()
    assert truth.count(b"G@e@") == 1  # 170.0 in a box
    (folder / "gnd_roxford5k.pkl").write_bytes(truth.replace(b"G@e@", b"G@\x8a@"))  # 840.0
    result = evaluate()
    assert result.code == 1
    assert "with --original-side" in result.err
    run = tmp_path / "run.zip"
    asked = evaluate("--original-side", 1024, "--save-run", run)
    assert "note: REDUCED PHOTOS: boxes are scaled from a longer side of 1024 px" in asked.out
    assert read_run(run).extra["boxes"][0].tolist() == [3, 1.5, 27, 22.5]
    assert evaluate("--subset").out == asked.out


def test_distractors_of_folders_and_tars_give_the_same_figures(
    evaluate: Command, tmp_path: Path
) -> None:
    files = distractor_files(5)
    write_folder(tmp_path / "others", files)
    write_tar(tmp_path / "data" / "revisitop1m" / "revisitop1m.1.tar.gz", files)
    kept = ["--collection", tmp_path / "kept", "--json"]
    from_folder = evaluate("--distractors", tmp_path / "others", *kept).json
    from_tars = evaluate("--distractors", "r1m", *kept).json
    assert from_folder["database"] == 13
    assert "DISTRACTORS: 5, not the 1,001,001 of R1M" in from_folder["notes"][1]
    assert from_tars == from_folder
    alone = evaluate(*kept).json
    assert alone["database"] == 8
    assert without_notes(alone) != without_notes(from_folder)


def test_what_a_collection_keeps_is_not_extracted_again(evaluate: Command, tmp_path: Path) -> None:
    others = write_folder(tmp_path / "others", distractor_files(5))
    options = ["--collection", tmp_path / "kept", "--distractors", others]
    first = evaluate(*options)
    assert "extracting distractors: 5 of 5" in first.err
    again = evaluate(*options)
    assert again.out == first.out
    assert "extracting queries: 2 of 2" in again.err
    assert "distractors:" not in again.err


def test_verification_may_be_one_way_or_none(evaluate: Command) -> None:
    assert "official" not in evaluate("--verification", "standard", "--json").json
    assert "verified" not in evaluate("--verification", "paper", "--json").json
    only = evaluate("--rerank", 0, "--json").json
    assert {"official", "verified"} & only.keys() == set()


def test_a_folder_without_ground_truth_is_an_error(delg: Command, tmp_path: Path) -> None:
    result = delg("evaluate", "rparis6k", tmp_path)
    assert result.code == 1
    assert "dataset must have a file gnd_rparis6k.pkl" in result.err


def test_distractors_that_are_not_there_are_an_error(evaluate: Command) -> None:
    result = evaluate("--distractors", "r1m")
    assert result.code == 1
    assert "distractors must be a folder or a tar, got none: " in result.err


def test_runs_are_compared_and_failures_shown(
    evaluate: Command, delg: Command, folder: Path, tmp_path: Path
) -> None:
    for name, options in (("a", []), ("b", ["--uncropped"])):
        evaluate("--save-run", tmp_path / f"{name}.zip", *options)
    compared = delg("evaluate", "compare", tmp_path / "a.zip", tmp_path / "b.zip")
    assert compared.code == 0
    assert "mAP" in compared.out
    options = ["--images", folder, "--out", tmp_path / "page", "--stage", "official hard"]
    shown = delg("evaluate", "failures", tmp_path / "a.zip", *options, "--json").json
    assert shown["queries"] == 2
    assert (tmp_path / "page" / "index.html").exists()


def test_a_run_that_cannot_be_saved_is_refused_before_any_work(
    delg: Command, tmp_path: Path
) -> None:
    for place, reason in ((tmp_path, "is a directory"), (tmp_path / "file" / "run.zip", "exists")):
        (tmp_path / "file").write_text("in the way")
        found = delg("evaluate", "roxford5k", tmp_path / "none", "--save-run", place)
        assert found.code == 1
        assert "error: output must be a file that can be written, got" in found.err
        assert reason in found.err


def test_queries_that_can_find_nothing_are_an_error_before_any_work(
    delg: Command, tmp_path: Path
) -> None:
    entries = [{**entry, "easy": [], "hard": []} for entry in GROUND_TRUTH["gnd"]]
    folder = write_dataset(tmp_path / "roxford5k", {**GROUND_TRUTH, "gnd": entries})
    found = delg("evaluate", "roxford5k", folder, "--model", "none")
    assert found.code == 1
    assert "a query must have database images to find, got none for any of 2" in found.err


def test_photos_of_the_dataset_are_no_distractors(evaluate: Command, folder: Path) -> None:
    found = evaluate("--distractors", folder)
    assert found.code == 1
    assert "must be other photos than the dataset's, got 10 of these in" in found.err
