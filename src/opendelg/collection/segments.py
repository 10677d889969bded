"""Segments: runs of global descriptors that were set aside once, searched by codes.

A segment is one file that is never changed: the descriptors, which stay on the disk and are read
where they are needed, their ids, and their codes, which are read into memory.  It begins after
the last id of the segment before it.  Images that were removed or changed since are left out of
its answers; the file itself follows when too many are.

    descriptors (N, D) float32; ids (N,) int64; codes (bytes of faiss); trailer
"""

import logging
import mmap
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from opendelg.collection.codes import Codes, measured_candidates
from opendelg.whole_files import replacing

_log = logging.getLogger(__name__)

_TRAILER = struct.Struct("<8s32sqqqqqqIII")
_MAGIC = b"DELGSG01"
_BLOCK = 1 << 24  # bytes read at a time
EXHAUSTIVE = -1  # candidates, where codes do not serve: every descriptor is read


@dataclass(frozen=True)
class SegmentStamp:
    """What state of which catalogue a segment was made from."""

    identity: str  # 32 hex digits of the collection
    revision: int
    after_id: int  # last id of the segment before, 0 for the first
    last_checksum: int  # crc32 of the last image's descriptor


class Segment:
    """One segment that is open; its descriptors are mapped, not read."""

    def __init__(
        self,
        path: Path,
        stamp: SegmentStamp,
        ids: np.ndarray,
        descriptors: np.ndarray,
        codes: Codes,
        num_candidates: int,
    ) -> None:
        """Use `open_segment`."""
        self.path = path
        self.stamp = stamp
        self.ids = ids  # (N,) int64, ascending
        self.descriptors = descriptors  # (N, D) float32, mapped
        self.codes = codes
        self.num_candidates = num_candidates  # for the 100 nearest, or EXHAUSTIVE

    @property
    def last_id(self) -> int:
        """The greatest id."""
        return int(self.ids[-1])

    def candidates(
        self, query_descriptor: np.ndarray, k: int, turned: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Positions (K,) int64 and estimated similarities (K,) float32 of the min(k, N) best.

        `turned` is as for `Codes.search`.
        """
        if self.num_candidates != EXHAUSTIVE:
            return self.codes.search(query_descriptor, k, turned)
        similarities = self.descriptors @ query_descriptor
        best = np.argsort(-similarities, kind="stable")[:k]
        return best, similarities[best]


def write_segment(
    folder: Path, stamp: SegmentStamp, ids: np.ndarray, descriptors: np.ndarray
) -> Path:
    """Set descriptors aside in a file of their own.

    Args:
        folder: Of the collection.
        stamp: What they come from.
        ids: (N,) int64, ascending, N at least 1.
        descriptors: (N, D) float32 of these images.

    Raises:
        OSError: If the file cannot be written.
    """
    codes = Codes.encode(descriptors)
    num_candidates = measured_candidates(codes, descriptors)
    if num_candidates is None:
        _log.warning("descriptors are searched one by one: their codes do not find the nearest")
    path = folder / f"nearest-{stamp.after_id}-{int(ids[-1])}-{stamp.revision}.segment"
    rows = np.ascontiguousarray(descriptors, "<f4")
    head = np.ascontiguousarray(ids, "<i8").tobytes()
    content = codes.to_bytes()
    fields = (
        _MAGIC,
        stamp.identity.encode("ascii"),
        stamp.revision,
        stamp.after_id,
        len(ids),
        descriptors.shape[1],
        len(content),
        EXHAUSTIVE if num_candidates is None else num_candidates,
        stamp.last_checksum,
        zlib.crc32(rows.data),
        zlib.crc32(content, zlib.crc32(head)),
    )
    trailer = _TRAILER.pack(*fields)
    with replacing(path) as part, part.open("xb") as file:
        file.write(rows.data)
        file.write(head)
        file.write(content)
        file.write(trailer + struct.pack("<I", zlib.crc32(trailer)))
        file.flush()
        os.fsync(file.fileno())
    return path


def open_segment(path: Path) -> Segment | None:
    """The segment in a file; None if it is damaged, apart from its descriptors, or none."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END) - _TRAILER.size - 4
            if end < 0:
                raise ValueError("too short")
            file.seek(end)
            trailer, checksum = file.read(_TRAILER.size), file.read(4)
            if zlib.crc32(trailer) != struct.unpack("<I", checksum)[0]:
                raise ValueError("damaged trailer")
            magic, identity, revision, after_id, count, dimensions, size, candidates, *sums = (
                _TRAILER.unpack(trailer)
            )
            start = 4 * count * dimensions
            if magic != _MAGIC or count < 1 or dimensions < 1 or start + 8 * count + size != end:
                raise ValueError("other content")
            file.seek(start)
            head, content = file.read(8 * count), file.read(size)
            if zlib.crc32(content, zlib.crc32(head)) != sums[2]:
                raise ValueError("damaged ids or codes")
            mapped = mmap.mmap(file.fileno(), start, access=mmap.ACCESS_READ)
            if candidates != EXHAUSTIVE and hasattr(mmap, "MADV_RANDOM"):
                # A few rows here and there: reading ahead of each would take ten times as long.
                mapped.madvise(mmap.MADV_RANDOM)
        codes = Codes.from_bytes(content, dimensions)
        ids = np.frombuffer(head, "<i8")
        if len(codes) != count or np.any(np.diff(ids, prepend=after_id) < 1):
            raise ValueError("ids and codes do not fit")
    except (OSError, ValueError) as error:
        _log.info("segment %s is not used: %s", path, error)
        return None
    stamp = SegmentStamp(identity.decode("ascii", "replace"), revision, after_id, sums[0])
    descriptors = np.frombuffer(mapped, "<f4").reshape(count, dimensions)
    return Segment(path, stamp, ids, descriptors, codes, candidates)


def segment_problems(path: Path) -> Iterator[str]:
    """What is wrong with a segment, everything read; nothing if it is sound."""
    segment = open_segment(path)
    if segment is None:
        yield f"{path.name} is damaged"
        return
    with path.open("rb") as file:
        file.seek(-_TRAILER.size - 4, os.SEEK_END)
        expected = _TRAILER.unpack(file.read(_TRAILER.size))[-2]
        file.seek(0)
        left, checksum = segment.descriptors.nbytes, 0
        while left > 0:
            block = file.read(min(_BLOCK, left))
            checksum = zlib.crc32(block, checksum)
            left -= len(block)
    if checksum != expected:
        yield f"descriptors in {path.name} are damaged"
