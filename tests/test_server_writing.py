"""Photos that clients add: on the disk when they are acknowledged, whatever happens afterwards."""

import hashlib
import http.client
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from opendelg.client import Client, ServiceError
from opendelg.client import Image as ImageRecord
from opendelg.collection import Collection
from opendelg.features import LocalFeatures
from opendelg.indexing import plan_indexing
from opendelg.server.uploads import Uploads
from tests.conftest import draw_image
from tests.service_samples import serving


@pytest.fixture
def folder(served: Path, tmp_path: Path) -> Path:
    """Photos and a collection `c` of their own."""
    shutil.copytree(served, tmp_path / "own")
    return tmp_path / "own"


def photo(path: Path, seed: int) -> Path:
    Image.fromarray(draw_image((160, 120), seed).pixels).save(path)
    return path


def test_a_photo_that_was_added_is_found(folder: Path, tmp_path: Path) -> None:
    new = photo(tmp_path / "new one.png", 77)
    with serving(folder / "c", is_writable=True) as url, Client(url) as client:
        added = client.add(new)
        assert Path(added.path).parent.parent == folder / "c" / "photos"
        assert Path(added.path).name == "new_one.png"
        assert client.photo(added.id) == new.read_bytes()
        best = client.search(new).results[0]
        assert (best.id, best.path) == (added.id, added.path)
        assert best.similarity == pytest.approx(1, abs=1e-5)
        assert client.collection()["num_images"] == 11


def test_adding_a_photo_again_finds_it(folder: Path, tmp_path: Path) -> None:
    new = photo(tmp_path / "new.png", 77)
    with serving(folder / "c", is_writable=True) as url, Client(url) as client:
        first = client.add(new)
        assert client.add(new.read_bytes(), name="other.jpg") == first
        assert client.collection()["num_images"] == 11


def test_photos_of_one_name_are_kept_apart(folder: Path, tmp_path: Path) -> None:
    with serving(folder / "c", is_writable=True) as url, Client(url) as client:
        added = [client.add(photo(tmp_path / "same.png", seed)) for seed in (70, 71)]
        assert added[0].id != added[1].id
        assert [Path(image.path).name for image in added] == ["same.png"] * 2


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("../../../etc/cron.d/x.png", "x.png"),
        ("..\\..\\x.exe", "x.png"),
        (".hidden", "hidden.png"),
        ("", "photo.png"),
        ("///", "photo.png"),
        ("a" * 500 + ".png", "a" * 80 + ".png"),
        ("橋" * 100, "橋" * 66 + ".png"),
        ("nul\0l\n.png", "nul_l.png"),
    ],
)
def test_a_name_never_leads_elsewhere(folder: Path, tmp_path: Path, name: str, kept: str) -> None:
    content = photo(tmp_path / "x.png", 5).read_bytes()
    with Collection.open(folder / "c", read_only=True) as opened:
        image = opened.image(1)
        (local,) = opened.local_features([1])
        descriptor = opened.global_descriptor(1)
    from opendelg.features import ImageFeatures

    added = Uploads(folder / "c").add(content, name, ImageFeatures(image.size, descriptor, local))
    assert added.image.path.name == kept
    assert added.image.path.parent.parent == folder / "c" / "photos"


def test_removing_deletes_what_was_sent_and_leaves_what_was_indexed(
    folder: Path, tmp_path: Path
) -> None:
    with serving(folder / "c", is_writable=True) as url, Client(url) as client:
        added = client.add(photo(tmp_path / "new.png", 77))
        client.remove(added.id)
        client.remove(1)
        with pytest.raises(ServiceError, match="got id 1"):
            client.remove(1)
        assert {image.id for image in client.images()} == set(range(2, 11))
    assert not Path(added.path).parent.exists()
    assert (folder / "0.png").is_file()


def test_photos_that_were_sent_are_unchanged_for_delg_index(folder: Path, tmp_path: Path) -> None:
    with serving(folder / "c", is_writable=True) as url, Client(url) as client:
        client.add(photo(tmp_path / "new.png", 77))
    with Collection.open(folder / "c") as opened:
        plan = plan_indexing(opened, [folder / "c" / "photos"])
    assert (len(plan.unchanged), plan.work(update=True)) == (1, [])


def test_without_writable_nothing_changes(served: Path, tmp_path: Path) -> None:
    with serving(served / "c") as url, Client(url) as client:
        for change in (lambda: client.add(photo(tmp_path / "x.png", 1)), lambda: client.remove(1)):
            with pytest.raises(ServiceError, match="--writable") as refused:
                change()
            assert refused.value.status == 403
    assert not (served / "c" / "photos").exists()


def test_while_another_process_writes_adding_is_503(folder: Path, tmp_path: Path) -> None:
    with serving(folder / "c", is_writable=True) as url, Client(url) as client:
        with Collection.open(folder / "c"), pytest.raises(ServiceError, match="one writer") as busy:
            client.add(photo(tmp_path / "x.png", 1))
        assert (busy.value.status, busy.value.retry_after) == (503, 2.0)
        assert client.add(photo(tmp_path / "x.png", 1)).id == 11


def test_a_photo_whose_features_cannot_be_kept_is_not_kept(folder: Path, tmp_path: Path) -> None:
    from opendelg.features import ImageFeatures

    content = photo(tmp_path / "x.png", 5).read_bytes()
    wrong = ImageFeatures((1, 1), np.zeros(3, np.float32), LocalFeatures.empty(8))
    with pytest.raises(Exception, match="must have 16"):
        Uploads(folder / "c").add(content, "x.png", wrong)
    assert list((folder / "c" / "photos").iterdir()) == []


@contextmanager
def served_by_a_process(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-m", "opendelg", "serve", str(folder / "c")]
    options = ["--port", "0", "--writable", "--device", "cpu", "--threads", "1"]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"on (http://\S+)/", process.stdout.readline())
            assert found is not None
            yield process, found[1]
        finally:
            process.kill()


def add_until_the_end(
    url: str, contents: list[bytes], done: list[tuple[ImageRecord, bytes]]
) -> None:
    with Client(url) as client:
        for content in contents:
            try:
                done.append((client.add(content), content))
            except (OSError, http.client.HTTPException):
                return


@pytest.mark.parametrize("num_acknowledged", [1, 5, 12])
def test_kill_9_loses_nothing_that_was_acknowledged(
    folder: Path, tmp_path: Path, num_acknowledged: int
) -> None:
    contents = [photo(tmp_path / f"{seed}.png", seed).read_bytes() for seed in range(100, 160)]
    acknowledged: list[tuple[ImageRecord, bytes]] = []
    with served_by_a_process(folder) as (process, url), ThreadPoolExecutor(3) as clients:
        for start in range(3):
            clients.submit(add_until_the_end, url, contents[start::3], acknowledged)
        enough = threading.Event()
        while len(acknowledged) < num_acknowledged:
            enough.wait(0.001)
        os.kill(process.pid, signal.SIGKILL)
    assert num_acknowledged <= len(acknowledged) < len(contents)
    with Collection.open(folder / "c") as opened:
        assert opened.verify() == []
        for record, content in acknowledged:
            image = opened.image(record.id)
            assert str(image.path) == record.path
            assert image.path.read_bytes() == content
            stored = opened.known(folder / "c" / "photos")[image.relative]
            assert stored.sha256 == hashlib.sha256(content).hexdigest()
            assert len(opened.local_features([record.id])[0]) == record.num_local


def test_a_service_starts_again_after_kill_9_and_goes_on(folder: Path, tmp_path: Path) -> None:
    contents = [photo(tmp_path / f"{seed}.png", seed).read_bytes() for seed in range(100, 103)]
    with served_by_a_process(folder) as (process, url), Client(url) as client:
        first = client.add(contents[0])
        os.kill(process.pid, signal.SIGKILL)
    with served_by_a_process(folder) as (process, url), Client(url) as client:
        assert client.add(contents[0]) == first
        assert client.add(contents[1]).id == first.id + 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_service_that_is_stopped_has_not_failed(folder: Path, number: int) -> None:
    with served_by_a_process(folder) as (process, url):
        with Client(url) as client:
            assert client.collection()["is_writable"]
        process.send_signal(number)
        assert process.wait(20) == 0
