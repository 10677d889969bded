from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from opendelg.cli import progress
from opendelg.cli.progress import byte_progress
from opendelg.weights import PUBLISHED, Weights, write_weights
from tests.file_server import Server, running

Run = Callable[..., SimpleNamespace]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPENDELG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "cache"


@pytest.fixture
def server(tiny_weights: Weights, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Serves weights that need no conversion."""

    def import_weights(source: Path, target: Path, **_: object) -> Path:
        return source.rename(target)

    module = SimpleNamespace(import_weights=import_weights)
    monkeypatch.setitem(__import__("sys").modules, "opendelg.weights.tensorflow", module)
    with running(tiny_weights.path.read_bytes()) as server:
        yield server


def test_a_downloaded_model_serves_by_its_name(
    delg: Run, server: Server, cache: Path, drawn_files: list[Path]
) -> None:
    done = delg("weights", "download", "r50-gld", "--base-url", server.url, "--json")
    path = cache / "r50-gld.safetensors"
    assert done.json == {"name": "r50-gld", "path": str(path), "bytes": len(server.data)}
    assert delg("weights", "info", "r50-gld", "--json").json["path"] == str(path)
    matched = delg("match", *drawn_files[:2], "--model", "r50-gld", "--json")
    assert matched.code == 0


def test_the_list_tells_what_is_here(delg: Run, server: Server) -> None:
    delg("weights", "download", "r50-gld", "--base-url", server.url)
    listed = {each["name"]: each for each in delg("weights", "list", "--json").json["weights"]}
    assert list(listed) == list(PUBLISHED)
    assert [name for name, each in listed.items() if each["is_here"]] == ["starter", "r50-gld"]
    assert listed["r50-gld"]["bytes"] == len(server.data)
    assert listed["r101-gld"]["bytes"] is None


def test_the_list_is_a_line_for_each(delg: Run) -> None:
    lines = delg("weights", "list").out.splitlines()
    assert len(lines) == len(PUBLISHED)
    assert lines[0].startswith("starter (default): ")
    assert all(line.endswith("; not here") for line in lines[1:])


def test_info_on_what_is_not_here_tells_how_to_get_it(delg: Run) -> None:
    told = delg("weights", "info", "r101-gld", "--json").json
    assert (told["is_here"], told["to_get_it"]) == (False, "delg weights download r101-gld")
    assert told["url"] == "https://storage.googleapis.com/delf/r101delg_gld_20200814.tar.gz"
    assert "to_get_it: delg weights download r101-gld" in delg("weights", "info", "r101-gld").out


@pytest.mark.parametrize("command", ["index", "search", "match"])
def test_a_model_that_is_not_here_is_an_error_with_a_remedy(
    delg: Run, drawn_files: list[Path], tmp_path: Path, command: str
) -> None:
    arguments = {
        "index": [drawn_files[0], "--collection", tmp_path / "c"],
        "search": [tmp_path / "s", drawn_files[0]],
        "match": drawn_files[:2],
    }
    delg("index", drawn_files[0], "--collection", tmp_path / "s")
    done = delg(command, *arguments[command], "--model", "r50-gldv2clean")
    assert done.code == 1
    assert "`delg weights download r50-gldv2clean` fetches it" in done.err


def test_no_network_is_one_line_and_status_1(delg: Run) -> None:
    done = delg("weights", "download", "r50-gld", "--base-url", "http://127.0.0.1:9")
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert done.err.startswith("delg: error: server must be reachable, got ")


def test_a_log_gets_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter([0.0, 1.0, 41.0, 42.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(seconds))
    with byte_progress("x") as show:
        for done in (20_000_000, 102_000_000, 110_000_000):
            show(done, 184_000_000)
    assert capsys.readouterr().err == "x: 102.0 MB of 184.0 MB, 2.0 MB/s, 41 s left\n"


def test_a_log_gets_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    with byte_progress("x") as show:
        show(5_000_000, 5_000_000)
    assert "x: 5.0 MB of 5.0 MB" in capsys.readouterr().err


def test_a_terminal_gets_a_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True)
    with byte_progress("x") as show:
        show(1_000_000, None)
        show(5_000_000, 8_000_000)
    assert "5.0/8.0 MB" in capsys.readouterr().err


def test_an_import_does_not_replace_what_it_reads(delg: Run, tmp_path: Path) -> None:
    archive = tmp_path / "model.tar.gz"
    archive.write_bytes(b"a model")
    done = delg("weights", "import", archive, "--out", archive)
    assert (done.code, "out must be another file than PATH" in done.err) == (2, True)
    assert archive.read_bytes() == b"a model"


def test_a_check_with_the_model_last_tells_the_order(delg: Run, tmp_path: Path) -> None:
    options = ["--images", tmp_path, "--against", "a.npz", "b.npz"]
    done = delg("weights", "check", *options, "starter")
    assert (done.code, "model must come before --against, got 'b.npz'" in done.err) == (2, True)


def test_what_a_file_says_of_itself_cannot_steer_the_terminal(delg: Run, tmp_path: Path) -> None:
    state = {"conv.bias": np.zeros(1, np.float32)}
    write_weights(tmp_path / "x.safetensors", "x\x1b[2J", state, {"a": "\x1b]0;"}, 0.0)
    told = delg("weights", "info", tmp_path / "x.safetensors").out
    assert "name: x\\x1b[2J" in told
    assert "\x1b" not in told
