"""What stands before the app: who may ask, how much at a time, how long, and what headers go out.

Plain ASGI, so that it holds for every route, for unknown ones too, and refuses before any work.
"""

import asyncio
import contextlib
import hmac
from collections import Counter
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from opendelg.server.problems import Problem, problem_response
from opendelg.server.settings import ServerSettings, is_own_address

PAGE_POLICY = (
    "default-src 'none'; img-src 'self' blob: data:; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
)
_HEADERS = {
    "Content-Security-Policy": PAGE_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}  # unless an answer has its own
MAX_HEADER_BYTES = 32 * 1024  # of address and headers
_FORM_BYTES = 64 * 1024  # of a body beside the photo
_DRAIN_SECONDS = 5.0  # in which a client that is refused may send on
_MAX_PLAIN_BYTES = 64 * 1024  # of a body where no photo is expected


class SecurityHeaders:
    """Adds headers that keep browsers from doing what the page does not need."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, with_headers if scope["type"] == "http" else send)


class HeadLikeGet:
    """Lets HEAD be asked where GET is; the server leaves out the body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        await self._app(scope, receive, send)


class Access:
    """Refuses who has no token; without one, other sites' pages that reach this machine."""

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self._app = app
        self._token = None if settings.token is None else settings.token.encode()
        self._hosts = {"localhost", settings.host.strip("[]").lower(), *settings.allowed_hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http":
            problem = self._problem(scope)
            if problem is not None:
                await refuse(problem, scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _problem(self, scope: Scope) -> Problem | None:
        headers = Headers(scope=scope)
        num_bytes = len(scope["raw_path"]) + len(scope["query_string"])
        num_bytes += sum(len(name) + len(value) for name, value in scope["headers"])
        if num_bytes > MAX_HEADER_BYTES:
            limit = f"{MAX_HEADER_BYTES // 1024} KB"
            return Problem(431, f"address and headers must have at most {limit}, got more")
        if self._token is not None:
            return self._token_problem(scope["path"], headers)
        # A page of another site may have its own name lead to this machine (DNS rebinding) ...
        host = _host_name(headers.get("host", ""))
        if not (host in self._hosts or is_own_address(host)):
            return Problem(
                403, f"host must be one of {', '.join(sorted(self._hosts))}, got {host!r}"
            )
        # ... or send a form here without asking.
        origin = headers.get("origin")
        is_foreign = origin is not None and urlsplit(origin).netloc != headers.get("host")
        if scope["method"] not in ("GET", "HEAD") and is_foreign:
            return Problem(403, f"origin must be this service's own page, got {origin!r}")
        return None

    def _token_problem(self, path: str, headers: Headers) -> Problem | None:
        if not (path == "/metrics" or path.startswith("/v1/")):
            return None
        scheme, _, token = headers.get("authorization", "").partition(" ")
        assert self._token is not None
        given = token.strip().encode("latin-1", "replace")
        if scheme.lower() == "bearer" and hmac.compare_digest(given, self._token):
            return None
        return Problem(
            401,
            "token must be sent as `Authorization: Bearer TOKEN`, got "
            + ("another" if token else "none"),
            {"WWW-Authenticate": "Bearer"},
        )


class Limits:
    """Bounds what each request under /v1 costs, and how many there are."""

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self._app = app
        self._settings = settings
        self._running: Counter[str] = Counter()  # by client address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self._app(scope, receive, send)
            return
        client = scope["client"][0] if scope.get("client") else ""
        problem = self._problem(client, scope)
        if problem is not None:
            await refuse(problem, scope, receive, send)
            return
        self._running[client] += 1
        try:
            await self._run(scope, receive, send)
        finally:
            self._running[client] -= 1
            if not self._running[client]:
                del self._running[client]

    def _problem(self, client: str, scope: Scope) -> Problem | None:
        settings = self._settings
        length = Headers(scope=scope).get("content-length", "0")
        if length.isdecimal() and int(length) > self._max_bytes(scope):
            return self._too_large(scope)
        if self._running[client] >= settings.max_per_client:
            return Problem(
                429,
                f"client must have at most {settings.max_per_client} requests running, got more",
            )
        if self._running.total() >= settings.max_requests:
            return Problem(503, "service must have room, got too many requests; try again")
        return None

    def _max_bytes(self, scope: Scope) -> int:
        is_upload = scope["method"] == "POST"
        return self._settings.max_bytes + _FORM_BYTES if is_upload else _MAX_PLAIN_BYTES

    def _too_large(self, scope: Scope) -> Problem:
        limit = min(self._settings.max_bytes, self._max_bytes(scope))
        return Problem(413, f"photo must have at most {limit} bytes, got more")

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The app with a clock: for the body, then for the work, then for the reader."""
        settings, loop = self._settings, asyncio.get_running_loop()
        body_end = loop.time() + settings.upload_seconds
        num_bytes, has_body, is_started = 0, _has_body(scope), False

        async def bounded_receive() -> Message:
            nonlocal num_bytes, has_body
            if has_body:
                clock.reschedule(min(body_end, loop.time() + settings.stall_seconds))
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > self._max_bytes(scope):
                clock.reschedule(loop.time() + 2 * _DRAIN_SECONDS)
                await _drain(receive)
                raise self._too_large(scope)
            if has_body and not message.get("more_body", False):
                has_body = False
                clock.reschedule(loop.time() + settings.timeout)
            return message

        async def bounded_send(message: Message) -> None:
            nonlocal is_started
            if message["type"] == "http.response.start":
                is_started = True
                if has_body:
                    MutableHeaders(scope=message)["Connection"] = "close"
            clock.reschedule(loop.time() + settings.timeout)
            await send(message)

        try:
            async with asyncio.timeout_at(loop.time() + settings.timeout) as clock:
                await self._app(scope, bounded_receive, bounded_send)
        except TimeoutError:
            if not clock.expired():
                raise
            if is_started:
                return  # the reader has stalled: the server ends the connection
            late = (
                Problem(408, "request must arrive in time, got a body that stalled", _CLOSE)
                if has_body
                else Problem(503, f"answer must take at most {settings.timeout:g} s, got more work")
            )
            await problem_response(late.status_code, late.detail, late.headers)(
                scope, receive, send
            )


_CLOSE = {"Connection": "close"}


async def refuse(problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer without the app; what the client still sends is thrown away for a moment."""
    headers = dict(problem.headers or {})
    if _has_body(scope):
        headers |= _CLOSE
    if _has_body(scope) and "expect" not in Headers(scope=scope):  # it waits for our word
        await _drain(receive)
    await problem_response(problem.status_code, problem.detail, headers)(scope, receive, send)


async def _drain(receive: Receive) -> None:
    """Throw away what a client sends: ended at once, it would not read our answer."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_SECONDS):
            while (await receive()).get("more_body", False):
                pass


def _has_body(scope: Scope) -> bool:
    headers = Headers(scope=scope)
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


def _host_name(host: str) -> str:
    """The name in a Host header, without port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()
