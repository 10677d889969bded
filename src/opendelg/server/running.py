"""Listening: uvicorn, with bounds on connections before there is a request."""

import asyncio
import contextlib
import signal
import socket
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from opendelg.server.gate import MAX_HEADER_BYTES
from opendelg.server.problems import problem_response
from opendelg.server.settings import ServerSettings

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
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
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


class _BoundedProtocol(H11Protocol):
    """Bounds connections, and the time in which a request must begin."""

    bounds: ClassVar[ServerSettings]
    idle: ClassVar["OrderedDict[int, _BoundedProtocol]"]  # by id, the longest idle first
    _clock: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > self.bounds.max_connections:
            # Who only holds a connection makes room for who may have something to say.
            oldest = next(iter(self.idle.values()), self)
            oldest.refuse(503, "service must have room, got too many connections; try again")
        if not transport.is_closing():
            self._wait_for_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._wait_for_request()
        else:
            self._stop_waiting()

    def send_400_response(self, msg: str) -> None:
        self.refuse(400, "request must be HTTP/1.1 with at most 32 KB of headers, got another")

    def _wait_for_request(self) -> None:
        if self._clock is None:
            self.idle[id(self)] = self
            self._clock = self.loop.call_later(
                self.bounds.stall_seconds,
                self.refuse,
                408,
                "request must arrive in time, got none",
            )

    def _stop_waiting(self) -> None:
        self.idle.pop(id(self), None)
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def refuse(self, status: int, message: str) -> None:
        """Answer before there is a request, and end the connection."""
        self._stop_waiting()
        if self.transport.is_closing():
            return
        response = problem_response(status, message, {"Connection": "close"})
        with contextlib.suppress(h11.LocalProtocolError):  # half an answer is on its way
            for event in (
                h11.Response(status_code=status, headers=response.raw_headers),
                h11.Data(data=bytes(response.body)),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


def _protocol(settings: ServerSettings) -> type[H11Protocol]:
    class Protocol(_BoundedProtocol):
        bounds = settings
        idle: ClassVar[OrderedDict[int, _BoundedProtocol]] = OrderedDict()

    return Protocol
