"""Servers that resume, cut off and lie: `fetch` ends with the whole file or a clear error."""

import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
import pytest

from opendelg.errors import WeightsError
from opendelg.weights import fetching
from opendelg.weights.fetching import FetchSettings, fetch
from tests.file_server import Handler, Server, cut, endless, hang, running, serve, status, whole

DATA = np.random.default_rng(0).bytes(300_000)
FAST = FetchSettings(timeout=0.3, attempts=3, first_wait=0.001, max_bytes=2_000_000)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def server() -> Iterator[Server]:
    with running(DATA) as server:
        yield server


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "model.tar.gz"


def leftovers(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir() if path != target)


def interrupted(server: Server, target: Path, after: int = 100_000) -> None:
    """A download that ended early."""
    server.behaviours = [cut(after), status(404)]
    with pytest.raises(WeightsError):
        fetch(server.url, target, FAST)
    server.ranges.clear()


def test_a_file_is_fetched_whole_and_nothing_else_is_left(server: Server, target: Path) -> None:
    fetch(server.url, target, FAST)
    assert target.read_bytes() == DATA
    assert leftovers(target) == []
    assert server.ranges == [None]


def test_a_cut_connection_is_continued_where_it_stopped(server: Server, target: Path) -> None:
    server.behaviours = [cut(100_000), cut(50_000)]
    fetch(server.url, target, FAST)
    assert target.read_bytes() == DATA
    assert server.ranges == [None, "bytes=100000-", "bytes=150000-"]


def test_cuts_that_each_bring_something_do_not_exhaust_the_attempts(
    server: Server, target: Path
) -> None:
    server.behaviours = [cut(20_000)] * 10
    fetch(server.url, target, FAST)
    assert target.read_bytes() == DATA


def test_a_later_call_goes_on_where_an_earlier_one_ended(server: Server, target: Path) -> None:
    interrupted(server, target, after=100_000)
    assert leftovers(target) == ["model.tar.gz.part", "model.tar.gz.part.json"]
    fetch(server.url, target, FAST)
    assert target.read_bytes() == DATA
    assert server.ranges == ["bytes=100000-"]


def test_progress_starts_at_what_was_there(server: Server, target: Path) -> None:
    interrupted(server, target, after=100_000)
    seen: list[tuple[int, int | None]] = []
    fetch(server.url, target, FAST, lambda done, total: seen.append((done, total)))
    assert (seen[0], seen[-1]) == ((100_000, len(DATA)), (len(DATA), len(DATA)))


def test_a_part_that_is_complete_needs_no_server(server: Server, target: Path) -> None:
    interrupted(server, target)
    Path(f"{target}.part").write_bytes(DATA)
    fetch(server.url, target, FAST)
    assert target.read_bytes() == DATA
    assert server.ranges == []


def test_a_server_without_ranges_sends_all_again(server: Server, target: Path) -> None:
    server.behaviours = [cut(100_000), whole()]
    fetch(server.url, target, FAST)
    assert target.read_bytes() == DATA


def test_a_server_without_versions_is_continued_by_length(server: Server, target: Path) -> None:
    interrupted(server, target, after=100_000)
    state = Path(f"{target}.part.json")
    state.write_text(json.dumps(json.loads(state.read_text()) | {"etag": None}))
    fetch(server.url, target, FAST)
    assert target.read_bytes() == DATA
    assert server.ranges == ["bytes=100000-"]


def test_a_file_that_changed_meanwhile_is_fetched_afresh(server: Server, target: Path) -> None:
    interrupted(server, target)
    server.data = DATA[::-1]
    fetch(server.url, target, FAST)
    assert target.read_bytes() == DATA[::-1]


def test_a_changed_file_is_seen_although_the_server_ignores_if_range(
    server: Server, target: Path
) -> None:
    interrupted(server, target, after=100_000)
    changed = {
        "ETag": '"new"',
        "Content-Range": f"bytes 100000-{len(DATA) - 1}/{len(DATA)}",
        "Content-Length": 200_000,
    }
    server.behaviours = [lambda handler: handler.begin(206, changed)]
    fetch(server.url, target, FAST)
    assert target.read_bytes() == DATA
    assert server.ranges == ["bytes=100000-", None]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"url": 1}'])
def test_a_part_of_unknown_version_is_not_continued(
    server: Server, target: Path, text: str
) -> None:
    interrupted(server, target)
    Path(f"{target}.part.json").write_text(text)
    fetch(server.url, target, FAST)
    assert server.ranges == [None]


def test_a_part_from_another_address_is_not_continued(server: Server, target: Path) -> None:
    interrupted(server, target)
    fetch(f"{server.url}/mirror", target, FAST)
    assert server.ranges == [None]


def test_a_file_that_became_shorter_than_the_part_is_fetched_afresh(
    server: Server, target: Path
) -> None:
    interrupted(server, target)
    server.behaviours = [status(416)]
    fetch(server.url, target, FAST)
    assert server.ranges == ["bytes=100000-", None]


@pytest.mark.parametrize("range_", ["bytes 0-9/300000", "nonsense", ""])
def test_another_range_than_asked_is_not_taken(server: Server, target: Path, range_: str) -> None:
    wrong = {"Content-Range": range_, "Content-Length": 0}
    server.behaviours = [cut(100_000), lambda handler: handler.begin(206, wrong)]
    fetch(server.url, target, FAST)
    assert target.read_bytes() == DATA


@pytest.mark.parametrize("code", [500, 503, 429])
def test_a_server_in_trouble_is_tried_again(server: Server, target: Path, code: int) -> None:
    server.behaviours = [status(code)] * 2
    fetch(server.url, target, FAST)
    assert target.read_bytes() == DATA


@pytest.mark.parametrize("code", [403, 404, 410])
def test_a_missing_file_is_told_at_once(server: Server, target: Path, code: int) -> None:
    server.behaviours = [status(code)]
    with pytest.raises(WeightsError, match=rf"url must lead to a file, got 'HTTP {code} "):
        fetch(server.url, target, FAST)
    assert len(server.ranges) == 1


def test_redirects_are_followed_with_the_range(server: Server, target: Path) -> None:
    server.behaviours = [cut(100_000), status(302, Location=f"{server.url}/elsewhere")]
    fetch(server.url, target, FAST)
    assert target.read_bytes() == DATA
    assert server.ranges == [None, "bytes=100000-", "bytes=100000-"]


def test_redirects_in_a_circle_are_told(server: Server, target: Path) -> None:
    server.behaviours = [status(302, Location=server.url)] * 20
    with pytest.raises(WeightsError, match="infinite loop"):
        fetch(server.url, target, FAST)


def test_a_redirect_from_https_to_http_is_refused() -> None:
    handler = fetching._SafeRedirects()
    request = fetching.urllib.request.Request("https://127.0.0.1/x")
    with pytest.raises(OSError, match="redirect to plain http") as refused:
        handler.redirect_request(request, None, 302, "Found", {}, "http://127.0.0.1/x")
    refused.value.close()


def test_a_server_that_hangs_is_given_up(server: Server, target: Path) -> None:
    server.behaviours = [partial(hang, seconds=0.5)] * 3
    with pytest.raises(WeightsError, match="must send the file to its end, got 'timed out'"):
        fetch(server.url, target, FetchSettings(timeout=0.05, attempts=2, first_wait=0.001))


def test_a_server_that_hangs_once_is_tried_again(server: Server, target: Path) -> None:
    server.behaviours = [partial(hang, seconds=0.5)]
    fetch(server.url, target, FAST)
    assert target.read_bytes() == DATA


def test_a_server_that_promises_more_than_it_has_is_given_up(server: Server, target: Path) -> None:
    server.behaviours = [whole(Content_Length=400_000)] * 5
    with pytest.raises(WeightsError, match=r"got 'end of data after 300000 of 400000 bytes'"):
        fetch(server.url, target, FAST)


def test_a_server_that_continues_beyond_the_end_is_refused(server: Server, target: Path) -> None:
    longer = {
        "Content-Range": f"bytes 100000-{len(DATA) - 1}/{len(DATA)}",
        "Content-Length": len(DATA),
    }

    def behave(handler: Handler) -> None:
        handler.begin(206, longer)
        handler.wfile.write(DATA)

    server.behaviours = [cut(100_000), behave]
    with pytest.raises(WeightsError, match="must have at most 300000 bytes"):
        fetch(server.url, target, FAST)
    assert leftovers(target) == []


def test_endless_data_ends_at_the_limit(server: Server, target: Path) -> None:
    server.behaviours = [endless]
    with pytest.raises(WeightsError, match="download must have at most 2000000 bytes"):
        fetch(server.url, target, FAST)
    assert leftovers(target) == []


def test_a_file_that_is_declared_too_large_is_not_begun(server: Server, target: Path) -> None:
    server.behaviours = [whole(Content_Length=3_000_000)]
    with pytest.raises(WeightsError, match="at most 2000000 bytes, got 3000000"):
        fetch(server.url, target, FAST)


def test_data_without_a_declared_length_is_taken(server: Server, target: Path) -> None:
    def behave(handler: Handler) -> None:
        handler.begin(200, {})
        handler.wfile.write(DATA)

    server.behaviours = [behave]
    fetch(server.url, target, FAST)
    assert target.read_bytes() == DATA


def test_a_length_that_is_told_late_is_kept_to(server: Server, target: Path) -> None:
    def chunked(handler: Handler) -> None:
        handler.begin(200, {"ETag": handler.etag, "Transfer-Encoding": "chunked"})
        handler.wfile.write(b"186a0\r\n" + DATA[:100_000])

    server.behaviours = [chunked, cut(50_000)]
    fetch(server.url, target, FAST)
    assert target.read_bytes() == DATA
    assert server.ranges == [None, "bytes=100000-", "bytes=150000-"]


@pytest.mark.parametrize(
    ("etag", "last_modified", "condition"),
    [
        pytest.param('"a"', "Mon", '"a"', id="strong"),
        pytest.param('W/"a"', "Mon", "Mon", id="weak"),
        pytest.param('W/"a"', None, None, id="weak-alone"),
        pytest.param(None, "Mon", "Mon", id="date"),
    ],
)
def test_ranges_are_asked_for_by_what_is_exact(
    etag: str | None, last_modified: str | None, condition: str | None
) -> None:
    assert fetching._Version("http://x", etag, last_modified, 1).condition == condition


def test_without_network_the_way_by_hand_is_told(target: Path) -> None:
    with running(DATA) as server:
        url = server.url
    told = (
        f"server must be reachable, got .*refused.* from '{url}'; you can copy 'model.tar.gz' into"
    )
    with pytest.raises(WeightsError, match=told):
        fetch(url, target, FetchSettings())  # no wait: it was never reached


def test_a_network_that_goes_away_keeps_what_has_arrived(target: Path) -> None:
    with running(DATA) as server:
        interrupted(server, target, after=100_000)
        url = server.url
    with pytest.raises(WeightsError, match="the 100000 bytes so far are kept for the next try"):
        fetch(url, target, FAST)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "model.tar.gz"])
def test_other_addresses_are_refused(target: Path, url: str) -> None:
    with pytest.raises(WeightsError, match="url must start with http:// or https://"):
        fetch(url, target, FAST)


@pytest.mark.parametrize("url", ["http://127.0.0.1:port/x", "http://127.0.0.1:1/ü", "http://[1"])
def test_a_malformed_address_is_told(target: Path, url: str) -> None:
    with pytest.raises(WeightsError, match=f"url must be a web address, got '{re.escape(url)}'"):
        fetch(url, target, FAST)


def test_a_full_disk_keeps_what_fits_and_the_next_call_goes_on(
    server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def append(file: IO[bytes], block: bytes) -> None:
        file.write(block[:70_000])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(fetching, "_append", append)
        with pytest.raises(OSError, match="No space left"):
            fetch(server.url, target, FAST)
    kept = Path(f"{target}.part").stat().st_size
    fetch(server.url, target, FAST)
    assert target.read_bytes() == DATA
    assert server.ranges == [None, f"bytes={kept}-"]


def test_a_short_write_is_completed() -> None:
    class Slow:
        written = b""

        def write(self, block: memoryview) -> int:
            self.written += bytes(block[:3])
            return min(3, len(block))

    file = Slow()
    fetching._append(file, b"0123456789")  # type: ignore[arg-type]
    assert file.written == b"0123456789"


def test_an_empty_file_is_a_file(target: Path) -> None:
    with running(b"") as server:
        server.behaviours = [serve]
        fetch(server.url, target, FAST)
    assert target.read_bytes() == b""
