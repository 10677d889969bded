"""Listening: uvicorn, with bounds on connections before there is a request."""

import asyncio
import contextlib
import json
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from opendelg.server.settings import ServerSettings

_MAX_HEADER_BYTES = 32 * 1024
_BACKLOG = 256  # connections that wait to be taken


def make_server(
    app: ASGIApp, settings: ServerSettings, on_start: Callable[[str], None] = lambda _url: None
) -> "Server":
    """A server that listens already; ``run`` serves until SIGTERM, SIGINT or ``should_exit``.

    Args:
        app: From `create_app`.
        settings: The same as the app's.
        on_start: Called with the address, once requests are answered.

    Raises:
        OSError: If the address cannot be listened on.
    """
    config = uvicorn.Config(
        app,
        http=_protocol(settings),
        ws="none",
        lifespan="on",
        proxy_headers=False,
        server_header=False,
        log_config=None,
        access_log=False,
        h11_max_incomplete_event_size=_MAX_HEADER_BYTES,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=int(settings.stop_seconds),
    )
    return Server(config, _listen(settings), on_start)


class Server(uvicorn.Server):
    """Tells when it is ready, finishes what runs, and ends with status 0 when it is stopped."""

    def __init__(
        self, config: uvicorn.Config, listener: socket.socket, on_start: Callable[[str], None]
    ) -> None:
        super().__init__(config)
        self._listener = listener
        self._on_start = on_start

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve."""
        super().run(sockets or [self._listener])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and tell so."""
        await super().startup(sockets)
        if self.started:
            self._on_start(_url(self._listener))

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As in uvicorn, but a service that was stopped has not failed."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        signals = (signal.SIGINT, signal.SIGTERM)
        earlier = {number: signal.signal(number, self.handle_exit) for number in signals}
        try:
            yield
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)


def _listen(settings: ServerSettings) -> socket.socket:
    host = settings.host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, settings.port), family=family, backlog=_BACKLOG)


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def _protocol(settings: ServerSettings) -> type[H11Protocol]:
    class Protocol(H11Protocol):
        """Refuses connections beyond the limit, and ends those that send no request."""

        _waiting: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) > settings.max_connections:
                self._refuse(503, "service must have room, got too many connections; try again")
                return
            self._waiting = self.loop.call_later(settings.stall_seconds, self._give_up)

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(exc)

        def handle_events(self) -> None:
            super().handle_events()
            if self.scope is not None:
                self._stop_waiting()

        def send_400_response(self, msg: str) -> None:
            self._refuse(
                400, "request must be valid HTTP with headers of at most 32 KB, got another"
            )

        def _stop_waiting(self) -> None:
            if self._waiting is not None:
                self._waiting.cancel()
                self._waiting = None

        def _give_up(self) -> None:
            self._refuse(408, "request must arrive in time, got no headers")

        def _refuse(self, status: int, message: str) -> None:
            if self.transport.is_closing():
                return
            body = json.dumps({"error": {"status": status, "message": message}}).encode()
            headers = [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                (b"x-content-type-options", b"nosniff"),
                (b"connection", b"close"),
            ]
            if status == 503:
                headers.append((b"retry-after", b"2"))
            with contextlib.suppress(h11.LocalProtocolError):  # half an answer is on its way
                for event in (
                    h11.Response(status_code=status, headers=headers),
                    h11.Data(data=body),
                    h11.EndOfMessage(),
                ):
                    self.transport.write(self.conn.send(event) or b"")
            self.transport.close()

    return Protocol
