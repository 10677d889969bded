import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from opendelg.cli.opening import print_json, shown
from opendelg.collection import Collection
from opendelg.image import read_image
from opendelg.recipes import extractor_for
from opendelg.search import Searcher
from opendelg.weights import Weights
from tests.conftest import draw_image

Run = Callable[..., SimpleNamespace]
RESULT_KEYS = {
    *("rank", "id", "path", "size", "similarity", "expanded_similarity"),
    *("num_matches", "num_inliers", "same"),
    *("database_from_query", "region"),
}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for number in range(4):
        pixels = draw_image((192, 128), number).pixels
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    return tmp_path / "photos"


@pytest.fixture
def collection(delg: Run, tiny_weights: Weights, photos: Path, tmp_path: Path) -> Path:
    delg("index", photos, "--collection", tmp_path / "c", "--model", tiny_weights.path)
    return tmp_path / "c"


def test_search_prints_the_documented_object(delg: Run, collection: Path, photos: Path) -> None:
    answer = delg("search", collection, photos / "2.png", "--json").json
    assert answer.keys() == {"query", "results", "seconds"}
    assert all(result.keys() == RESULT_KEYS for result in answer["results"])
    assert [result["rank"] for result in answer["results"]] == [1, 2, 3, 4]
    assert answer["results"][0]["path"] == str(photos / "2.png")


def test_the_command_finds_what_python_finds(delg: Run, collection: Path, photos: Path) -> None:
    answer = delg("search", collection, photos / "1.png", "--json").json
    with Collection.open(collection, read_only=True) as opened:
        response = Searcher(opened, extractor_for(opened)).search(read_image(photos / "1.png"))
    found = [(r.image.id, r.candidate.num_inliers) for r in response.results]
    assert [(r["id"], r["num_inliers"]) for r in answer["results"]] == found


def test_an_image_of_the_collection_is_searched_by_id(delg: Run, collection: Path) -> None:
    answer = delg("search", collection, "id:3", "--json").json
    assert answer["query"]["id"] == 3
    assert 3 not in [result["id"] for result in answer["results"]]


def test_evidence_is_a_page_and_a_picture_per_pair(
    delg: Run, collection: Path, photos: Path, tmp_path: Path
) -> None:
    delg("search", collection, photos / "1.png", "--top", "2", "--html", tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert [name[:4] for name in names] == ["001_", "002_", "inde"]
    assert "1.png" in (tmp_path / "out" / "index.html").read_text()


def test_text_output_names_every_result(delg: Run, collection: Path, photos: Path) -> None:
    out = delg("search", collection, photos / "1.png").out
    assert all(f"{number}.png" in out for number in range(4))


@pytest.mark.parametrize("box", ["1,2,3", "a,b,c,d", "1,2,3,inf", "nan,0,9,9"])
def test_a_malformed_box_is_a_usage_error(
    delg: Run, collection: Path, photos: Path, box: str
) -> None:
    assert delg("search", collection, photos / "1.png", "--box", box).code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["search", "nowhere.delg", "x.jpg"], id="no collection"),
        pytest.param(["info", "nowhere.delg"], id="info"),
        pytest.param(["match", "a.jpg", "b.jpg"], id="no photo"),
        pytest.param(["weights", "info", "startr"], id="no such weights"),
        pytest.param(["evaluate", "groups", "--csv", "a.csv", "--images", "b"], id="no table"),
    ],
)
def test_what_a_user_can_fix_is_one_line_and_status_1(delg: Run, arguments: list[str]) -> None:
    result = delg(*arguments)
    assert result.code == 1
    assert result.err.startswith("delg: error: ")
    assert result.err.count("\n") == 1


def test_an_expanded_search_says_what_the_query_was_expanded_with(
    delg: Run, collection: Path, photos: Path
) -> None:
    plain = delg("search", collection, "id:3", "--json").json
    assert plain["query"]["expanded_with"] is None
    assert [result["expanded_similarity"] for result in plain["results"]] == [None] * 3
    answer = delg("search", collection, "id:3", "--expand", "2", "--alpha", "0", "--json").json
    nearest = sorted(plain["results"], key=lambda result: -result["similarity"])
    assert answer["query"]["expanded_with"] == [result["id"] for result in nearest[:2]]
    assert all(result["expanded_similarity"] <= 1 for result in answer["results"])
    out = delg("search", collection, "id:3", "--expand", "2").out
    assert "The query was expanded with 2 photos\n" in out
    assert "expanded with 0 photos" in delg("search", collection, "id:3", "--expand-verified").out


def test_the_page_of_an_expanded_search_says_so(
    delg: Run, collection: Path, tmp_path: Path
) -> None:
    delg("search", collection, "id:3", "--expand", "1", "--html", tmp_path / "out")
    assert "expanded with 1 photo" in (tmp_path / "out" / "index.html").read_text()


@pytest.mark.parametrize("alpha", ["-1", "nan", "inf"])
def test_a_malformed_alpha_is_a_usage_error(
    delg: Run, collection: Path, photos: Path, alpha: str
) -> None:
    assert delg("search", collection, photos / "1.png", "--alpha", alpha).code == 2


def test_match_tells_where(delg: Run, tiny_weights: Weights, photos: Path, tmp_path: Path) -> None:
    picture = tmp_path / "pair.png"
    options = ["--model", tiny_weights.path, "--draw", picture, "--json"]
    answer = delg("match", photos / "1.png", photos / "1.png", *options).json
    np.testing.assert_allclose(answer["database_from_query"], [[1, 0, 0], [0, 1, 0]], atol=0.1)
    with Image.open(picture) as image:
        assert image.format == "PNG"


def test_extracted_files_hold_what_is_documented(
    delg: Run, tiny_weights: Weights, photos: Path, tmp_path: Path
) -> None:
    options = ["--out", tmp_path / "f", "--model", tiny_weights.path, "--json"]
    assert delg("extract", photos, *options).json["written"] == 4
    assert delg("extract", photos, *options).json["kept"] == 4
    with np.load(tmp_path / "f" / "2.png.npz") as file:
        assert file["keypoints"].shape[1] == 2
        assert file["descriptors"].shape == (len(file["keypoints"]), 8)
        assert file["size"].tolist() == [192, 128]
        assert file["global_descriptor"].shape == (16,)


def test_removed_images_are_found_no_more(delg: Run, collection: Path, photos: Path) -> None:
    assert delg("remove", collection, photos / "1.png", "--json").json["images"] == 3
    answer = delg("search", collection, photos / "1.png", "--json").json
    assert str(photos / "1.png") not in [result["path"] for result in answer["results"]]


def test_verify_and_info_describe_a_sound_collection(delg: Run, collection: Path) -> None:
    assert delg("verify", collection, "--json").json == {"ok": True, "images": 4, "problems": []}
    assert delg("info", collection, "--json").json["num_images"] == 4


def test_evaluate_groups_reports_both_stages(
    delg: Run, tiny_weights: Weights, photos: Path, tmp_path: Path
) -> None:
    rows = ["image,group,role", "0.png,a,query", "1.png,a,database", "2.png,b,database"]
    (tmp_path / "t.csv").write_text("\n".join([*rows, "3.png,b,both"]))
    options = ["--csv", tmp_path / "t.csv", "--images", photos, "--model", tiny_weights.path]
    answer = delg("evaluate", "groups", *options, "--json").json
    assert (answer["protocol"], answer["queries"]) == ("groups", 2)
    for stage in ("global", "verified"):
        assert 0 <= answer[stage]["mAP"] <= 1
        assert answer[stage]["recall_at"].keys() == {"1", "5", "10"}
    assert answer["global"]["recall_at"]["5"] == 1


def test_evaluate_groups_prepares_and_expands(
    delg: Run, tiny_weights: Weights, photos: Path, tmp_path: Path
) -> None:
    rows = ["image,group,role", "0.png,a,both", "1.png,a,both", "2.png,b,both", "3.png,b,both"]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    options = ["--csv", tmp_path / "t.csv", "--images", photos, "--model", tiny_weights.path]
    changes = ["--whiten", "2", "--shrinkage", "0.5", "--augment", "1", "--alpha", "2"]
    changes += ["--expand", "1", "--expand-verified"]
    answer = delg("evaluate", "groups", *options, *changes, "--json").json
    assert [note.split()[:2] for note in answer["notes"]] == [
        ["database", "whitened"],
        ["database", "images"],
        ["queries", "expanded"],
        ["queries", "expanded"],
    ]
    assert answer["global"]["recall_at"]["5"] == answer["verified"]["recall_at"]["5"] == 1


def test_a_malformed_shrinkage_is_a_usage_error(delg: Run, tmp_path: Path) -> None:
    options = ["--csv", tmp_path / "t.csv", "--images", tmp_path, "--shrinkage", "nan"]
    assert delg("evaluate", "groups", *options).code == 2


def test_a_saved_run_gives_the_same_figures_without_images(
    delg: Run, tiny_weights: Weights, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_text("image,group,role\n0.png,a,both\n1.png,a,both\n2.png,b,both")
    options = ["--csv", tmp_path / "t.csv", "--images", photos, "--model", tiny_weights.path]
    run = tmp_path / "run.zip"
    answer = delg("evaluate", "groups", *options, "--save-run", run, "--json")
    assert delg("evaluate", "rescore", run, "--json").out == answer.out
    assert delg("evaluate", "rescore", run).out.startswith("3 queries, 3 database images\nstage")


def test_a_query_by_id_with_a_box_leaves_its_image_out(delg: Run, collection: Path) -> None:
    answer = delg("search", collection, "id:3", "--box", "0,0,150,100", "--json").json
    assert sorted(result["id"] for result in answer["results"]) == [1, 2, 4]


@pytest.mark.parametrize("command", ["search", "remove"])
@pytest.mark.parametrize("number", ["9", "9" * 20])
def test_an_id_that_is_not_there_is_one_line(
    delg: Run, collection: Path, command: str, number: str
) -> None:
    result = delg(command, collection, f"id:{number}")
    assert result.code == 1
    assert result.err.startswith("delg: error: ")
    assert f"id {number}" in result.err


def test_the_answer_comes_before_evidence_that_cannot_be_written(
    delg: Run, collection: Path, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").write_text("a file")
    result = delg("search", collection, photos / "1.png", "--html", tmp_path / "out", "--json")
    assert (result.code, len(result.json["results"])) == (1, 4)
    assert "free some space" not in result.err


def test_pictures_of_an_earlier_search_go_and_other_files_stay(
    delg: Run, collection: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    delg("search", collection, photos / "1.png", "--html", out)
    (out / "001 mine.png").write_text("mine")
    delg("search", collection, photos / "1.png", "--top", "1", "--html", out)
    assert sorted(path.name for path in out.iterdir()) == [
        "001 mine.png",
        "001_1.png",
        "index.html",
    ]


def test_pictures_in_a_folder_without_our_page_stay(
    delg: Run, collection: Path, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "007_mine.png").write_text("mine")
    delg("search", collection, photos / "1.png", "--top", "1", "--html", tmp_path / "out")
    assert (tmp_path / "out" / "007_mine.png").is_file()


def test_a_search_without_verification_does_not_judge(
    delg: Run, collection: Path, photos: Path
) -> None:
    assert delg("search", collection, photos / "1.png", "--rerank", "0").out.startswith(
        "Not verified"
    )
    assert delg("search", collection, photos / "1.png").out.startswith("Not rated")


def test_an_empty_collection_is_told(delg: Run, collection: Path, photos: Path) -> None:
    delg("remove", collection, *(f"id:{number}" for number in range(1, 4)))
    assert delg("search", collection, "id:4").out == "No other photo is in it\n"
    delg("remove", collection, "id:4")
    assert delg("search", collection, photos / "1.png").out == "The collection is empty\n"


def test_json_has_null_for_numbers_that_are_none(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": float("nan"), "b": [1.5, {"c": (float("inf"), "x")}]})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [1.5, {"c": [None, "x"]}]}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Brücke 橋.jpg", "Brücke 橋.jpg"),
        ("a\u202fb", "a\u202fb"),
        ("a\nb\t", "a\\nb\\t"),
        ("\x1b[2Jx", "\\x1b[2Jx"),
        ("a\u202eb\u2028", "a\\u202eb\\u2028"),
        ("\udce9", "\\udce9"),
    ],
)
def test_names_are_shown_on_one_line_without_control_characters(name: str, expected: str) -> None:
    assert shown(name) == expected


def test_an_evaluation_where_nothing_can_be_found_is_an_error(
    delg: Run, tiny_weights: Weights, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_text("image,group,role\n0.png,a,query\n1.png,b,database\n")
    options = ["--csv", tmp_path / "t.csv", "--images", photos, "--model", tiny_weights.path]
    result = delg("evaluate", "groups", *options)
    assert (result.code, result.out) == (1, "")
    assert "positives" in result.err or "database images of its group" in result.err


def test_an_evaluation_takes_the_profile_of_the_collection(
    delg: Run, tiny_weights: Weights, photos: Path, tmp_path: Path
) -> None:
    make = ["--collection", tmp_path / "fast", "--model", tiny_weights.path, "--profile", "fast"]
    delg("index", photos, *make)
    (tmp_path / "t.csv").write_text("image,group,role\n0.png,a,query\n1.png,a,database\n")
    options = ["--csv", tmp_path / "t.csv", "--images", photos, "--collection", tmp_path / "fast"]
    result = delg("evaluate", "groups", *options, "--json")
    assert (result.code, result.json["queries"]) == (0, 1)
    assert "extracting" not in result.err


def fail_with(error: BaseException) -> Callable[[object], None]:
    def fail(_: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (PermissionError(13, "Permission denied", "/x/y"), "Permission denied: /x/y"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (FileNotFoundError("config must be a file"), "config must be a file"),
    ],
    ids=["file", "disk", "own words"],
)
def test_errors_of_the_system_are_one_line(
    delg: Run, monkeypatch: pytest.MonkeyPatch, error: OSError, line: str
) -> None:
    monkeypatch.setattr("opendelg.weights.load_weights", fail_with(error))
    result = delg("weights", "info", "starter")
    assert (result.code, result.err) == (1, f"delg: error: {line}\n")


def test_an_interruption_is_told(delg: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opendelg.weights.load_weights", fail_with(KeyboardInterrupt()))
    result = delg("weights", "info", "starter")
    assert (result.code, result.err) == (130, "delg: interrupted; what was committed is kept\n")


def test_an_interruption_while_the_command_loads_is_told(
    delg: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("opendelg.cli._run", interrupted)
    assert delg("--help").code == 130


def test_a_character_that_the_locale_lacks_is_escaped(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "opendelg", "info", "Brücke.delg"]
    environment = os.environ | {"PYTHONIOENCODING": "ascii:strict"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "Br\\xfccke.delg" in done.stderr


def test_without_verification_groups_have_one_stage(
    delg: Run, tiny_weights: Weights, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_text("image,group,role\n0.png,a,both\n1.png,a,both\n2.png,b,both")
    options = ["--csv", tmp_path / "t.csv", "--images", photos, "--model", tiny_weights.path]
    answer = delg("evaluate", "groups", *options, "--rerank", 0, "--json").json
    assert [*answer] == ["protocol", "queries", "database", "global"]


@pytest.mark.parametrize("command", [["search", "c", "q.jpg"], ["evaluate", "groups"]])
def test_nothing_is_confirmed_without_verification(delg: Run, command: list[str]) -> None:
    options = ["--csv", "t.csv", "--images", "."] if command[0] == "evaluate" else []
    found = delg(*command, *options, "--rerank", 0, "--expand-verified")
    assert found.code == 2
    assert "rerank must be at least 1 to expand with what it confirms, got 0" in found.err
