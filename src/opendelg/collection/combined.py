"""The parts of a large index searched as one: segments by codes, the rest one by one."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from opendelg.collection.codes import RECALL_AT, rotated
from opendelg.collection.nearest import NearestIndex, measured
from opendelg.collection.segments import EXHAUSTIVE, Segment


@dataclass(frozen=True)
class LiveSegment:
    """A segment, and which of its images are still as they were."""

    segment: Segment
    is_live: np.ndarray  # (N,) bool

    @property
    def num_live(self) -> int:
        """How many."""
        return int(np.count_nonzero(self.is_live))

    def candidates(
        self, query_descriptor: np.ndarray, k: int, turned: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Positions and estimates of the min(k, `num_live`) best that are live.

        `turned` is as for `Codes.search`.
        """
        wanted, asked = min(k, self.num_live), k
        while wanted > 0:
            positions, estimates = self.segment.candidates(query_descriptor, asked, turned)
            kept = self.is_live[positions]
            # What was removed together may be alike: then all the best are gone.
            if np.count_nonzero(kept) >= wanted or asked >= len(self.is_live):
                return positions[kept][:k], estimates[kept][:k]
            asked = min(4 * asked, len(self.is_live))
        return np.zeros(0, np.int64), np.zeros(0, np.float32)


@dataclass(frozen=True)
class CombinedIndex:
    """All global descriptors of a collection; an image is in one part only."""

    segments: Sequence[LiveSegment]
    flat: Sequence[NearestIndex]  # what came or changed after the segments

    def __len__(self) -> int:
        """Number of images."""
        return sum(s.num_live for s in self.segments) + sum(len(part) for part in self.flat)

    def search(self, query_descriptor: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The min(k, N) most similar images: exactly without segments, else nearly.

        Of the segments, as many of the best by estimate are measured as gave the recall aimed at
        when they were made (see `codes`).

        Args:
            query_descriptor: (D,) float32, unit length.
            k: Number of images wanted.

        Returns:
            ids (K,) int64 and exact similarities (K,) float32: most similar first, ties by id.
        """
        parts = [part.search(query_descriptor, k) for part in self.flat]
        if self.segments:
            parts.append(self._search_segments(query_descriptor, k))
        ids = np.concatenate([found for found, _ in parts])
        similarities = np.concatenate([found for _, found in parts])
        order = np.lexsort((ids, -similarities))[:k]
        return ids[order], similarities[order]

    def _search_segments(
        self, query_descriptor: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        rounds = -(-k // RECALL_AT)
        counts = [max(s.segment.num_candidates, 0) * rounds for s in self.segments]
        num_candidates = max(k, *counts)
        turned = rotated(query_descriptor)
        found = [
            live.candidates(
                query_descriptor,
                k if live.segment.num_candidates == EXHAUSTIVE else num_candidates,
                turned,
            )
            for live in self.segments
        ]
        estimates = np.concatenate([estimate for _, estimate in found])
        best = np.argsort(-estimates, kind="stable")[:num_candidates]
        owners = np.repeat(np.arange(len(found)), [len(positions) for positions, _ in found])[best]
        chosen = np.concatenate([positions for positions, _ in found])[best]
        ids, rows = [], []
        for number, live in enumerate(self.segments):
            # In order of place: that is how disks and their caches are fast.
            positions = np.sort(chosen[owners == number])
            ids.append(live.segment.ids[positions])
            rows.append(live.segment.descriptors[positions])
        return measured(np.concatenate(ids), np.concatenate(rows), query_descriptor)
