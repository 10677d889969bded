"""A client of `delg serve` on the standard library alone.

    with Client("http://127.0.0.1:8000") as client:
        answer = client.search(Path("query.jpg"))
        for result in answer.results:
            print(result.rank, result.same, result.path)

Importing it loads nothing heavy.  Sizes, boxes and points are those of `delg search --json`.
"""

import http.client
import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeVar
from urllib.parse import quote, urlencode, urlsplit

from opendelg.errors import OpenDelgError

T = TypeVar("T")
Box = tuple[float, float, float, float]
Points = list[list[float]]


class ServiceError(OpenDelgError):
    """The service refused a request, with its reason."""

    def __init__(self, status: int, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after  # s; None: trying again as it is will not help


@dataclass(frozen=True)
class Query:
    """What was searched with."""

    token: str  # to search again with, and to ask for evidence
    path: str
    id: int | None  # of an image of the collection
    size: list[int]  # [width, height] px
    box: list[float] | None
    num_keypoints: int


@dataclass(frozen=True)
class Result:
    """One result."""

    rank: int
    id: int
    path: str  # on the machine of the service
    size: list[int]
    similarity: float
    num_matches: int
    num_inliers: int
    same: float | None  # probability of showing the same thing; None: not rated
    database_from_query: list[list[float]] | None  # (2, 3), query px to database px
    region: dict[str, Points]  # polygons around the inliers, "query" and "database"


@dataclass(frozen=True)
class Answer:
    """The answer to a search."""

    query: Query
    results: list[Result]  # best first
    seconds: dict[str, float]
    complete: bool  # False: the time budget ran out, results are in order of similarity
    confident: float  # least `same` that is called a confident match


@dataclass(frozen=True)
class Image:
    """An image of the collection."""

    id: int
    path: str
    size: list[int]
    num_local: int


class Client:
    """A connection to one service; a context manager, not for several threads at once."""

    def __init__(self, url: str, token: str | None = None, timeout: float = 60.0) -> None:
        """Nothing is sent before the first request.

        Args:
            url: Where the service listens, such as ``http://127.0.0.1:8000``.
            token: What is in the first line of its --token-file.
            timeout: Seconds without a byte after which a request fails with TimeoutError.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or parts.hostname is None:
            raise ValueError(f"url must start with http:// or https:// and a host, got {url!r}")
        kind = (
            http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        )
        self._connection = kind(parts.hostname, parts.port, timeout=timeout)
        self._prefix = parts.path.rstrip("/")
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; the next request makes another."""
        self._connection.close()

    def search(
        self,
        photo: Path | bytes | None = None,
        *,
        id: int | None = None,
        query: str | None = None,
        box: Box | None = None,
        top: int = 20,
        rerank: int = 100,
        seconds: float | None = None,
    ) -> Answer:
        """Find the photos that show the same thing.

        Args:
            photo: A file or its bytes; or
            id: an image of the collection, which the results leave out; or
            query: `Query.token` of an earlier answer.
            box: Part of the photo to search with, px of the upright original.
            top: Number of results.
            rerank: Candidates that are verified; 0: none.
            seconds: Time budget for the service.

        Raises:
            ServiceError: If the service refuses.
        """
        values: dict[str, object] = {"id": id, "query": query, "top": top, "rerank": rerank}
        values |= {"seconds": seconds, "box": None if box is None else ",".join(map(repr, box))}
        answer = self._json("POST", "/v1/search", *_form(photo, values))
        answer["query"] = _read(Query, answer["query"])
        answer["results"] = [_read(Result, result) for result in answer["results"]]
        return _read(Answer, answer)

    def evidence(self, query: str, id: int) -> dict[str, Any]:
        """Why an image was found for a query: see docs/http.md."""
        evidence: dict[str, Any] = self._json("GET", f"/v1/evidence/{quote(query)}/{id}")
        return evidence

    def evidence_page(self, query: str, id: int | None = None) -> bytes:
        """The page of evidence of one pair, or of the whole search."""
        if id is None:
            return self._request("GET", f"/v1/evidence/{quote(query)}")
        return self._request("GET", f"/v1/evidence/{quote(query)}/{id}?format=html")

    def images(self, page_size: int = 1000) -> Iterator[Image]:
        """All images of the collection, in order of id."""
        after: int | None = 0
        while after is not None:
            parameters = urlencode({"after": after, "limit": page_size})
            page = self._json("GET", f"/v1/images?{parameters}")
            yield from (_read(Image, image) for image in page["images"])
            after = page["next"]

    def photo(self, id: int, format: Literal["original", "jpeg"] = "original") -> bytes:
        """The photo of an image: the file, or an upright JPEG of it."""
        return self._request("GET", f"/v1/images/{id}?format={format}")

    def thumbnail(self, id: int, size: int = 320) -> bytes:
        """A JPEG of an image, its longer side at most ``size`` px."""
        return self._request("GET", f"/v1/images/{id}/thumbnail?size={size}")

    def add(self, photo: Path | bytes, name: str | None = None) -> Image:
        """Add a photo, under a name of its own; repeating it changes nothing."""
        return _read(Image, self._json("POST", "/v1/images", *_form(photo, {}, name)))

    def remove(self, id: int) -> None:
        """Remove an image."""
        self._request("DELETE", f"/v1/images/{id}")

    def collection(self) -> dict[str, Any]:
        """What is served: see docs/http.md."""
        collection: dict[str, Any] = self._json("GET", "/v1/collection")
        return collection

    def _json(
        self, method: str, path: str, body: bytes | None = None, content_type: str = ""
    ) -> Any:
        return json.loads(self._request(method, path, body, content_type))

    def _request(
        self, method: str, path: str, body: bytes | None = None, content_type: str = ""
    ) -> bytes:
        headers = self._headers | ({"Content-Type": content_type} if content_type else {})
        was_open = self._connection.sock is not None
        try:
            try:
                response = self._exchange(method, path, body, headers)
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                if not was_open:
                    raise
                # The service has ended an idle connection.  Nothing is done twice: searching
                # changes nothing, adding the same photo finds it, removing says it is gone.
                self.close()
                response = self._exchange(method, path, body, headers)
            content = response.read()
        except BaseException:
            self.close()  # half a request or answer may be on its way
            raise
        if response.status >= 400:
            raise _error(response, content)
        return content

    def _exchange(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> http.client.HTTPResponse:
        try:
            self._connection.request(method, self._prefix + path, body, dict(headers))
        except (BrokenPipeError, ConnectionResetError):
            # A photo that is too large is refused before it is read: the reason may be there.
            try:
                return self._connection.getresponse()
            except (OSError, http.client.HTTPException):
                pass
            raise
        return self._connection.getresponse()


def _form(
    photo: Path | bytes | None, values: Mapping[str, object], name: str | None = None
) -> tuple[bytes, str]:
    """A multipart body and its content type."""
    boundary = secrets.token_hex(16)
    start = f'--{boundary}\r\nContent-Disposition: form-data; name="'
    parts = [
        f'{start}{field}"\r\n\r\n{value}\r\n'.encode()
        for field, value in values.items()
        if value is not None
    ]
    if photo is not None:
        content = photo if isinstance(photo, bytes) else photo.read_bytes()
        shown = name or ("photo" if isinstance(photo, bytes) else photo.name)
        plain = shown.encode("utf-8", "replace").decode().replace('"', "%22")
        plain = plain.replace("\r", "%0D").replace("\n", "%0A")
        head = f'{start}file"; filename="{plain}"\r\nContent-Type: application/octet-stream\r\n\r\n'
        parts.append(head.encode() + content + b"\r\n")
    return b"".join(
        [*parts, f"--{boundary}--\r\n".encode()]
    ), f"multipart/form-data; boundary={boundary}"


def _read(kind: type[T], values: Mapping[str, Any]) -> T:
    """A record; keys that a newer service adds are left out."""
    return kind(**{field.name: values[field.name] for field in fields(kind)})  # type: ignore[arg-type]


def _error(response: http.client.HTTPResponse, content: bytes) -> ServiceError:
    try:
        message = str(json.loads(content)["error"]["message"])
    except (ValueError, KeyError, TypeError):  # a proxy's own words
        message = f"service must answer as documented, got status {response.status}"
    retry_after = response.headers.get("Retry-After", "")
    seconds = float(retry_after) if retry_after.isdecimal() else None
    return ServiceError(response.status, message, seconds)
