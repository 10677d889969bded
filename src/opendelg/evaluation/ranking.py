"""Rankings of whole databases that keep what the measures look at.

A measure looks at the first images of a ranking and at those that the ground truth names.  Only
these are kept, with their positions, so that the ranking of a million images takes kilobytes and
its figures are still exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NOT_VERIFIED = -1


@dataclass(frozen=True)
class Ranking:
    """Database images in the order of one query, best first; images may be left out."""

    ids: np.ndarray  # (K,) int64 database ids
    positions: np.ndarray  # (K,) int64 ascending, 0-based in the whole ranking
    similarities: np.ndarray  # (K,) float32, of the global descriptors
    num_inliers: np.ndarray  # (K,) int32; NOT_VERIFIED where nothing was verified

    def __post_init__(self) -> None:
        lengths = {len(self.ids), len(self.positions), len(self.similarities)}
        if lengths != {len(self.num_inliers)}:
            raise ValueError(f"arrays must be of one length, got {sorted(lengths)}")
        if np.any(np.diff(self.positions, prepend=-1) < 1):
            raise ValueError("positions must be 0 or more and ascending")

    def __len__(self) -> int:
        """How many images are kept."""
        return len(self.ids)

    @classmethod
    def whole(cls, ids: np.ndarray, similarities: np.ndarray) -> "Ranking":
        """A ranking that leaves nothing out before its last image.

        Args:
            ids: (K,) int64, best first.
            similarities: (K,) float32.
        """
        return cls(
            np.asarray(ids, np.int64),
            np.arange(len(ids)),
            np.asarray(similarities, np.float32),
            np.full(len(ids), NOT_VERIFIED, np.int32),
        )

    def without(self, ids: np.ndarray) -> "Ranking":
        """The ranking with images taken out and the gaps closed; they must be kept to be seen."""
        dropped = np.isin(self.ids, ids)
        kept = ~dropped
        return Ranking(
            self.ids[kept],
            (self.positions - np.cumsum(dropped))[kept],
            self.similarities[kept],
            self.num_inliers[kept],
        )

    def reordered(self, head: np.ndarray, num_inliers: np.ndarray) -> "Ranking":
        """The ranking with its first images in another order.

        Args:
            head: (R,) int64, the ids of the first R images in their new order.
            num_inliers: (R,) int32 in this order.

        Raises:
            ValueError: If these are not the first R images.
        """
        count = len(head)
        first = self.ids[:count]
        if not np.array_equal(self.positions[:count], np.arange(count)) or not np.array_equal(
            np.sort(first), np.sort(head)
        ):
            raise ValueError(f"head must hold the first {count} images of the ranking")
        sorter = np.argsort(first)
        order = sorter[np.searchsorted(first, head, sorter=sorter)]
        return Ranking(
            np.concatenate([head, self.ids[count:]]),
            self.positions,
            np.concatenate([self.similarities[order], self.similarities[count:]]),
            np.concatenate([num_inliers, self.num_inliers[count:]]).astype(np.int32),
        )


class StreamedRanking:
    """Ranks a database that comes block by block, in memory that does not grow with it.

    The order is by similarity, then by id: that of a stable sort of the whole.
    """

    def __init__(
        self,
        query_descriptors: np.ndarray,
        judged: Sequence[np.ndarray],
        judged_similarities: Sequence[np.ndarray],
        kept: int,
    ) -> None:
        """Begin with an empty database.

        Args:
            query_descriptors: (Q, D) float32.
            judged: Q arrays (J,) int64 of distinct ids whose positions are wanted wherever they
                are; each must come in one of the blocks.
            judged_similarities: Q arrays (J,) float32; these count, not those of the blocks, as
                products of blocks of other shapes differ in their last bits.
            kept: How many of the first images are kept besides.
        """
        self._queries = np.ascontiguousarray(query_descriptors, np.float32)
        self._judged = []  # per query, best first: ids, negated similarities, images before each
        for ids, similarities in zip(judged, judged_similarities, strict=True):
            order = np.lexsort([ids, -similarities])
            self._judged.append(
                (ids[order], -similarities[order], np.zeros(len(ids) + 1, np.int64))
            )
        self._kept = kept
        self._best = [
            (np.zeros(0, np.int64), np.zeros(0, np.float32)) for _ in range(len(self._queries))
        ]

    def add(self, ids: np.ndarray, descriptors: np.ndarray) -> None:
        """Rank a block of the database.

        Args:
            ids: (B,) int64, ascending, in no other block.
            descriptors: (B, D) float32, rows of these images.
        """
        similarities = self._queries @ np.asarray(descriptors, np.float32).T  # (Q, B)
        for query, row in enumerate(similarities):
            self._count(query, ids, row)
            self._keep_best(query, ids, row)

    def rankings(self) -> list[Ranking]:
        """The ranking of each query over all blocks."""
        return [self._ranking(query) for query in range(len(self._queries))]

    def _count(self, query: int, ids: np.ndarray, row: np.ndarray) -> None:
        """Count the images before each judged one, and give the judged their similarities."""
        judged, negated, before = self._judged[query]
        if len(judged) == 0:
            return
        is_judged = np.isin(ids, judged)
        keys = -row[~is_judged]
        after = np.searchsorted(negated, keys, side="right")  # first judged image that is worse
        before += np.bincount(after, minlength=len(before))
        # Of equal similarities the smaller id comes first.
        first_equal = np.searchsorted(negated, keys, side="left")
        for image_id, start, stop in zip(
            *(part[first_equal < after] for part in (ids[~is_judged], first_equal, after)),
            strict=True,
        ):
            place = start + np.searchsorted(judged[start:stop], image_id)
            before[stop] -= 1
            before[place] += 1
        if is_judged.any():
            sorter = np.argsort(judged)
            found = sorter[np.searchsorted(judged, ids[is_judged], sorter=sorter)]
            row[is_judged] = -negated[found]

    def _keep_best(self, query: int, ids: np.ndarray, row: np.ndarray) -> None:
        best_ids, best = self._best[query]
        if len(best) == self._kept > 0:
            is_candidate = row >= best[-1]
            ids, row = ids[is_candidate], row[is_candidate]
        ids, row = np.concatenate([best_ids, ids]), np.concatenate([best, row])
        order = np.lexsort([ids, -row])[: self._kept]
        self._best[query] = ids[order], row[order]

    def _ranking(self, query: int) -> Ranking:
        judged, negated, before = self._judged[query]
        best_ids, best = self._best[query]
        positions = np.cumsum(before)[: len(judged)] + np.arange(len(judged))
        is_beyond = positions >= len(best_ids)
        ids = np.concatenate([best_ids, judged[is_beyond]])
        return Ranking(
            ids,
            np.concatenate([np.arange(len(best_ids)), positions[is_beyond]]),
            np.concatenate([best, -negated[is_beyond]]),
            np.full(len(ids), NOT_VERIFIED, np.int32),
        )
