import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from opendelg.answers import result_as_dict
from opendelg.client import Client, ServiceError
from opendelg.collection import Collection
from opendelg.image import read_image
from opendelg.recipes import extractor_for
from opendelg.search import Searcher
from opendelg.server import models
from opendelg.weights import Weights
from tests.conftest import draw_image
from tests.service_samples import serving

Run = Callable[..., SimpleNamespace]


@pytest.fixture(scope="module")
def url(served: Path) -> Iterator[str]:
    with serving(served / "c") as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url) as client:
        yield client


def searched(client: Client, photo: Path | None = None, **values: Any) -> dict[str, Any]:
    """The answer as it was sent, checked against the document."""
    from opendelg.client import _form

    box = values.pop("box", None)
    values["box"] = None if box is None else ",".join(map(str, box))
    answer = client._json("POST", "/v1/search", *_form(photo, values))
    models.SearchAnswer.model_validate(answer)
    return dict(answer)


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        pytest.param([], {}, id="plain"),
        pytest.param(["--top", "3", "--rerank", "5"], {"top": 3, "rerank": 5}, id="numbers"),
        pytest.param(["--rerank", "0"], {"rerank": 0}, id="similarity"),
        pytest.param(["--box", "20,10,150,100"], {"box": (20, 10, 150, 100)}, id="box"),
    ],
)
def test_service_command_and_python_agree_bit_for_bit(
    delg: Run, served: Path, client: Client, arguments: list[str], values: dict[str, Any]
) -> None:
    photo = served / "3.png"
    command = delg("search", served / "c", photo, "--json", *arguments).json
    answer = searched(client, photo, **values)
    assert json.dumps(answer["results"]) == json.dumps(command["results"])
    assert answer["query"]["size"] == command["query"]["size"]
    assert answer["query"]["box"] == command["query"]["box"]


def test_python_finds_what_the_service_finds(served: Path, client: Client) -> None:
    with Collection.open(served / "c", read_only=True) as opened:
        searcher = Searcher(opened, extractor_for(opened, "cpu"))
        response = searcher.search(read_image(served / "5.png"))
    answer = searched(client, served / "5.png")
    assert answer["results"] == [result_as_dict(result) for result in response.results]


@pytest.mark.parametrize("box", [None, (20.0, 10.0, 150.5, 100.0)])
def test_an_image_by_id_is_searched_as_the_command_does(
    delg: Run, served: Path, client: Client, box: tuple[float, ...] | None
) -> None:
    options = [] if box is None else ["--box", ",".join(map(str, box))]
    command = delg("search", served / "c", "id:4", "--json", *options).json
    answer = searched(client, id=4, box=box)
    assert answer["results"] == command["results"]
    assert answer["query"].pop("token") == ("id4" if box is None else "id4-20,10,150.5,100")
    assert answer["query"] == command["query"]


def test_an_answer_is_asked_for_again_without_the_photo(served: Path, client: Client) -> None:
    quick = client.search(served / "2.png", rerank=0)
    assert {result.same for result in quick.results} == {None}
    assert client.search(query=quick.query.token).results == client.search(served / "2.png").results


def test_another_part_of_an_earlier_photo_is_searched(served: Path, client: Client) -> None:
    token = client.search(served / "2.png").query.token
    box = (10.0, 20.0, 150.0, 120.0)
    part = client.search(query=token, box=box)
    assert part.results == client.search(served / "2.png", box=box).results
    assert client.search(query=part.query.token).query.box == list(box)


def test_tokens_of_stored_images_need_no_earlier_answer(served: Path, client: Client) -> None:
    box = (20.0, 10.0, 150.0, 100.0)
    assert client.search(query="id7").results == client.search(id=7).results
    boxed = client.search(query="id7-20,10,150,100")
    assert boxed.results == client.search(id=7, box=box).results


def test_without_time_results_come_by_similarity(client: Client) -> None:
    answer = client.search(id=3, seconds=0.05, rerank=1000)
    hurried = answer if not answer.complete else client.search(id=3, rerank=0)
    similarities = [result.similarity for result in hurried.results]
    assert similarities == sorted(similarities, reverse=True)


def test_with_enough_time_the_answer_is_complete_and_the_same(served: Path, client: Client) -> None:
    answer = client.search(served / "8.png", seconds=60)
    assert answer.complete
    assert answer.results == client.search(served / "8.png").results


@pytest.mark.parametrize(
    ("values", "status", "words"),
    [
        ({}, 400, "one of file, id and query, got none"),
        ({"id": 1, "query": "id2"}, 400, "got id and query"),
        ({"id": 99}, 404, "got id 99"),
        ({"id": 0}, 400, "id:"),
        ({"id": 1, "top": 0}, 400, "top:"),
        ({"id": 1, "top": 1001}, 400, "top:"),
        ({"id": 1, "rerank": -1}, 400, "rerank:"),
        ({"id": 1, "seconds": "nan"}, 400, "seconds:"),
        ({"id": 1, "seconds": 0}, 400, "seconds:"),
        ({"id": 1, "box": (1, 2, 3)}, 400, "four numbers"),
        ({"id": 1, "box": (1, 2, 3, float("inf"))}, 400, "four numbers"),
        ({"id": 1, "box": (5, 5, 5, 5)}, 400, "x1 < x2"),
        ({"id": 1, "box": (900, 900, 950, 950)}, 400, "overlap"),
        ({"query": "0" * 32}, 404, "search again"),
        ({"query": "../../etc/passwd"}, 404, "search again"),
        ({"query": "id1-a,b,c,d"}, 404, "token of an answer"),
    ],
)
def test_what_cannot_be_searched_is_explained(
    client: Client, values: dict[str, Any], status: int, words: str
) -> None:
    with pytest.raises(ServiceError, match=words) as refused:
        searched(client, **values)
    assert refused.value.status == status


def test_evidence_says_of_a_pair_what_the_search_said(served: Path, client: Client) -> None:
    answer = searched(client, served / "6.png")
    for result in answer["results"]:
        pair = client.evidence(answer["query"]["token"], result["id"])
        models.EvidenceAnswer.model_validate(pair)
        for name in ("similarity", "num_inliers", "same", "database_from_query", "region"):
            assert pair[name] == result[name]
        assert len(pair["matches"]) == result["num_matches"]
        assert sum(match["inlier"] for match in pair["matches"]) == result["num_inliers"]


def test_evidence_names_both_photos(served: Path, client: Client) -> None:
    token = client.search(served / "6.png").query.token
    page = client.evidence_page(token, 4).decode()
    assert "6.png" in page
    assert client.search(id=4).query.path.rsplit("/", 1)[-1] in page
    assert page.count("data:image/jpeg") >= 2


def test_the_page_of_a_search_shows_all_results(served: Path, client: Client) -> None:
    token = client.search(served / "6.png").query.token
    page = client.evidence_page(token).decode()
    assert all(f"{number}.png" in page for number in range(10))


def test_the_photo_of_a_query_is_there_upright(served: Path, client: Client) -> None:
    token = client.search(served / "6.png", box=(10, 10, 90, 90)).query.token
    photo = read_image(client._request("GET", f"/v1/queries/{token}/photo?size=96"))
    assert photo.size == (96, 64)


def test_the_name_of_a_photo_is_only_a_name(served: Path, client: Client) -> None:
    from opendelg.client import _form

    body = _form((served / "1.png").read_bytes(), {}, 'C:\\a\\../../etc/x\r\n"y.png')
    assert client._json("POST", "/v1/search", *body)["query"]["path"] == "x%0D%0A%22y.png"


def test_forgotten_queries_are_404_and_stored_ones_are_not(served: Path) -> None:
    with serving(served / "c", query_cache_bytes=1) as url, Client(url) as client:
        first = client.search(served / "1.png").query.token
        client.search(served / "2.png")
        with pytest.raises(ServiceError, match="search again"):
            client.evidence(first, 1)
        assert client.evidence("id1", 2)["num_matches"] >= 0


def test_a_collection_that_grows_is_picked_up(
    delg: Run, tmp_path: Path, tiny_weights: Weights
) -> None:
    (tmp_path / "p").mkdir()
    Image.fromarray(draw_image((192, 128), 1).pixels).save(tmp_path / "p" / "1.png")
    make = ["index", tmp_path / "p", "--collection", tmp_path / "c", "--model", tiny_weights.path]
    delg(*make)
    with serving(tmp_path / "c") as url, Client(url) as client:
        assert len(client.search(tmp_path / "p" / "1.png").results) == 1
        Image.fromarray(draw_image((192, 128), 2).pixels).save(tmp_path / "p" / "2.png")
        delg(*make)
        assert len(client.search(tmp_path / "p" / "1.png").results) == 2
        assert client.collection()["num_images"] == 2
