"""The commands give the same for a folder and for a cluster."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from opendelg.collection import Collection
from opendelg.errors import OpenDelgError
from opendelg.weights import Weights
from tests.cluster_services import Services, needs_cluster
from tests.collection_samples import RECIPE
from tests.conftest import draw_image

pytestmark = [needs_cluster, pytest.mark.cluster]

Run = Callable[..., SimpleNamespace]
PAIRS = Path(os.environ.get("OPENDELG_DATA", "nowhere")) / "eval" / "smvs_landmarks"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Eight photos in two folders, and one that cannot be read."""
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    for number in range(8):
        path = folder / ("below" if number % 2 else "") / f"photo {number}.png"
        Image.fromarray(draw_image((192, 128), number // 2).pixels).save(path)
    (folder / "bad.jpg").write_bytes(b"no photo")
    return folder


def found(answer: SimpleNamespace) -> str:
    """What a search says, the time apart."""
    assert answer.code == 0, answer.err
    return json.dumps({key: value for key, value in answer.json.items() if key != "seconds"})


def pages(folder: Path) -> dict[str, bytes]:
    """The pictures of evidence."""
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


@pytest.mark.parametrize(
    "options",
    [
        pytest.param([], id="plain"),
        pytest.param(["--rerank", 0], id="global"),
        pytest.param(["--top", 3, "--rerank", 5, "--expand", 2], id="expanded"),
        pytest.param(["--box", "10,10,150,110"], id="box"),
    ],
)
def test_searches_agree(
    delg: Run,
    photos: Path,
    tmp_path: Path,
    address: str,
    file_address: str,
    tiny_weights: Weights,
    options: list[str],
) -> None:
    answers = []
    for name, location in (("a", str(tmp_path / "c")), ("b", address), ("c", file_address)):
        made = delg("index", photos, "-c", location, "--model", tiny_weights.path, "--json")
        assert (made.code, made.json["added"], len(made.json["failures"])) == (3, 8, 1)
        page = tmp_path / name
        for query in (photos / "photo 4.png", "id:3"):
            answer = delg("search", location, query, *options, "--html", page, "--json")
            answers.append((found(answer), pages(page)))
    assert answers[:2] == answers[2:4] == answers[4:]
    assert len(answers[0][1]) > 0


def test_indexing_again_updates_and_removes(
    delg: Run, photos: Path, address: str, tiny_weights: Weights
) -> None:
    index = ["index", photos, "-c", address, "--model", tiny_weights.path, "--json"]
    assert delg(*index).json["added"] == 8
    again = delg(*index).json
    assert (again["added"], again["unchanged"], len(again["failures"])) == (0, 8, 1)
    Image.fromarray(draw_image((192, 128), 30).pixels).save(photos / "photo 0.png")
    os.utime(photos / "photo 2.png", ns=(1, 1))
    (photos / "photo 4.png").unlink()
    updated = delg(*index, "--update").json
    assert [updated[name] for name in ("added", "updated", "removed", "unchanged")] == [0, 1, 1, 6]
    assert delg("remove", address, photos / "photo 6.png", "--json").json["images"] == 6
    checked = delg("verify", address, "--json")
    assert (checked.code, checked.json) == (
        0,
        {"ok": True, "images": 6, "problems": []},
    )
    info = delg("info", address, "--json").json
    assert (info["num_images"], info["num_failures"], info["location"]) == (6, 1, address)


def test_evaluations_agree(
    delg: Run, photos: Path, tmp_path: Path, address: str, tiny_weights: Weights
) -> None:
    table = tmp_path / "table.csv"
    lines = [
        f"{'below/' if number % 2 else ''}photo {number}.png,{number // 2},both"
        for number in range(8)
    ]
    table.write_text("\n".join(["image,group,role", *lines]))
    evaluate = ["evaluate", "groups", "--csv", table, "--images", photos, "--json"]
    first, second = (
        delg(*evaluate, "--collection", location, "--model", tiny_weights.path)
        for location in (tmp_path / "c", address)
    )
    assert first.json == second.json


def test_other_weights_are_refused(
    delg: Run, photos: Path, address: str, tiny_weights: Weights
) -> None:
    delg("index", photos, "-c", address, "--model", tiny_weights.path)
    refused = delg("index", photos, "-c", address, "--profile", "fast")
    assert refused.code == 1
    assert "recipe must be the one that made the collection" in refused.err


def test_photos_of_clients_need_a_folder(
    delg: Run, photos: Path, address: str, tiny_weights: Weights
) -> None:
    delg("index", photos, "-c", address, "--model", tiny_weights.path)
    refused = delg("serve", address, "--writable")
    assert (refused.code, "collection must be in a folder for this" in refused.err) == (1, True)


def test_a_file_that_another_process_has_open_is_named(
    delg: Run, photos: Path, file_address: str, tiny_weights: Weights
) -> None:
    index = ["index", photos, "-c", file_address, "--model", tiny_weights.path]
    assert delg(*index).code == 3
    other = subprocess.run(
        [sys.executable, "-m", "opendelg", "info", file_address], capture_output=True, text=True
    )
    assert other.returncode == 1
    assert other.stderr.startswith(
        "delg: error: file must be one of Milvus Lite that no other process"
    )
    assert other.stderr.count("\n") == 1


def test_what_is_not_there_is_not_made(delg: Run, tmp_path: Path, file_address: str) -> None:
    asked = delg("info", file_address)
    assert (asked.code, "must be one made by" in asked.err) == (1, True)
    assert list(tmp_path.iterdir()) == []


def test_tasks_cannot_write_to_a_file(photos: Path, file_address: str) -> None:
    with (
        Collection.create(file_address, RECIPE) as collection,
        pytest.raises(OpenDelgError, match=r"on a Milvus server .* without --ray"),
    ):
        collection.reserve([(photos / "a.png", photos)], (16, 8))


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.skipif(not PAIRS.is_dir(), reason="needs eval/smvs_landmarks in $OPENDELG_DATA")
def test_searches_of_real_photos_agree(
    delg: Run, services: Services, address: str, tmp_path: Path
) -> None:
    photos = [PAIRS / part / f"{n:03}.jpg" for n in range(1, 25) for part in ("Query", "Reference")]
    locations = str(tmp_path / "c"), address
    for location in locations:
        assert delg("index", *photos, "-c", location).code == 0
    for photo in photos[:16:2]:
        first, second = (delg("search", place, photo, "--json") for place in locations)
        assert found(first) == found(second)
    stored = [delg("search", place, "id:7", "--json") for place in locations]
    assert found(stored[0]) == found(stored[1])
