from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from opendelg.collection import Collection
from opendelg.image import read_image
from opendelg.recipes import extractor_for
from opendelg.search import Searcher
from opendelg.weights import Weights
from tests.conftest import draw_image

Run = Callable[..., SimpleNamespace]
RESULT_KEYS = {
    *("rank", "id", "path", "similarity", "num_matches", "num_inliers", "same"),
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


@pytest.mark.parametrize("box", ["1,2,3", "a,b,c,d"])
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
