"""Fetching one file over HTTP so that no byte comes twice: cut connections are continued.

Next to the target lie, until it is complete, ``<target>.part`` with the bytes so far and
``<target>.part.json`` with the version of the file that they belong to.  A part is continued only
if the server still has that version; else the download starts afresh.

urllib serves: connections, redirects, proxies and certificates are its part.  What is left
(resuming, versions, limits) httpx and requests leave to their callers as well, and pooch cannot do.
"""

import http.client
import json
import logging
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

from opendelg.errors import WeightsError
from opendelg.whole_files import replacing

_log = logging.getLogger(__name__)

Progress = Callable[[int, int | None], None]  # bytes so far, bytes in all or None if not told

_BLOCK = 1 << 18  # bytes read at a time
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}  # statuses that may be gone in a while


@dataclass(frozen=True)
class FetchSettings:
    """How patient a download is, and how much it takes."""

    timeout: float = 30.0  # s without a byte
    attempts: int = 6  # connections in a row that bring nothing new
    first_wait: float = 1.0  # s before the second of them; each further wait is twice as long
    max_bytes: int = 2 * 2**30  # the official archives are far smaller


def fetch(
    url: str, target: Path, settings: FetchSettings | None = None, progress: Progress | None = None
) -> None:
    """Fetch a file, going on from what an earlier call left of it; the target appears at once.

    Args:
        url: Begins with http:// or https://.
        target: File to write; its folder exists, and no other process fetches it now.
        settings: Patience and limits.
        progress: Called with each block of bytes.

    Raises:
        WeightsError: If the server cannot be reached, has no such file, cuts the connection
            again and again, or sends too much.  The part that arrived is kept.
        OSError: If the disk is full or the folder cannot be written.  The part is kept, too.
    """
    settings = settings or FetchSettings()
    if not url.startswith(("http://", "https://")):
        raise WeightsError(f"url must start with http:// or https://, got {url!r}")
    part = _Part(target)
    furthest, failures, was_reached = part.size, 0, False
    while True:
        try:
            _receive(url, part, settings, progress)
            break
        except _CutError as cut:
            if part.size > furthest:
                furthest, failures = part.size, 0
            failures += 1
            was_reached |= cut.was_reached
            # Who was never reached is not waited for: most likely there is no network at all.
            if failures >= settings.attempts or not was_reached:
                raise WeightsError(_why(url, cut, part)) from cut
            wait = settings.first_wait * 2 ** (failures - 1)
            _log.info("%s: %s; next try in %.0f s", url, cut, wait)
        time.sleep(wait)
    part.finish()


def write_at_once(path: Path, text: str) -> None:
    """Write a small file: whoever looks sees all of it or nothing."""
    with replacing(path) as draft:
        draft.write_text(text)


class _CutError(Exception):
    """The connection failed in a way that may not happen again."""

    def __init__(self, reason: object, was_reached: bool = True) -> None:
        super().__init__(str(reason) or type(reason).__name__)
        self.was_reached = was_reached


@dataclass(frozen=True)
class _Version:
    """Which state of a file some bytes belong to; None where the server does not tell."""

    url: str
    etag: str | None
    last_modified: str | None
    length: int | None  # bytes of the whole file

    def is_other(self, later: "_Version") -> bool:
        """Whether a later answer is about another state, in what both tell."""
        return any(
            None not in (mine, theirs) and mine != theirs
            for mine, theirs in zip(asdict(self).values(), asdict(later).values(), strict=True)
        )

    @property
    def condition(self) -> str | None:
        """For If-Range, which takes no weak tags."""
        is_strong = self.etag is not None and not self.etag.startswith("W/")
        return self.etag if is_strong else self.last_modified


class _Part:
    """The bytes so far of a file, and the version that they belong to."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(target.name + ".part")
        self._state = target.with_name(target.name + ".part.json")
        self.version = self._read_version()
        if self.version is None:
            self.path.unlink(missing_ok=True)  # bytes of no known file

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    def restart(self, version: _Version | None) -> None:
        """Drop the bytes; those that follow belong to this version."""
        # In this order, so that a kill in between never joins bytes to another version.
        self.path.unlink(missing_ok=True)
        self.version = version
        if version is None:
            self._state.unlink(missing_ok=True)
            return
        write_at_once(self._state, json.dumps(asdict(version)))

    def finish(self) -> None:
        """Give the complete file its name."""
        with self.path.open("ab") as file:
            os.fsync(file.fileno())
        self.path.replace(self.target)
        self._state.unlink(missing_ok=True)

    def _read_version(self) -> _Version | None:
        try:
            return _Version(**json.loads(self._state.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None


def _receive(url: str, part: _Part, settings: FetchSettings, progress: Progress | None) -> None:
    """Bring the part to its end over one connection.

    Raises:
        _CutError: If that did not succeed and another try may.
    """
    if part.version is not None and part.version.url != url:
        part.restart(None)
    if part.version is not None and part.size == part.version.length:
        return  # it was killed between the last byte and the new name
    with _opened(url, part, settings.timeout) as response:
        _begin(url, part, response)
        assert part.version is not None
        length = part.version.length
        if length is not None and length > settings.max_bytes:
            raise _too_much(url, part, settings.max_bytes, length)
        limit = settings.max_bytes if length is None else length
        size = part.size
        with part.path.open("ab", buffering=0) as file:
            while True:
                if progress is not None:
                    progress(size, length)
                block = _read(response)
                if not block:
                    break
                _append(file, block)
                size += len(block)
                if size > limit:
                    raise _too_much(url, part, limit, size)
    if length is not None and size < length:
        raise _CutError(f"end of data after {size} of {length} bytes")


@contextmanager
def _opened(url: str, part: _Part, timeout: float) -> Iterator[Any]:
    """The response to a request for what the part lacks."""
    try:
        request = urllib.request.Request(
            url, headers={"User-Agent": "opendelg", "Accept-Encoding": "identity"}
        )
    except ValueError as error:
        raise WeightsError(f"url must be a web address, got {url!r} ({error})") from error
    if part.version is not None and part.size > 0:
        request.add_header("Range", f"bytes={part.size}-")
        if part.version.condition is not None:
            request.add_header("If-Range", part.version.condition)
    opener = urllib.request.build_opener(_SafeRedirects)
    try:
        response = opener.open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        with error:
            said = f"HTTP {error.code} {error.reason}"
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.restart(None)  # the file has become shorter
        elif error.code not in _TRANSIENT:
            raise WeightsError(
                f"url must lead to a file, got {said!r} from {url!r}; {_by_hand(part)}"
            ) from error
        raise _CutError(said) from error
    except (ValueError, http.client.InvalidURL) as error:
        raise WeightsError(f"url must be a web address, got {url!r} ({error})") from error
    except urllib.error.URLError as error:
        raise _CutError(error.reason, was_reached=False) from error
    except (OSError, http.client.HTTPException) as error:
        raise _CutError(error) from error
    with response:
        yield response


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from https to a connection that others can change."""

    def redirect_request(
        self, req: Any, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if req.type == "https" and not newurl.startswith("https://"):
            raise urllib.error.HTTPError(newurl, code, "redirect to plain http", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _begin(url: str, part: _Part, response: Any) -> None:
    """Settle whether the response continues the part or starts it afresh."""
    headers = response.headers
    tags = headers.get("ETag"), headers.get("Last-Modified")
    if response.status != http.client.PARTIAL_CONTENT:
        part.restart(_Version(url, *tags, _number(headers.get("Content-Length"))))
        return
    told = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range") or "")
    version = _Version(url, *tags, _number(told[2]) if told else None)
    if part.version is None or not told or int(told[1]) != part.size:
        part.restart(None)
        raise _CutError(f"another range than asked, {headers.get('Content-Range')!r}")
    if part.version.is_other(version):
        part.restart(None)
        raise _CutError("the file has changed")
    if part.version.length is None:
        part.version = replace(part.version, length=version.length)


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


def _read(response: Any) -> bytes:
    """What has arrived, b"" at the end; whatever fails here is the network."""
    try:
        return bytes(response.read1(_BLOCK))
    except (OSError, http.client.HTTPException) as error:
        raise _CutError(error) from error


def _append(file: IO[bytes], block: bytes) -> None:
    """Write all of a block to an unbuffered file: on a full disk, as much as fits."""
    rest = memoryview(block)
    while rest:
        rest = rest[file.write(rest) :]


def _why(url: str, cut: _CutError, part: _Part) -> str:
    """Tell that no more tries are made, and what a user can do."""
    rule = "send the file to its end" if cut.was_reached else "be reachable"
    kept = f"the {part.size} bytes so far are kept for the next try; " if part.size > 0 else ""
    return f"server must {rule}, got {str(cut)!r} from {url!r}; {kept}{_by_hand(part)}"


def _too_much(url: str, part: _Part, limit: int, size: int) -> WeightsError:
    """The error for more data than there may be, which is dropped."""
    part.restart(None)
    return WeightsError(
        f"download must have at most {limit} bytes, got {size} or more from {url!r}; "
        f"the server or a proxy sends something else; {_by_hand(part)}"
    )


def _by_hand(part: _Part) -> str:
    return f"you can copy {part.target.name!r} into {str(part.target.parent)!r} yourself"
