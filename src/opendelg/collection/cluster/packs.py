"""Local features of many images in objects that never change.

An object, a pack, is records without gaps, and is named after the SHA-256 of its content: writing
the same images twice writes the same object, and what was read of one may be kept for ever.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from opendelg.collection.cluster.objects import MAX_CONNECTIONS, Objects

FOLDER = "packs/"  # below the collection's prefix
PACK_BYTES = 16 << 20  # reached by about 110 images of 1000 features in int8
CACHE_BYTES = 256 << 20  # of records in memory
_GAP_BYTES = 256 << 10  # read along rather than asked for again


class Position(NamedTuple):
    """Where a record is."""

    pack: str  # SHA-256 in hex
    offset: int  # bytes
    num_bytes: int


class FeaturePacks:
    """The packs of one collection; threads may share it."""

    def __init__(self, objects: Objects, cache_bytes: int = CACHE_BYTES) -> None:
        self._objects = objects
        self._pool = ThreadPoolExecutor(MAX_CONNECTIONS // 2, "packs")
        self._cache = _Cache(cache_bytes)

    def close(self) -> None:
        """Ends the threads."""
        self._pool.shutdown(cancel_futures=True)

    def write(self, records: Sequence[bytes]) -> list[Position]:
        """Keeps records, in packs of about `PACK_BYTES`; all are there when this returns."""
        positions: list[Position] = []
        packs = []
        for group in _groups(records):
            content = b"".join(group)
            pack = hashlib.sha256(content).hexdigest()
            packs.append((pack, content))
            offset = 0
            for record in group:
                positions.append(Position(pack, offset, len(record)))
                offset += len(record)
        for done in [self._pool.submit(self._objects.put, key(p), c) for p, c in packs]:
            done.result()
        return positions

    def read(self, positions: Sequence[Position]) -> dict[Position, bytes]:
        """The records at these places; those whose pack is not there are left out."""
        found = {p: record for p in positions if (record := self._cache.get(p)) is not None}
        spans = list(_spans([p for p in positions if p not in found]))
        for span, content in zip(spans, self._pool.map(self._read_span, spans), strict=True):
            if content is None:
                continue
            for position in span:
                start = position.offset - span[0].offset
                record = content[start : start + position.num_bytes]
                found[position] = record
                self._cache.put(position, record)
        return found

    def read_whole(self, pack: str) -> bytes | None:
        """A whole pack; None if it is not there."""
        return self._objects.get(key(pack))

    def sizes(self) -> dict[str, int]:
        """Bytes of each pack that is there."""
        return {
            found.key.rpartition("/")[2]: found.num_bytes for found in self._objects.list(FOLDER)
        }

    def delete(self, pack: str) -> None:
        """Removes a pack; it need not be there."""
        self._objects.delete(key(pack))

    def _read_span(self, span: list[Position]) -> bytes | None:
        end = max(position.offset + position.num_bytes for position in span)
        return self._objects.get(key(span[0].pack), span[0].offset, end)


def key(pack: str) -> str:
    """Key of a pack below the collection's prefix; stores spread load by how keys begin."""
    return f"{FOLDER}{pack[:2]}/{pack}"


def _groups(records: Sequence[bytes]) -> Iterator[list[bytes]]:
    group: list[bytes] = []
    size = 0
    for record in records:
        if group and size + len(record) > PACK_BYTES:
            yield group
            group, size = [], 0
        group.append(record)
        size += len(record)
    if group:
        yield group


def _spans(positions: list[Position]) -> Iterator[list[Position]]:
    """Positions that are read together: in one pack, with small gaps between them."""
    span: list[Position] = []
    for position in sorted(set(positions)):
        last = span[-1] if span else position
        gap = position.offset - last.offset - last.num_bytes
        if span and (position.pack != last.pack or gap > _GAP_BYTES):
            yield span
            span = []
        span.append(position)
    if span:
        yield span


class _Cache:
    """The records that were read last, up to a number of bytes."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._records: OrderedDict[Position, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, position: Position) -> bytes | None:
        with self._lock:
            if position in self._records:
                self._records.move_to_end(position)
            return self._records.get(position)

    def put(self, position: Position, record: bytes) -> None:
        with self._lock:
            if position not in self._records:
                self._records[position] = record
                self._num_bytes += len(record)
            while self._num_bytes > self._max_bytes:
                _, dropped = self._records.popitem(last=False)
                self._num_bytes -= len(dropped)
