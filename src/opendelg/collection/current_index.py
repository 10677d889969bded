"""Keeps the nearest-neighbour index in step with the catalogue.

Rows that were added since are appended; after a removal, or when a descriptor changed, the index
is built anew.  The file is only a cache of this: written when it saves enough, never needed.
"""

from itertools import islice
from pathlib import Path

import numpy as np

from opendelg.collection.catalogue import Catalogue, State
from opendelg.collection.nearest import NearestIndex, Stamp

_CHUNK = 4096  # rows added at a time: 32 MiB of 2048 columns
_WORTH_SAVING = 256  # rows; fewer are read from the catalogue in no time
_WORTH_SAVING_SHARE = 1 / 16  # of all rows, so that a growing collection is not saved over and over


class CurrentIndex:
    """The index of one open catalogue; used inside its snapshots, which also keep threads apart."""

    def __init__(self, catalogue: Catalogue, path: Path) -> None:
        self._catalogue = catalogue
        self._path = path
        self._held: tuple[NearestIndex, Stamp] | None = None
        self._saved: Stamp | None = None  # of the file, as far as this object has seen
        self._may_save = True

    def forget(self) -> None:
        """Drops the index from memory: the next use starts from the file."""
        self._held = None

    def get(self) -> NearestIndex:
        """The index of the current snapshot, at least one image having been added once."""
        index, stamp = self._synchronise()
        num_saved = self._saved.count if self._saved is not None else 0
        if len(index) - num_saved >= max(_WORTH_SAVING, _WORTH_SAVING_SHARE * len(index)):
            self._write(index, stamp)
        return index

    def save(self) -> None:
        """Writes the file unless it is up to date; does nothing where that is not possible."""
        if self._catalogue.state().global_dimensions is None:
            return
        index, stamp = self._synchronise()
        self._may_save = True
        if stamp != self._saved or not self._path.exists():
            self._write(index, stamp)

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
            held = self._load(state)
        index, stamp = held
        if stamp.revision != state.revision:
            stamp = self._extend(index, stamp, state)
        self._held = index, stamp
        return self._held

    def _load(self, state: State) -> tuple[NearestIndex, Stamp]:
        """The saved index if it can serve, else an empty one."""
        loaded = NearestIndex.load(self._path)
        if loaded is not None and self._is_extendable(loaded, state):
            self._saved = loaded[1]
            if loaded[1].revision != state.revision or len(loaded[0]) == self._catalogue.count():
                return loaded
        self._saved = None
        assert state.global_dimensions is not None
        return NearestIndex(state.global_dimensions), Stamp(state.identity, -1, 0, 0, 0)

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

    def _extend(self, index: NearestIndex, stamp: Stamp, state: State) -> Stamp:
        """Appends the rows after the last one; the stamp of the index then."""
        last_id, last_checksum = stamp.last_id, stamp.last_checksum
        rows = self._catalogue.descriptors_after(last_id)
        while chunk := list(islice(rows, _CHUNK)):
            ids = np.array([image_id for image_id, _, _ in chunk], np.int64)
            index.extend(ids, np.stack([descriptor for _, _, descriptor in chunk]))
            last_id, last_checksum, _ = chunk[-1]
        return Stamp(state.identity, state.revision, len(index), last_id, last_checksum)
