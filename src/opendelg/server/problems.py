"""One shape for everything that goes wrong: ``{"error": {"status": 400, "message": "..."}}``."""

import json
import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import Response

from opendelg.errors import ImageError, ImageTooLargeError, UnavailableError

logger = logging.getLogger(__name__)

RETRY_SECONDS = 2
# Starlette's own words for what no route of ours raises.
_WORDS = {
    404: "route must be one of /openapi.json, got another",
    405: "method must be one that this route has, got another",
}


class JsonResponse(Response):
    """JSON in ASCII: bytes of file names that are no UTF-8 become escapes."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The body."""
        text = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
        return text.encode("ascii")


class Problem(HTTPException):
    """A request that is refused, with the reason."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, message, {**(headers or {}), **_retry(status)})


def problem_response(
    status: int, message: str, headers: Mapping[str, str] | None = None
) -> JsonResponse:
    """The answer to a request that failed."""
    body = {"error": {"status": status, "message": message}}
    return JsonResponse(body, status, headers={**_retry(status), **(headers or {})})


def handle_problems(app: FastAPI) -> None:
    """Give every failure inside an app the one shape."""

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, StarletteHTTPException)
        message = error.detail
        if not isinstance(error, Problem):
            message = _WORDS.get(error.status_code, message)
        return problem_response(error.status_code, message, error.headers)

    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        faults = [f"{fault['loc'][-1]}: {fault['msg'].lower()}" for fault in error.errors()]
        return problem_response(400, f"parameters must be valid, got {'; '.join(faults)}")

    async def bad_image(_: Request, error: Exception) -> Response:
        status = 413 if isinstance(error, ImageTooLargeError) else 400
        return problem_response(status, str(error))

    async def unavailable(_: Request, error: Exception) -> Response:
        return problem_response(503, str(error))

    async def failed(_: Request, error: Exception) -> Response:
        return problem_response(500, "internal error")  # the log has the rest

    app.add_exception_handler(StarletteHTTPException, refused)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(ImageError, bad_image)
    app.add_exception_handler(UnavailableError, unavailable)
    app.add_exception_handler(Exception, failed)


def _retry(status: int) -> dict[str, str]:
    return {"Retry-After": str(RETRY_SECONDS)} if status in (429, 503) else {}
