"""The page's own files, read once: nothing else can be reached under their addresses."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable

from fastapi import APIRouter, Request
from starlette.responses import Response

from opendelg.server.problems import Problem

_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "json": "application/json",
    "webmanifest": "application/manifest+json",
    "svg": "image/svg+xml",
    "png": "image/png",
    "ico": "image/x-icon",
    "woff2": "font/woff2",
    "txt": "text/plain; charset=utf-8",
}


@dataclass(frozen=True)
class _PageFile:
    content: bytes
    content_type: str
    etag: str


def page_router() -> APIRouter:
    """The routes of the page: ``/`` and ``/page/NAME``."""
    found = {name: _read(file) for name, file in _below(files("opendelg.server") / "page", "")}
    router = APIRouter(redirect_slashes=False, include_in_schema=False)

    @router.get("/")
    async def index(request: Request) -> Response:
        return _answer(found["index.html"], request)

    @router.get("/page/{name:path}")
    async def page_file(request: Request, name: str) -> Response:
        if name not in found:
            raise Problem(404, f"page must have the file, got {name!r}")
        return _answer(found[name], request)

    return router


def _below(folder: Traversable, prefix: str) -> Iterator[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _below(entry, f"{prefix}{entry.name}/")
        elif entry.name.rpartition(".")[2] in _TYPES:
            yield prefix + entry.name, entry


def _read(file: Traversable) -> _PageFile:
    content = file.read_bytes()
    etag = f'"{hashlib.sha256(content).hexdigest()[:20]}"'
    return _PageFile(content, _TYPES[file.name.rpartition(".")[2]], etag)


def _answer(file: _PageFile, request: Request) -> Response:
    headers = {"ETag": file.etag, "Cache-Control": "no-cache", "Content-Type": file.content_type}
    if request.headers.get("if-none-match") == file.etag:
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers=headers)
