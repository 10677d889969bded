from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from opendelg.datasets.revisited import OFFICIAL
from opendelg.evaluation import protocols
from opendelg.evaluation.runs import read_run
from opendelg.weights import Weights, write_weights
from tests.gldv2_samples import make_gldv2
from tests.place_samples import csv_file, save, utm_folder
from tests.revisited_samples import distractor_files, write_dataset, write_folder

Command = Callable[..., SimpleNamespace]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Revisited Oxford, made up."""
    write_dataset(tmp_path / "data" / "roxford5k")
    return tmp_path / "data"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def fixed(tiny_weights: Weights, tmp_path: Path) -> list[object]:
    """Weights whose threshold leaves no local features: nothing is verified, which takes long."""
    file = tmp_path / "tiny.safetensors"
    write_weights(file, "tiny", tiny_weights.state, tiny_weights.model, 1000.0)
    return ["--model", file, "--device", "cpu", "--threads", 1]


@pytest.fixture
def reproduce(delg: Command, data: Path, runs: Path, fixed: list[object]) -> Command:
    """`delg evaluate reproduce` with tiny weights, quick unless a profile is named."""

    def run(*options: object) -> SimpleNamespace:
        quick = [] if "--profile" in options else ["--profile", "fast"]
        return delg(
            *("evaluate", "reproduce", "--data", data, "--out", runs),
            *(*fixed, *quick, *options),
        )

    return run


def table(out: str) -> list[list[str]]:
    """The cells of the lines above the first empty one."""
    return [line.split() for line in out.partition("\n\n")[0].splitlines()]


def add_table(data: Path) -> None:
    csv_file(data / "mine.csv", ["image,group,role", "0.png,a,query", "1.png,a,database"])
    for seed in range(2):
        save(data / "mine" / f"{seed}.png", 0)


def test_published_figures_stand_beside_ours(reproduce: Command) -> None:
    result = reproduce("--profile", "paper")
    rows = table(result.out)
    assert rows[0] == [
        *("benchmark", "stage", "measure", "ours"),
        *("r50-gld", "r50-gldv2clean", "r101-gld", "r101-gldv2clean", "r50-gld-20200520"),
    ]
    (row,) = (row for row in rows if row[1:4] == ["official", "hard", "mAP"])
    assert row[4].endswith("*")
    assert row[5:] == ["54.20", "57.90", "59.30", "64.00", "53.72"]
    assert "no difference is shown, as weights 'tiny' are not published ones" in result.out
    assert "note: NOT COMPARABLE: the ground truth is not the published" in result.out
    assert "profile paper" not in result.out
    assert "* not comparable with published figures, see the notes" in result.out
    assert "published figures:\n  Phan et al., ACCV 2022" in result.out


def test_other_settings_are_a_reason_for_no_difference(reproduce: Command) -> None:
    assert (
        "no difference is shown, as the settings are not those of the profile paper"
        in reproduce().out
    )


def test_the_difference_is_shown_for_published_weights(
    delg: Command,
    data: Path,
    runs: Path,
    tiny_weights: Weights,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(OFFICIAL, "roxford5k", (2, 8, 3, 3, 1))
    file = tmp_path / "official.safetensors"
    said = {"imported_from": "r50delg_gldv2clean_20200914", "format": "saved model"}
    write_weights(file, "mine", tiny_weights.state, tiny_weights.model, 454.6, training=said)
    result = delg(
        *("evaluate", "reproduce", "--data", data, "--out", runs),
        *("--model", file, "--device", "cpu", "--threads", 1),
    )
    rows = table(result.out)
    assert rows[0][4:] == ["r50-gldv2clean", "difference"]
    (row,) = (row for row in rows if row[1:4] == ["global", "medium", "mAP"])
    assert float(row[6]) == pytest.approx(float(row[4]) - 73.6, abs=0.011)
    assert "no difference" not in result.out
    assert "*" not in result.out


def test_figures_are_those_of_the_single_command(
    reproduce: Command, delg: Command, data: Path, tiny_weights: Weights
) -> None:
    verified = ["--model", tiny_weights.path, "--profile", "fast", "--threads", 1, "--json"]
    (one,) = reproduce(*verified).json["benchmarks"]
    alone = delg("evaluate", "roxford5k", data / "roxford5k", "--subset", *verified).json
    assert one["report"] == alone
    assert delg("evaluate", "rescore", one["run"], "--json").json == alone


def test_all_that_is_there_is_run_and_kept(reproduce: Command, data: Path, runs: Path) -> None:
    add_table(data)
    make_gldv2(data / "gldv2")
    utm_folder(data / "town")
    write_folder(data / "revisitop1m", distractor_files(5))
    answer = reproduce("--json").json
    names = [one["name"] for one in answer["benchmarks"]]
    assert names == [
        *("groups-mine", "places-town", "roxford5k"),
        *("gldv2-retrieval", "gldv2-recognition", "roxford5k+r1m"),
    ]
    assert all((runs / f"{name}.zip").is_file() for name in names)
    assert answer["failed"] == {}
    with_distractors = answer["benchmarks"][-1]
    assert with_distractors["report"]["database"] == 13
    assert with_distractors["compared"][0]["stage"] == "global easy"
    assert with_distractors["compared"][1]["published"][0]["value"] == 0.55
    again = reproduce("--json")
    assert "extracting" not in again.err
    assert [one["is_new"] for one in again.json["benchmarks"]] == [False] * 6


def test_a_finished_run_is_scored_again_without_features(reproduce: Command, runs: Path) -> None:
    first = reproduce()
    (features,) = runs.glob("features-*")
    features.rename(runs / "elsewhere")
    again = reproduce()
    assert again.out == first.out
    assert again.err == f"roxford5k: scored again from {runs / 'roxford5k.zip'}\n"
    assert list(runs.glob("features-*")) == []


def test_other_settings_are_told_and_made_again(reproduce: Command, runs: Path) -> None:
    reproduce()
    before = (runs / "roxford5k.zip").read_bytes()
    again = reproduce("--profile", "paper")
    assert "roxford5k: made again, as " in again.err
    assert "extraction.max_size 480 -> 1024" in again.err
    assert (runs / "roxford5k.old.zip").read_bytes() == before
    assert read_run(runs / "roxford5k.zip").about["extraction"]["max_size"] == 1024
    assert len(list(runs.glob("features-*"))) == 2


def test_another_model_is_told_and_made_again(reproduce: Command, tiny_weights: Weights) -> None:
    reproduce()
    assert "model.sha256 " in reproduce("--model", tiny_weights.path).err


def test_moved_weights_are_the_same(reproduce: Command, tmp_path: Path) -> None:
    reproduce()
    moved = (tmp_path / "tiny.safetensors").rename(tmp_path / "moved.safetensors")
    assert "scored again" in reproduce("--model", moved).err


def test_photos_that_came_later_are_told_and_taken(reproduce: Command, data: Path) -> None:
    photo = data / "roxford5k" / "jpg" / "db_2.jpg"
    content = photo.read_bytes()
    photo.unlink()
    assert "note: SUBSET: 2 of 2 queries, 7 of 8 database images" in reproduce().out
    photo.write_bytes(content)
    again = reproduce()
    assert "dataset.images 7 -> 8" in again.err
    assert "SUBSET" not in again.out


def test_other_distractors_are_told_and_taken(reproduce: Command, data: Path) -> None:
    write_folder(data / "revisitop1m", distractor_files(3))
    only = ["--only", "roxford5k+r1m"]
    assert "DISTRACTORS: 3, not the 1,001,001" in reproduce(*only).out
    write_folder(data / "revisitop1m", distractor_files(4))
    again = reproduce(*only)
    assert "dataset.distractors.source_sha256 " in again.err
    assert "DISTRACTORS: 4, not the 1,001,001" in again.out
    assert "scored again" in reproduce(*only).err


@pytest.mark.parametrize("kept", [0, 100, -30], ids=["empty", "head", "cut"])
def test_a_damaged_run_is_told_and_made_again(reproduce: Command, runs: Path, kept: int) -> None:
    first = reproduce()
    file = runs / "roxford5k.zip"
    file.write_bytes(file.read_bytes()[:kept])
    again = reproduce()
    assert "roxford5k: made again: run must be a whole file that `--save-run` wrote" in again.err
    assert again.out == first.out
    assert "scored again" in reproduce().err


def test_a_run_of_another_benchmark_is_not_taken(
    reproduce: Command, data: Path, runs: Path
) -> None:
    add_table(data)
    reproduce("--only", "groups-mine")
    (runs / "groups-mine.zip").rename(runs / "roxford5k.zip")
    again = reproduce("--only", "roxford5k")
    assert "dataset.ground_truth_sha256 None -> " in again.err


def test_what_fails_does_not_stop_the_others(reproduce: Command, data: Path) -> None:
    add_table(data)
    (data / "roxford5k" / "gnd_roxford5k.pkl").write_bytes(b"no pickle")
    result = reproduce()
    assert result.code == 1
    assert "roxford5k: error: " in result.err
    assert "groups-mine" in result.out
    failed: dict[str, Any] = reproduce("--json").json["failed"]
    assert list(failed) == ["roxford5k"]


def test_a_folder_without_benchmarks_is_an_error(delg: Command, tmp_path: Path) -> None:
    result = delg("evaluate", "reproduce", "--data", tmp_path)
    assert (result.code, result.out) == (1, "")
    assert "data must hold a benchmark, got none in " in result.err
    assert "`--list` says what to download" in result.err


def test_a_folder_that_is_not_there_is_an_error(delg: Command, tmp_path: Path) -> None:
    result = delg("evaluate", "reproduce", "--data", tmp_path / "absent", "--list")
    assert result.code == 1
    assert "data must be an existing folder, got " in result.err


def test_only_names_what_is_run(reproduce: Command, data: Path) -> None:
    add_table(data)
    names = [one["name"] for one in reproduce("--only", "groups-mine", "--json").json["benchmarks"]]
    assert names == ["groups-mine"]


def test_only_of_what_is_missing_says_what_it_needs(reproduce: Command, runs: Path) -> None:
    result = reproduce("--only", "rparis6k")
    assert result.code == 1
    assert "rparis6k must lie below " in result.err
    assert "it needs rparis6k/gnd_rparis6k.pkl" in result.err
    assert not runs.exists()


def test_only_of_no_benchmark_is_a_usage_error(reproduce: Command) -> None:
    result = reproduce("--only", "oxford")
    assert result.code == 2
    assert "only must be one of roxford5k, rparis6k" in result.err.replace("\n", " ")


def test_the_list_says_what_is_there_and_what_is_missing(reproduce: Command, data: Path) -> None:
    write_dataset(data / "part")
    lines = reproduce("--list").out.splitlines()
    assert lines[0] == f"found    roxford5k: {data / 'roxford5k'}"
    assert lines[1] == f"         also in {data / 'part'}, which is left out"
    assert lines[2].startswith("missing  rparis6k: rparis6k/gnd_rparis6k.pkl (http")
    listed = reproduce("--list", "--json").json
    assert [one["name"] for one in listed["found"]] == ["roxford5k"]
    assert "roxford5k+r1m" in listed["missing"]


def test_an_output_folder_that_is_a_file_is_told(reproduce: Command, runs: Path) -> None:
    runs.write_text("")
    result = reproduce()
    assert result.code == 1
    assert f"roxford5k: error: File exists: {runs}" in result.err


def test_what_was_stopped_goes_on(
    reproduce: Command, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(protocols, "evaluate_revisited", stop)
        stopped = reproduce()
    assert (stopped.code, stopped.out) == (130, "")
    assert "extracting: 8 of 8" in stopped.err
    again = reproduce()
    assert again.code == 0
    assert "extracting: " not in again.err
