"""A local HTTP server that serves one file and misbehaves as it is told."""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

Behaviour = Callable[["Handler"], None]


class Server(ThreadingHTTPServer):
    """Answers each request with the next of `behaviours`, or else with the file."""

    daemon_threads = True

    def __init__(self, data: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.data = data
        self.behaviours: list[Behaviour] = []
        self.ranges: list[str | None] = []  # Range header of each request
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is part of the tests."""


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server

    def do_GET(self) -> None:
        self.server.ranges.append(self.headers["Range"])
        queue = self.server.behaviours
        (queue.pop(0) if queue else serve)(self)

    def log_message(self, *_: object) -> None:
        """Tests print nothing."""

    def begin(self, status: int, headers: dict[str, object]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()

    @property
    def etag(self) -> str:
        return f'"{hashlib.md5(self.server.data).hexdigest()}"'


def serve(handler: Handler, most: int | None = None) -> None:
    """The file, or its asked part, as the rules say; at most so many bytes of it."""
    data, asked = handler.server.data, handler.headers["Range"]
    start = 0
    if asked and handler.headers.get("If-Range", handler.etag) == handler.etag:
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if start >= len(data):
            handler.begin(416, {"Content-Range": f"bytes */{len(data)}", "Content-Length": 0})
            return
    headers = {"ETag": handler.etag, "Content-Length": len(data) - start}
    if start:
        headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
    handler.begin(206 if start else 200, headers)
    handler.wfile.write(data[start:][:most])


def cut(after: int) -> Behaviour:
    """Close the connection after so many bytes."""
    return lambda handler: serve(handler, after)


def whole(**headers: object) -> Behaviour:
    """The whole file whatever was asked, with these headers (underscores become dashes)."""

    def behave(handler: Handler) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        handler.begin(200, {"Content-Length": len(handler.server.data)} | named)
        handler.wfile.write(handler.server.data)

    return behave


def status(code: int, **headers: object) -> Behaviour:
    """No file."""
    return lambda handler: handler.begin(code, {"Content-Length": 0} | headers)


def hang(handler: Handler, seconds: float = 1.0) -> None:
    """No answer for a while, and then none."""
    time.sleep(seconds)
    handler.close_connection = True


def endless(handler: Handler) -> None:
    """Data of no declared length until the client goes away."""
    handler.begin(200, {})
    while True:
        handler.wfile.write(b"x" * 65536)


@contextmanager
def running(data: bytes) -> Iterator[Server]:
    """A server of these bytes."""
    server = Server(data)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
