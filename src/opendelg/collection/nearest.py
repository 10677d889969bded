"""Nearest neighbours by global descriptor: an exact faiss index, derived from the catalogue.

The file is a faiss index followed by a fixed trailer: the stamp, which says what state of the
catalogue the index was made from, and a checksum of everything before.  A missing, stale or
damaged file costs time, never a wrong answer: `load` returns None and the caller rebuilds.

faiss alone would break ties by position and round similarities differently from position to
position, so the best candidates are measured again in float64 and sorted by (similarity, id).
"""

import logging
import os
import struct
import uuid
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

_log = logging.getLogger(__name__)

_TRAILER = struct.Struct("<8s32sqqqIqI")  # magic, stamp, bytes of faiss, crc32 of all before
_MAGIC = b"DELGNN01"
_BLOCK = 1 << 24  # bytes read at a time
_SPARE = 16  # candidates beyond k, so that ties and rounding at the end are seen
_ROUNDING = 1e-5  # similarity; more than float32 sums of unit vectors can be off


@dataclass(frozen=True)
class Stamp:
    """A state of the catalogue."""

    identity: str  # 32 hex digits of the collection
    revision: int
    count: int  # images
    last_id: int  # greatest id, 0 without images
    last_checksum: int  # crc32 of that image's descriptor, 0 without images


class NearestIndex:
    """Global descriptors in order of id, searched exhaustively by inner product."""

    def __init__(self, num_dimensions: int) -> None:
        faiss = _faiss()
        self._index: Any = faiss.IndexIDMap(faiss.IndexFlatIP(num_dimensions))
        self._ids = np.zeros(0, np.int64)

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def num_dimensions(self) -> int:
        """Length of a descriptor."""
        return int(self._index.d)

    @property
    def ids(self) -> np.ndarray:
        """(N,) int64, ascending."""
        return self._ids

    def descriptors(self) -> np.ndarray:
        """(N, D) float32 in order of id: a view, not to be kept while the index grows."""
        faiss = _faiss()
        flat = faiss.downcast_index(self._index.index)
        if len(self) == 0:
            return np.zeros((0, self.num_dimensions), np.float32)
        rows: np.ndarray = faiss.rev_swig_ptr(flat.get_xb(), len(self) * self.num_dimensions)
        return rows.reshape(len(self), self.num_dimensions)

    def extend(self, ids: np.ndarray, descriptors: np.ndarray) -> None:
        """Appends descriptors (K, D) float32 with ids (K,) int64 above all ids so far."""
        self._index.add_with_ids(np.ascontiguousarray(descriptors, np.float32), ids)
        self._ids = np.concatenate([self._ids, ids])

    def search(self, query_descriptor: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The K = min(k, N) most similar images.

        Args:
            query_descriptor: (D,) float32, unit length.
            k: Number of images wanted.

        Returns:
            ids (K,) int64 and similarities (K,) float32: most similar first, ties by id.
        """
        k = min(k, len(self))
        if k <= 0:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        rows = self.descriptors()
        num_candidates = min(len(self), k + _SPARE)
        while True:
            rough, positions = self._index.index.search(query_descriptor[None], num_candidates)
            candidates = positions[0]
            ids, similarities = measured(self._ids[candidates], rows[candidates], query_descriptor)
            # Whatever faiss left out is no better than its last candidate.
            if num_candidates == len(self) or rough[0, -1] < similarities[k - 1] - _ROUNDING:
                return ids[:k], similarities[:k]
            num_candidates = min(len(self), 4 * num_candidates)

    def save(self, path: Path, stamp: Stamp) -> bool:
        """Writes the index to `path` at once; whether that was possible (it need not be)."""
        faiss = _faiss()
        draft = path.with_name(f"{path.name}.{uuid.uuid4().hex}.new")
        try:
            with draft.open("xb") as file:
                sink = _Checksummed(file)
                faiss.write_index(self._index, faiss.PyCallbackIOWriter(sink.write, _BLOCK))
                if sink.error is not None:
                    raise sink.error
                file.write(_pack_trailer(stamp, sink.num_bytes, sink.checksum))
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        except OSError as error:
            _log.info("index stays in memory, %s cannot be written: %s", path, error)
            _discard(draft)
            return False
        except BaseException:
            _discard(draft)
            raise
        return True

    @classmethod
    def load(cls, path: Path) -> "tuple[NearestIndex, Stamp] | None":
        """The index at `path` and its stamp; None if it is missing, unreadable or damaged."""
        faiss = _faiss()
        try:
            with path.open("rb") as file:
                stamp = _read_stamp(file)
                if stamp is None:
                    _log.info("index %s is damaged", path)
                    return None
                file.seek(0)
                index = faiss.read_index(faiss.PyCallbackIOReader(file.read, _BLOCK))
        except FileNotFoundError:
            _log.info("there is no index %s yet", path)
            return None
        except (OSError, RuntimeError) as error:
            _log.info("index %s cannot be read: %s", path, error)
            return None
        if not isinstance(index, faiss.IndexIDMap) or index.ntotal != stamp.count:
            return None
        loaded = cls.__new__(cls)
        loaded._index = index
        loaded._ids = faiss.vector_to_array(index.id_map)
        return loaded, stamp


def exact_similarities(descriptors: np.ndarray, query_descriptor: np.ndarray) -> np.ndarray:
    """Dot products (K,) float32 of descriptors (K, D) with a query (D,), rounded once."""
    products = descriptors.astype(np.float64) * query_descriptor.astype(np.float64)
    similarities: np.ndarray = products.sum(axis=1).astype(np.float32)
    return similarities


def measured(
    ids: np.ndarray, rows: np.ndarray, query_descriptor: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Ids (K,) by exact similarity (K,) float32 of rows (K, D), best first, ties by id."""
    similarities = exact_similarities(rows, query_descriptor)
    order = np.lexsort((ids, -similarities))
    return ids[order], similarities[order]


def _faiss() -> Any:
    """The faiss module, imported when it is first needed: that takes 0.3 s."""
    import faiss

    return faiss


def remove_drafts(path: Path) -> None:
    """Removes what interrupted `save` calls left beside `path`."""
    for draft in path.parent.glob(f"{path.name}.*.new"):
        _discard(draft)


class _Checksummed:
    """Passes bytes on to a file and sums them up; keeps an error, which faiss would hide."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.num_bytes = 0
        self.checksum = 0
        self.error: OSError | None = None

    def write(self, block: bytes) -> None:
        if self.error is not None:
            return
        try:
            self._file.write(block)
        except OSError as error:
            self.error = error
        self.num_bytes += len(block)
        self.checksum = zlib.crc32(block, self.checksum)


def _pack_trailer(stamp: Stamp, num_bytes: int, checksum: int) -> bytes:
    fields = (
        _MAGIC,
        stamp.identity.encode("ascii"),
        stamp.revision,
        stamp.count,
        stamp.last_id,
        stamp.last_checksum,
        num_bytes,
    )
    start = _TRAILER.pack(*fields, 0)[:-4]
    return start + struct.pack("<I", zlib.crc32(start, checksum))


def _read_stamp(file: BinaryIO) -> Stamp | None:
    """The stamp at the end of a file whose checksum holds, else None."""
    size = file.seek(0, os.SEEK_END)
    if size < _TRAILER.size:
        return None
    file.seek(size - _TRAILER.size)
    trailer = file.read(_TRAILER.size)
    magic, identity, revision, count, last_id, last_checksum, num_bytes, found = _TRAILER.unpack(
        trailer
    )
    if magic != _MAGIC or num_bytes != size - _TRAILER.size:
        return None
    file.seek(0)
    checksum = 0
    for start in range(0, num_bytes, _BLOCK):
        checksum = zlib.crc32(file.read(min(_BLOCK, num_bytes - start)), checksum)
    if zlib.crc32(trailer[:-4], checksum) != found:
        return None
    return Stamp(identity.decode("ascii"), revision, count, last_id, last_checksum)


def _discard(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        _log.info("%s cannot be removed: %s", path, error)
