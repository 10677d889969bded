"""Every curl line and the Python of docs/http.md, run against a service."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from opendelg.client import Client
from opendelg.collection import Collection
from opendelg.indexing import index_photos, plan_indexing
from opendelg.recipes import make_extractor, recipe_of
from opendelg.weights import Weights
from tests.conftest import draw_image
from tests.service_samples import serving

TEXT = (Path(__file__).parents[1] / "docs" / "http.md").read_text()
ADDRESS = "http://127.0.0.1:8000"
TOKEN = "a-token-of-at-least-16-letters"
LINES = re.findall(r"^curl .*$", TEXT, re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Weights) -> Path:
    """Photos with the ids and of the sizes that the document speaks of."""
    made = tmp_path_factory.mktemp("documented")
    (made / "photos").mkdir()
    for number in range(18):
        photo = Image.fromarray(draw_image((160, 120), number).pixels)
        photo.save(made / "photos" / f"{number:02d}.jpg")
    for number, name in enumerate(["query.jpg", "new.jpg"], start=50):
        Image.fromarray(draw_image((480, 360), number).pixels).save(made / name)
    extractor = make_extractor(str(tiny_weights.path), device="cpu", threads=1)
    with Collection.create(made / "photos.delg", recipe_of(extractor)) as collection:
        index_photos(collection, extractor, plan_indexing(collection, [made / "photos"]))
    return made


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    with serving(folder / "photos.delg", is_writable=True) as url:
        yield url


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("line", LINES)
def test_every_curl_line_of_the_document_works(folder: Path, url: str, line: str) -> None:
    command = line.replace(ADDRESS, url).replace("curl ", "curl --fail --silent --show-error ", 1)
    environment = {**os.environ, "TOKEN": TOKEN, "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(
        ["sh", "-c", command], cwd=folder, env=environment, capture_output=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_python_of_the_document_runs(
    folder: Path, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    monkeypatch.chdir(folder)
    exec(code.replace(ADDRESS, url), {})
    assert capsys.readouterr().out.startswith("1 ")


def test_the_document_names_every_route(served: Path) -> None:
    with serving(served / "c") as url, Client(url) as client:
        paths = client._json("GET", "/openapi.json")["paths"]
    shown = {
        re.sub(r"/images/17", "/images/{id}", re.sub(r"id17", "{query}", line)) for line in LINES
    }
    missing = [
        path
        for path in paths
        if not any(path.replace("{query}/{id}", "{query}/5") in line for line in shown)
    ]
    assert missing == []
