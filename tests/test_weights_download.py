"""`download`: fetched once, checked ever after, converted at once; by hand and offline too."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from types import SimpleNamespace

import numpy as np
import pytest

from opendelg.errors import FormatError, WeightsError
from opendelg.extraction import profile
from opendelg.recipes import recipe_of
from opendelg.weights import PUBLISHED, fetching, load_weights, write_weights
from opendelg.weights.download import download
from opendelg.weights.fetching import FetchSettings
from opendelg.weights.published import Published, cache_folder, published_name
from tests.conftest import TINY
from tests.file_server import Handler, Server, cut, running, serve, status

DATA = b"official" + np.random.default_rng(1).bytes(300_000)
NAME, ARCHIVE = "r50-gld", "r50delg_gld_20200814.tar.gz"
FAST = FetchSettings(timeout=0.3, attempts=3, first_wait=0.001, max_bytes=2_000_000)
NOWHERE = "http://127.0.0.1:9"  # nothing listens there


@pytest.fixture(autouse=True)
def imported(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str | None, float | None]]:
    """Converts archives that begin with "official"; lists the names and thresholds."""
    calls = []

    def import_weights(
        source: Path, target: Path, *, name: str | None, score_threshold: float | None
    ) -> Path:
        if not source.read_bytes().startswith(b"official"):
            raise FormatError("archive must be a gzip file")
        calls.append((name, score_threshold))
        state = {"conv.bias": np.frombuffer(source.read_bytes()[:8], np.uint8).astype(np.float32)}
        write_weights(target, name or "", state, TINY, score_threshold or 0.0)
        return target

    module = SimpleNamespace(import_weights=import_weights)
    monkeypatch.setitem(sys.modules, "opendelg.weights.tensorflow", module)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return calls


@pytest.fixture
def server() -> Iterator[Server]:
    with running(DATA) as server:
        yield server


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPENDELG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_model_is_fetched_converted_and_found_by_its_name(
    server: Server, cache: Path, imported: list[object]
) -> None:
    path = download(NAME, base_url=server.url + "/", settings=FAST)
    assert path == cache / "r50-gld.safetensors"
    assert imported == [(NAME, 175.0)]
    assert load_weights(NAME).path == path
    assert load_weights(NAME).score_threshold == 175.0


def test_size_and_sha256_of_the_first_use_are_recorded(server: Server, cache: Path) -> None:
    download(NAME, base_url=server.url, settings=FAST)
    assert json.loads((cache / "r50-gld.json").read_text()) == {
        "bytes": len(DATA),
        "sha256": hashlib.sha256(DATA).hexdigest(),
    }


def test_a_model_that_is_here_needs_no_network(server: Server, cache: Path) -> None:
    path = download(NAME, base_url=server.url, settings=FAST)
    assert download(NAME, base_url=NOWHERE) == path
    assert len(server.ranges) == 1


def test_converted_weights_alone_are_enough(server: Server, cache: Path, tmp_path: Path) -> None:
    path = download(NAME, base_url=server.url, settings=FAST)
    (tmp_path / "other").mkdir()
    path.rename(tmp_path / "other" / path.name)
    assert download(NAME, base_url=NOWHERE, cache=tmp_path / "other").is_file()


def test_an_archive_copied_by_hand_is_taken_offline(cache: Path) -> None:
    cache.mkdir()
    (cache / ARCHIVE).write_bytes(DATA)
    assert download(NAME, base_url=NOWHERE).is_file()
    assert json.loads((cache / "r50-gld.json").read_text())["bytes"] == len(DATA)


def test_the_starter_is_never_fetched(cache: Path) -> None:
    assert download("starter", base_url=NOWHERE) == PUBLISHED["starter"].file
    assert not cache.exists()


def test_without_network_the_file_and_its_place_are_told(cache: Path) -> None:
    with pytest.raises(WeightsError) as error:
        download(NAME, base_url=NOWHERE)
    assert "server must be reachable, got " in str(error.value)
    assert f"Connection refused' from '{NOWHERE}/{ARCHIVE}'" in str(error.value)
    assert f"you can copy '{ARCHIVE}' into '{cache}' yourself" in str(error.value)


def test_another_archive_than_the_first_is_refused_and_both_hashes_are_told(
    server: Server, cache: Path
) -> None:
    download(NAME, base_url=server.url, settings=FAST).unlink()
    (cache / ARCHIVE).unlink()
    server.data = DATA + b"more"
    with pytest.raises(WeightsError, match="archive must be the one of its first use") as error:
        download(NAME, base_url=server.url, settings=FAST)
    assert hashlib.sha256(DATA).hexdigest() in str(error.value)
    assert hashlib.sha256(DATA + b"more").hexdigest() in str(error.value)
    assert not (cache / "r50-gld.safetensors").exists()


def test_an_archive_that_was_changed_in_the_cache_is_told(server: Server, cache: Path) -> None:
    download(NAME, base_url=server.url, settings=FAST)
    (cache / ARCHIVE).write_bytes(DATA[::-1])
    with pytest.raises(WeightsError, match="archive must be the one of its first use"):
        download(NAME, base_url=server.url, settings=FAST)


def test_doing_what_the_message_says_helps(server: Server, cache: Path) -> None:
    path = download(NAME, base_url=server.url, settings=FAST)
    path.unlink()
    (cache / ARCHIVE).write_bytes(b"damaged")
    with pytest.raises(WeightsError, match=rf"{ARCHIVE}'; delete it to download it again"):
        download(NAME, base_url=server.url, settings=FAST)
    (cache / ARCHIVE).unlink()
    assert download(NAME, base_url=server.url, settings=FAST) == path


@pytest.mark.parametrize("text", ["", "[]", '{"bytes": 1}'])
def test_a_damaged_record_is_told(server: Server, cache: Path, text: str) -> None:
    download(NAME, base_url=server.url, settings=FAST)
    (cache / "r50-gld.json").write_text(text)
    with pytest.raises(WeightsError, match=r"record must be JSON with bytes and sha256, .*delete"):
        download(NAME, base_url=server.url, settings=FAST)


def test_what_is_no_model_is_not_recorded_as_the_first_use(server: Server, cache: Path) -> None:
    server.data = b"<html>please log in</html>"
    with pytest.raises(
        WeightsError, match=rf"must be a gzip file; '.*{ARCHIVE}' is used .*: delete it"
    ):
        download(NAME, base_url=server.url, settings=FAST)
    assert sorted(path.name for path in cache.iterdir()) == ["r50-gld.lock", ARCHIVE]


def test_an_unknown_name_offers_the_nearest() -> None:
    with pytest.raises(WeightsError, match="got 'r50_gld'; did you mean 'r50-gld'"):
        download("r50_gld")


def test_a_missing_model_tells_the_command_that_fetches_it(cache: Path) -> None:
    with pytest.raises(WeightsError, match=r"; `delg weights download r101-gld` fetches it"):
        load_weights("r101-gld")


def test_collections_keep_the_name_and_not_the_place(server: Server, cache: Path) -> None:
    download(NAME, base_url=server.url, settings=FAST)
    weights = load_weights(NAME)
    extractor = SimpleNamespace(weights=weights, config=profile("balanced"))
    assert recipe_of(extractor).weights_name == NAME  # type: ignore[arg-type]


def test_two_at_once_fetch_once(cache: Path) -> None:
    released = Event()

    def wait(handler: Handler) -> None:
        released.wait(10)
        serve(handler)

    def run() -> None:
        paths.append(download(NAME, base_url=server.url))

    paths: list[Path] = []
    with running(DATA) as server:
        server.behaviours = [wait]
        threads = [Thread(target=run) for _ in range(2)]
        for thread in threads:
            thread.start()
        time.sleep(0.2)
        released.set()
        for thread in threads:
            thread.join()
    assert paths == [cache / "r50-gld.safetensors"] * 2
    assert server.ranges == [None]


def test_a_killed_download_is_continued(cache: Path) -> None:
    def half(handler: Handler) -> None:
        serve(handler, 150_000)
        time.sleep(10)

    with running(DATA) as server:
        server.behaviours = [half]
        call = f"download({NAME!r}, base_url={server.url!r})"
        code = f"from opendelg.weights.download import download; {call}"
        process = subprocess.Popen([sys.executable, "-c", code])
        part = cache / f"{ARCHIVE}.part"
        deadline = time.monotonic() + 20
        while not (part.exists() and part.stat().st_size == 150_000):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        download(NAME, base_url=server.url, settings=FAST)
        assert server.ranges == [None, "bytes=150000-"]
    assert (cache / ARCHIVE).read_bytes() == DATA


@contextmanager
def as_ordinary_user() -> Iterator[None]:
    """Drop the right of root to write anywhere."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


@pytest.fixture
def open_path(tmp_path: Path) -> None:
    """Let an ordinary user come as far as the test's folder."""
    for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        folder.chmod(0o755)


@pytest.mark.usefixtures("open_path")
def test_a_cache_that_cannot_be_written_is_told(server: Server, cache: Path) -> None:
    cache.mkdir(mode=0o555)
    with as_ordinary_user(), pytest.raises(WeightsError, match="cache folder must take") as error:
        download(NAME, base_url=server.url, settings=FAST)
    assert "Permission denied" in str(error.value)
    assert "OPENDELG_CACHE" in str(error.value)


@pytest.mark.usefixtures("open_path")
def test_a_read_only_cache_serves_what_it_has(server: Server, cache: Path) -> None:
    path = download(NAME, base_url=server.url, settings=FAST)
    cache.chmod(0o555)
    with as_ordinary_user():
        assert download(NAME, base_url=NOWHERE) == path
        assert load_weights(NAME).name == NAME


def test_a_file_in_place_of_the_cache_is_told(cache: Path) -> None:
    cache.write_text("")
    with pytest.raises(WeightsError, match=r"cache folder must take the weights, got 'File exists"):
        download(NAME, base_url=NOWHERE)


def test_a_full_disk_is_told_and_the_part_kept(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def append(*_: object) -> None:
        raise OSError(28, "No space left on device")

    server.behaviours = [cut(100_000), status(404)]
    with pytest.raises(WeightsError):
        download(NAME, base_url=server.url, settings=FAST)
    monkeypatch.setattr(fetching, "_append", append)
    with pytest.raises(WeightsError, match=r"'No space left on device'.* is kept; make room"):
        download(NAME, base_url=server.url, settings=FAST)
    assert (cache / f"{ARCHIVE}.part").stat().st_size == 100_000


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        pytest.param({"OPENDELG_CACHE": "/a/b", "XDG_CACHE_HOME": "/x"}, "/a/b", id="ours"),
        pytest.param({"OPENDELG_CACHE": "~/b"}, "/home/me/b", id="home"),
        pytest.param({"XDG_CACHE_HOME": "/x"}, "/x/opendelg", id="xdg"),
        pytest.param({"XDG_CACHE_HOME": "x"}, "/home/me/.cache/opendelg", id="relative-xdg"),
        pytest.param({"XDG_CACHE_HOME": ""}, "/home/me/.cache/opendelg", id="empty"),
        pytest.param({}, "/home/me/.cache/opendelg", id="neither"),
    ],
)
def test_the_cache_folder_is_where_the_documents_say(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], folder: str
) -> None:
    for name in ("OPENDELG_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"HOME": "/home/me"} | variables).items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(folder)


@pytest.mark.parametrize(
    ("model_path", "name"),
    [
        ("parameters/r50delg_gldv2clean_20200914", "r50-gldv2clean"),
        ("parameters/r101delg_gldv2clean_20200914/", "r101-gldv2clean"),
        ("r50delg_gld_20200814", "r50-gld"),
        ("/models/r101delg_gld_20200814", "r101-gld"),
        ("parameters/delg_gld_20200520", "r50-gld-20200520"),
        ("parameters/starter", None),
        ("parameters/delf_gld_20190411", None),
        ("", None),
    ],
)
def test_settings_files_lead_to_our_names(model_path: str, name: str | None) -> None:
    assert published_name(model_path) == name


@pytest.mark.parametrize("known", PUBLISHED.values(), ids=PUBLISHED)
def test_every_archive_has_an_address_and_a_threshold(known: Published) -> None:
    official = known.name != "starter"
    assert (known.url is not None, (known.score_threshold or 0) > 100) == (official, official)
