"""A service in a thread of the tests' own process, on a real port."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from opendelg.collection import Collection
from opendelg.extraction import Extractor
from opendelg.recipes import extractor_for
from opendelg.server import ServerSettings, create_app, make_server


@contextmanager
def serving(folder: Path, **settings: Any) -> Iterator[str]:
    """Serve the collection in a folder; yields the address, without a slash at its end."""
    opened = Collection.open(folder, read_only=True)
    with serving_with(opened, extractor_for(opened, "cpu", threads=1), **settings) as url:
        yield url


@contextmanager
def serving_with(opened: Collection, extractor: Extractor, **settings: Any) -> Iterator[str]:
    """Serve an open collection."""
    chosen = ServerSettings(port=0, **settings)
    started, addresses = threading.Event(), []

    def tell(url: str) -> None:
        addresses.append(url.rstrip("/"))
        started.set()

    server = make_server(create_app(opened, extractor, chosen), chosen, tell)
    thread = threading.Thread(target=server.run, name="service")
    thread.start()
    try:
        assert started.wait(30)
        yield addresses[0]
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


def connect(url: str) -> socket.socket:
    """A bare connection to a service."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return socket.create_connection((parts.hostname, parts.port), timeout=10)


def read_all(connection: socket.socket) -> bytes:
    """All that comes until the other side ends the connection."""
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)
