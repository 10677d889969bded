"""What a hostile or careless client meets: a short refusal, and a service that goes on."""

import contextlib
import http.client
import io
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from opendelg.client import Client, ServiceError
from opendelg.collection import Collection
from opendelg.errors import OpenDelgError
from opendelg.extraction import Extractor
from opendelg.features import ImageFeatures
from opendelg.recipes import extractor_for
from opendelg.server import ServerSettings, read_token
from tests.service_samples import connect, read_all, serving, serving_with

TOKEN = "correct-horse-battery-staple"
LINE = b"Host: 127.0.0.1\r\n"


@pytest.fixture(scope="module")
def url(served: Path) -> Iterator[str]:
    """A service with low limits."""
    with serving(
        served / "c",
        max_bytes=100_000,
        max_pixels=1_000_000,
        max_draft_pixels=1_000_000,
        stall_seconds=0.5,
        upload_seconds=2.0,
        max_connections=100,
    ) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url) as client:
        yield client


def exchange(url: str, request: bytes) -> tuple[int, dict[str, Any]]:
    """Status and JSON of the answer to raw bytes; the connection is ended by the service."""
    with connect(url) as connection:
        connection.sendall(request)
        return parsed(read_all(connection))


def parsed(answer: bytes) -> tuple[int, dict[str, Any]]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def require_shape(status: int, body: dict[str, Any]) -> None:
    assert body.keys() == {"error"}
    assert body["error"].keys() == {"status", "message"}
    assert body["error"]["status"] == status


def ask(
    url: str, method: str, path: str, **headers: str
) -> tuple[int, http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)
    connection.request(method, path, headers=headers)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, response, body


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nope", 404),
        ("GET", "/v1", 404),
        ("GET", "/v1/search", 405),
        ("PUT", "/v1/images", 405),
        ("BREW", "/v1/collection", 405),
        ("POST", "/healthz", 405),
        ("GET", "/v1/images/x", 400),
        ("GET", "/v1/images/-1", 400),
        ("GET", "/v1/images/99999999999999999999", 400),
        ("GET", "/v1/images/1/thumbnail?size=100000", 400),
        ("GET", "/v1/images?limit=5000", 400),
        ("GET", "/v1/evidence/xx/1", 400),
        ("GET", "/v1/evidence/id1/1?format=exe", 400),
        ("DELETE", "/v1/images/1", 403),
        ("GET", "/docs", 404),
        ("OPTIONS", "*", 404),
    ],
)
def test_every_refusal_has_one_shape(url: str, method: str, path: str, status: int) -> None:
    found, response, body = ask(url, method, path)
    assert (found, response.headers["Content-Type"]) == (status, "application/json")
    require_shape(status, json.loads(body))


@pytest.mark.parametrize(
    "path",
    [
        "/page/../../server/app.py",
        "/page/%2e%2e/%2e%2e/errors.py",
        "/page/..%2f..%2ferrors.py",
        "/page//etc/passwd",
        "/page/\\..\\..\\errors.py",
        "/page/index.html%00.js",
        "/page/app.py",
        "/v1/images/..%2f..%2fetc%2fpasswd",
        "/v1/images/../../etc/passwd",
        "/v1/queries/..%2f..%2fetc%2fpasswd/photo",
        "/v1/evidence/..%2fid1/1",
        "//etc/passwd",
        "/../../../../etc/passwd",
    ],
)
def test_no_path_leads_out_of_the_collection(url: str, path: str) -> None:
    status, _, body = ask(url, "GET", path)
    assert status in (400, 404)
    require_shape(status, json.loads(body))


def test_a_file_that_replaced_a_photo_is_not_sent(served: Path, tmp_path: Path) -> None:
    copy = copied(served, tmp_path)
    (copy / "1.png").unlink()
    (copy / "1.png").symlink_to("/etc/passwd")
    (copy / "2.png").unlink()
    with serving(copy / "c") as url:
        for image_id, words in ((2, "image"), (3, "on disk")):
            for route in ("", "?format=jpeg", "/thumbnail"):
                status, _, body = ask(url, "GET", f"/v1/images/{image_id}{route}")
                assert (status, words in json.loads(body)["error"]["message"]) == (404, True)


def copied(served: Path, folder: Path) -> Path:
    import shutil

    shutil.copytree(served, folder / "copy")
    return folder / "copy"


def test_answers_carry_headers_that_bind_browsers(url: str) -> None:
    for path in ("/", "/v1/collection", "/nope", "/v1/images/1/thumbnail"):
        _, response, _ = ask(url, "GET", path)
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        policy = response.headers["Content-Security-Policy"]
        assert policy.startswith(
            "default-src 'none'; img-src 'self' blob: data:; script-src 'self'"
        )
        assert "Access-Control-Allow-Origin" not in response.headers


def test_head_is_get_without_a_body(url: str) -> None:
    status, response, body = ask(url, "HEAD", "/healthz")
    assert (status, response.headers["Content-Length"], body) == (200, "15", b"")


# -- bytes, pixels and time ------------------------------------------------------------------------


def test_a_photo_of_too_many_bytes_is_413(client: Client) -> None:
    with pytest.raises(ServiceError, match="at most 100000 bytes") as refused:
        client.search(b"\xff\xd8\xff" + bytes(5_000_000))
    assert refused.value.status == 413


def test_a_body_without_a_length_is_bounded_too(url: str) -> None:
    head = b"POST /v1/search HTTP/1.1\r\n" + LINE + b"Transfer-Encoding: chunked\r\n"
    form = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    chunks = [form, *[bytes(50_000)] * 8]
    body = b"".join(f"{len(c):x}\r\n".encode() + c + b"\r\n" for c in chunks)
    kind = b"Content-Type: multipart/form-data; boundary=x\r\n\r\n"
    status, answer = exchange(url, head + kind + body)
    require_shape(413, answer)
    assert status == 413


def png(size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("1", size).save(buffer, "PNG")
    return buffer.getvalue()


def noise() -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((100, 100), 90).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_small_file_of_many_pixels_is_413(client: Client) -> None:
    bomb = png((20_000, 20_000))
    assert len(bomb) < 100_000
    started = time.monotonic()
    with pytest.raises(ServiceError, match="pixels") as refused:
        client.search(bomb)
    assert refused.value.status == 413
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 415),
        (b"hello", 415),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415),
        (b"%!PS-Adobe", 415),
        (b"\0\0\0\x18ftypheic" + bytes(12), 415),
        (b"\xff\xd8\xff" + bytes(100), 400),
        (noise()[:-9000], 400),
    ],
)
def test_what_is_no_photo_is_refused(client: Client, content: bytes, status: int) -> None:
    with pytest.raises(ServiceError) as refused:
        client.search(content)
    assert refused.value.status == status


def test_many_fields_and_files_are_refused(url: str) -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\nx\r\n'
    body = part * 50 + b"--x--\r\n"
    head = b"POST /v1/search HTTP/1.1\r\n" + LINE + b"Connection: close\r\n"
    kind = b"Content-Type: multipart/form-data; boundary=x\r\n"
    length = f"Content-Length: {len(body)}\r\n\r\n".encode()
    status, answer = exchange(url, head + kind + length + body)
    require_shape(400, answer)
    assert status == 400


def test_a_body_that_stalls_is_408(url: str) -> None:
    head = b"POST /v1/search HTTP/1.1\r\n" + LINE + b"Content-Length: 1000\r\n"
    kind = b"Content-Type: multipart/form-data; boundary=x\r\n\r\n"
    started = time.monotonic()
    status, answer = exchange(url, head + kind + b"--x\r\n")
    require_shape(408, answer)
    assert status == 408
    assert time.monotonic() - started < 5


def test_a_body_that_drips_is_408(url: str) -> None:
    head = b"POST /v1/search HTTP/1.1\r\n" + LINE + b"Content-Length: 1000\r\n"
    with connect(url) as connection:
        connection.sendall(head + b"Content-Type: multipart/form-data; boundary=x\r\n\r\n")
        connection.settimeout(0.2)
        assert parsed(drip(connection))[0] == 408


def drip(connection: socket.socket) -> bytes:
    """Send a byte of a part's header now and then until there is an answer."""
    connection.sendall(b"--x\r\n")
    while True:
        connection.sendall(b"a")
        try:
            return connection.recv(65536)
        except TimeoutError:
            continue


@pytest.mark.parametrize(
    "first", [b"", b"GET /healthz HT", b"GET / HTTP/1.1\r\nHost: localhost\r\n"]
)
def test_headers_that_stall_end_the_connection(url: str, first: bytes) -> None:
    status, answer = exchange(url, first)
    require_shape(408, answer)
    assert status == 408


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(b"\x16\x03\x01\x02\0\x01\0" + bytes(200) + b"\r\n\r\n", id="tls"),
        pytest.param(b"GET / HTTP/1.1\r\nA B: c\r\n\r\n", id="name"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="no host"),
        pytest.param(
            b"POST / HTTP/1.1\r\n" + LINE + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
            id="two lengths",
        ),
        pytest.param(b"POST / HTTP/1.1\r\n" + LINE + b"Content-Length: -5\r\n\r\n", id="length"),
    ],
)
def test_what_is_not_http_is_400(url: str, request_: bytes) -> None:
    status, answer = exchange(url, request_)
    require_shape(400, answer)
    assert status == 400


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\nConnection: close\r\nX: " + b"a" * 100_000 + b"\r\n" + LINE + b"\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nConnection: close\r\n" + LINE + b"\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 400_000,
    ],
    ids=["header", "address", "endless"],
)
def test_huge_headers_are_refused(url: str, request_: bytes) -> None:
    with connect(url) as connection, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(request_)
        status, answer = parsed(read_all(connection))
        require_shape(status, answer)
        assert status in (400, 431)
    assert ask(url, "GET", "/healthz")[0] == 200


# -- who may ask -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(served: Path) -> Iterator[str]:
    with serving(served / "c", token=TOKEN) as url:
        yield url


@pytest.mark.parametrize(
    "header",
    [
        *(None, "", "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", TOKEN),
        *(f"Basic {TOKEN}", "Bearer \xff\xfe", f"Bearer {TOKEN} {TOKEN}"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/collection", "/v1/images/1", "/metrics", "/v1/nope"])
def test_without_the_token_nothing_is_told(guarded: str, path: str, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    status, response, body = ask(guarded, "GET", path, **headers)
    require_shape(401, json.loads(body))
    assert (status, response.headers["WWW-Authenticate"]) == (401, "Bearer")


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/openapi.json", "/page/index.html"])
def test_the_page_itself_and_probes_need_no_token(guarded: str, path: str) -> None:
    assert ask(guarded, "GET", path)[0] == 200


def test_with_the_token_everything_is_open(guarded: str, served: Path) -> None:
    with Client(guarded, token=TOKEN) as client:
        assert client.search(served / "1.png").results[0].rank == 1
    assert ask(guarded, "GET", "/metrics", Authorization=f"bearer {TOKEN}")[0] == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.2", "::", "example.org", ""])
def test_other_addresses_need_a_token(host: str) -> None:
    with pytest.raises(OpenDelgError, match="--token-file"):
        ServerSettings(host=host)
    assert ServerSettings(host=host, token=TOKEN).host == host


@pytest.mark.parametrize("text", ["", "short\n", "x" * 15, "schlüssel-größer-16", "a b" * 9])
def test_tokens_that_are_no_secret_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "t").write_text(text, "utf-8")
    with pytest.raises(OpenDelgError, match="token must have"):
        read_token(tmp_path / "t")


def test_the_token_is_the_first_line(tmp_path: Path) -> None:
    (tmp_path / "t").write_text(f"{TOKEN}\nsecond line\n")
    assert read_token(tmp_path / "t") == TOKEN
    assert TOKEN not in repr(ServerSettings(token=TOKEN))


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.net", "localhost.evil", "[::2]"])
def test_other_names_for_this_machine_are_refused(url: str, host: str) -> None:
    status, _, body = ask(url, "GET", "/v1/collection", Host=host)
    require_shape(403, json.loads(body))
    assert status == 403


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:99", "127.0.0.1:8000", "[::1]:80"])
def test_this_machine_has_several_names(url: str, host: str) -> None:
    assert ask(url, "GET", "/v1/collection", Host=host)[0] == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1"])
def test_forms_of_other_sites_are_refused(url: str, origin: str) -> None:
    assert ask(url, "POST", "/v1/search", Origin=origin)[0] == 403
    assert ask(url, "POST", "/v1/search", Origin=url)[0] == 400


# -- how much at a time ----------------------------------------------------------------------------


class Gated(Extractor):
    """Extracts while its gate is open."""

    def __init__(self, extractor: Extractor) -> None:
        super().__init__(extractor.weights, extractor.config, extractor.runtime)
        self.gate = threading.Event()
        self.gate.set()

    def extract_prepared(self, images: Any, want_local: bool = True) -> list[ImageFeatures]:
        assert self.gate.wait(20)
        return super().extract_prepared(images, want_local)


@pytest.fixture
def gated(served: Path) -> Callable[..., Any]:
    def serve(**settings: Any) -> Any:
        opened = Collection.open(served / "c", read_only=True)
        extractor = Gated(extractor_for(opened, "cpu", threads=1))
        return extractor, serving_with(opened, extractor, **settings)

    return serve


def search_apart(url: str, photo: Path) -> str:
    with Client(url) as client:
        try:
            return f"{len(client.search(photo).results)} results"
        except ServiceError as error:
            return f"{error.status} {error.retry_after}"


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    assert condition()


def running(url: str) -> int:
    """Requests in the house, this one not counted."""
    found = re.search(rb"^delg_requests_running ([\d.]+)", ask(url, "GET", "/metrics")[2], re.M)
    assert found is not None
    return int(float(found[1])) - 1


@pytest.mark.parametrize(
    ("limit", "expected"), [("max_per_client", "429 2.0"), ("max_requests", "503 2.0")]
)
def test_more_than_there_is_room_for_is_told_to_come_back(
    served: Path, gated: Callable[..., Any], limit: str, expected: str
) -> None:
    extractor, service = gated(**{limit: 2})
    with service as url, ThreadPoolExecutor(2) as others:
        extractor.gate.clear()
        waiting = [others.submit(search_apart, url, served / f"{n}.png") for n in (1, 2)]
        wait_until(lambda: running(url) == 2)
        assert search_apart(url, served / "3.png") == expected
        assert ask(url, "GET", "/healthz")[0] == 200
        extractor.gate.set()
        assert [future.result() for future in waiting] == ["10 results"] * 2
        assert search_apart(url, served / "3.png") == "10 results"


def test_work_that_takes_too_long_is_503(served: Path, gated: Callable[..., Any]) -> None:
    extractor, service = gated(timeout=2.0)
    with service as url:
        extractor.gate.clear()
        assert search_apart(url, served / "1.png") == "503 2.0"
        extractor.gate.set()
        assert search_apart(url, served / "1.png") == "10 results"


def test_a_stopping_service_finishes_what_runs(served: Path, gated: Callable[..., Any]) -> None:
    extractor, service = gated()
    with ThreadPoolExecutor(1) as others:
        with service as url:
            extractor.gate.clear()
            waiting = others.submit(search_apart, url, served / "1.png")
            wait_until(lambda: running(url) == 1)
            threading.Timer(1.0, extractor.gate.set).start()
        assert waiting.result() == "10 results"


def test_an_error_of_ours_says_nothing_of_the_inside(
    served: Path, gated: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, service = gated()

    def fail(*_: object) -> None:
        raise RuntimeError("secret")

    with service as url:
        monkeypatch.setattr("opendelg.server.service.response_as_dict", fail)
        with (
            Client(url) as client,
            pytest.raises(ServiceError, match=r"^internal error$") as failed,
        ):
            client.search(id=1)
    assert failed.value.status == 500


def test_idle_connections_make_room_for_others(url: str) -> None:
    held = [connect(url) for _ in range(300)]
    try:
        assert ask(url, "GET", "/healthz")[0] == 200
        assert ask(url, "GET", "/v1/collection")[0] == 200
    finally:
        for connection in held:
            connection.close()


def test_a_thousand_requests_at_once_are_all_answered(served: Path) -> None:
    request = b"GET /v1/collection HTTP/1.1\r\n" + LINE + b"Connection: close\r\n\r\n"
    with serving(served / "c", max_connections=2000) as url:
        connections = [connect(url) for _ in range(1000)]
        for connection in connections:
            connection.sendall(request)
        statuses = [parsed(read_all(connection))[0] for connection in connections]
        for connection in connections:
            connection.close()
        assert set(statuses) <= {200, 429, 503}
        assert ask(url, "GET", "/readyz")[0] == 200
