"""Keeps the nearest-neighbour index in step with the catalogue.

Rows that were added since are appended.  Where there are many they are set aside in segments (see
`segments`), which removals and changes do not touch; the few rows after the last segment are built
anew then.  All files are only caches of this: written when it saves enough, never needed.
"""

import contextlib
import logging
from itertools import islice
from pathlib import Path

import numpy as np

from opendelg.collection.catalogue import Catalogue, State
from opendelg.collection.codes import RECALL_AT, RECALL_TARGET
from opendelg.collection.combined import CombinedIndex, LiveSegment
from opendelg.collection.nearest import NearestIndex, Stamp
from opendelg.collection.segments import (
    EXHAUSTIVE,
    Segment,
    SegmentStamp,
    open_segment,
    write_segment,
)

_log = logging.getLogger(__name__)

SEGMENT_ROWS = 65_536  # set aside together; so many take 57 ms to search one by one
_CHUNK = 4096  # rows added at a time: 32 MiB of 2048 columns
_WORTH_SAVING = 256  # rows; fewer are read from the catalogue in no time
_WORTH_SAVING_SHARE = 1 / 16  # of all rows, so that a growing collection is not saved over and over
_MAX_DEAD_SHARE = 1 / 4  # of a segment's rows, before it is written anew


class CurrentIndex:
    """The index of one open catalogue; used inside its snapshots, which also keep threads apart."""

    def __init__(self, catalogue: Catalogue, path: Path) -> None:
        self._catalogue = catalogue
        self._path = path
        self._held: tuple[NearestIndex, Stamp] | None = None  # the rows after the segments
        self._saved: Stamp | None = None  # of the file, as far as this object has seen
        self._may_save = True
        self._segments: list[Segment] = []
        self._combined: CombinedIndex | None = None
        self._combined_at = -1  # revision

    def forget(self) -> None:
        """Drops the index from memory: the next use starts from the files."""
        self._held, self._segments, self._combined = None, [], None

    def get(self) -> CombinedIndex:
        """The index of the current snapshot, at least one image having been added once."""
        tail, stamp = self._synchronise()
        num_saved = self._saved.count if self._saved is not None else 0
        if len(tail) - num_saved >= max(_WORTH_SAVING, _WORTH_SAVING_SHARE * len(tail)):
            self._write(tail, stamp)
        if self._combined is None or self._combined_at != stamp.revision:
            self._combined = CombinedIndex(self._live(), [self._changed(), tail])
            self._combined_at = stamp.revision
        return self._combined

    def search(self, query_descriptor: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The nearest images of the current snapshot; see `CombinedIndex.search`."""
        return self.get().search(query_descriptor, k)

    def save(self) -> None:
        """Writes what is not up to date and removes what is not used, where that is possible."""
        if self._catalogue.state().global_dimensions is None:
            return
        self._may_save = True
        self._renew_segments()
        tail, stamp = self._synchronise()
        if stamp != self._saved or not self._path.exists():
            self._write(tail, stamp)
        used = {segment.path for segment in self._segments}
        for path in self._path.parent.glob("*.segment"):
            if path not in used:
                with contextlib.suppress(OSError):  # another process may have it open
                    path.unlink()

    def described(self) -> str:
        """How a search of the current snapshot goes, in words; nothing is built for that."""
        state = self._catalogue.state()
        count = self._catalogue.count()
        segments = self._segments or self._open_segments(state)
        if not segments:
            return f"exact, {count} images"
        covered = self._catalogue.count(0, segments[-1].last_id)
        exhaustive = sum(segment.num_candidates == EXHAUSTIVE for segment in segments)
        candidates = max(segment.num_candidates for segment in segments)
        return (
            f"one-bit codes of {covered} images in {len(segments)} segments, the best "
            f"{max(candidates, 0)} measured exactly (recall at {RECALL_AT} of at least "
            f"{RECALL_TARGET}), and {count - covered} images exactly"
            + (f"; {exhaustive} segments read whole, as codes do not serve" if exhaustive else "")
        )

    # -- the rows after the segments ---------------------------------------------------------

    def _write(self, index: NearestIndex, stamp: Stamp) -> None:
        if not self._may_save or self._catalogue.is_writing:
            return
        if index.save(self._path, stamp):
            self._saved = stamp
        else:
            self._may_save = False  # each search would try again otherwise

    def _synchronise(self) -> tuple[NearestIndex, Stamp]:
        state = self._catalogue.state()
        held, self._held = self._held, None  # an error below must not leave half of it
        if held is None or not self._is_extendable(held, state):
            self._segments = self._open_segments(state)
            held = self._load(state)
        index, stamp = held
        if stamp.revision != state.revision:
            index, stamp = self._extend(index, stamp, state)
        self._held = index, stamp
        return self._held

    def _load(self, state: State) -> tuple[NearestIndex, Stamp]:
        """The saved index if it can serve, else an empty one."""
        after = self._after_segments()
        loaded = NearestIndex.load(self._path)
        if loaded is not None and self._is_extendable(loaded, state):
            index, stamp = loaded
            is_whole = len(index) == self._catalogue.count(after, stamp.last_id)
            # One that ends before the segments do was saved before the last of them was written.
            if is_whole and stamp.last_id >= after and (len(index) == 0 or index.ids[0] > after):
                self._saved = stamp
                return loaded
        self._saved = None
        assert state.global_dimensions is not None
        return NearestIndex(state.global_dimensions), Stamp(state.identity, -1, 0, after, 0)

    def _is_extendable(self, held: tuple[NearestIndex, Stamp], state: State) -> bool:
        """Whether the index lacks later rows at most."""
        index, stamp = held
        if stamp.identity != state.identity or index.num_dimensions != state.global_dimensions:
            return False
        if not state.rewritten_at <= stamp.revision <= state.revision:
            return False
        # An older copy of the catalogue, put back and continued, may reach the same revision.
        last_checksum = self._catalogue.descriptor_checksum(stamp.last_id) or 0
        return last_checksum == stamp.last_checksum

    def _extend(
        self, index: NearestIndex, stamp: Stamp, state: State
    ) -> tuple[NearestIndex, Stamp]:
        """Appends the rows after the last one; the index and its stamp then."""
        last_id, last_checksum = stamp.last_id, stamp.last_checksum
        rows = self._catalogue.descriptors_after(last_id)
        while chunk := list(islice(rows, _CHUNK)):
            ids = np.array([image_id for image_id, _, _ in chunk], np.int64)
            index.extend(ids, np.stack([descriptor for _, _, descriptor in chunk]))
            last_id, last_checksum, _ = chunk[-1]
            if len(index) >= SEGMENT_ROWS and self._set_aside(index, last_checksum, state):
                index = NearestIndex(index.num_dimensions)
        return index, Stamp(state.identity, state.revision, len(index), last_id, last_checksum)

    # -- segments ----------------------------------------------------------------------------

    def _after_segments(self) -> int:
        return self._segments[-1].last_id if self._segments else 0

    def _set_aside(self, index: NearestIndex, last_checksum: int, state: State) -> bool:
        """Make a segment of all rows after the last one; whether that was possible."""
        if not self._may_save or self._catalogue.is_writing:
            return False
        stamp = SegmentStamp(state.identity, state.revision, self._after_segments(), last_checksum)
        segment = self._written(stamp, index.ids, index.descriptors())
        if segment is None:
            return False
        self._segments.append(segment)
        _log.info("descriptors up to image %d are searched by codes from now on", segment.last_id)
        return True

    def _written(
        self, stamp: SegmentStamp, ids: np.ndarray, descriptors: np.ndarray
    ) -> Segment | None:
        try:
            return open_segment(write_segment(self._path.parent, stamp, ids, descriptors))
        except OSError as error:
            _log.info("descriptors stay in memory, a segment cannot be written: %s", error)
            self._may_save = False
            return None

    def _open_segments(self, state: State) -> list[Segment]:
        """The segments that fit the catalogue and each other, in order of id."""
        found = [open_segment(path) for path in self._path.parent.glob("*.segment")]
        # Of two that begin at the same image the later one counts.
        usable = sorted(
            (segment for segment in found if segment and self._is_usable(segment, state)),
            key=lambda segment: (segment.stamp.after_id, -segment.stamp.revision),
        )
        chain: list[Segment] = []
        for segment in usable:
            last = chain[-1].last_id if chain else 0
            after = segment.stamp.after_id
            if after >= last and self._catalogue.count(last, after) == 0:
                chain.append(segment)
        return chain

    def _is_usable(self, segment: Segment, state: State) -> bool:
        stamp = segment.stamp
        is_own = stamp.identity == state.identity and stamp.revision <= state.revision
        if not is_own or segment.descriptors.shape[1] != state.global_dimensions:
            return False
        dropped = self._catalogue.dropped_since(stamp.revision)
        if dropped is None:
            return False
        last_checksum = self._catalogue.descriptor_checksum(segment.last_id)
        return segment.last_id in dropped or last_checksum == stamp.last_checksum

    def _live(self) -> list[LiveSegment]:
        """The segments without what was removed or changed since."""
        return [
            LiveSegment(segment, ~np.isin(segment.ids, self._dropped(segment)))
            for segment in self._segments
        ]

    def _changed(self) -> NearestIndex:
        """The images of segments that have another descriptor now."""
        dimensions = self._catalogue.state().global_dimensions
        assert dimensions is not None
        index = NearestIndex(dimensions)
        for segment in self._segments:
            for image_id in self._dropped(segment).tolist():
                for _, _, descriptor in self._catalogue.descriptors_after(image_id - 1, image_id):
                    index.extend(np.array([image_id]), descriptor[None])
        return index

    def _dropped(self, segment: Segment) -> np.ndarray:
        """Ids (K,) int64, ascending, of a segment's images that are no longer what they were."""
        dropped = self._catalogue.dropped_since(segment.stamp.revision)
        assert dropped is not None  # `_is_usable`
        return dropped[np.isin(dropped, segment.ids)]

    def _renew_segments(self) -> None:
        """Write those segments anew of which too much is gone."""
        self._synchronise()
        state = self._catalogue.state()
        for number, segment in enumerate(self._segments):
            if len(self._dropped(segment)) <= _MAX_DEAD_SHARE * len(segment.ids):
                continue
            after = segment.stamp.after_id
            rows = list(self._catalogue.descriptors_after(after, segment.last_id))
            if not rows or not self._may_save or self._catalogue.is_writing:
                continue
            stamp = SegmentStamp(state.identity, state.revision, after, rows[-1][1])
            ids = np.array([image_id for image_id, _, _ in rows], np.int64)
            renewed = self._written(stamp, ids, np.stack([row for _, _, row in rows]))
            if renewed is not None:
                self._segments[number] = renewed
                self._combined = None
