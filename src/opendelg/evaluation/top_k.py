"""The k most similar of millions of images for many queries, in blocks of both.

Products in float32 differ in their last bits with the shapes of the blocks, so they only choose:
a few more than k are kept, measured again in float64, and sorted by similarity, then by id.
Queries for which that cannot have seen every tie are searched once more with more kept.  The
answer does not depend on the blocks.
"""

from collections.abc import Callable, Iterable

import numpy as np

QUERY_ROWS = 1024  # queries multiplied at a time
BLOCK_ROWS = 8192  # database images multiplied at a time: similarities of both take 32 MB
_MEASURE_BYTES = 1 << 26  # of descriptors measured again at a time
_SPARE = 16  # kept beyond k, so that ties and rounding at the end are seen
_ROUNDING = 1e-5  # similarity; more than float32 sums of unit vectors can be off

# Gives the database again from its start: ids (B,) int64 and descriptors (B, D) float32.
Blocks = Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]]
# Descriptors (N, D) float32 of ids (N,) int64.
Fetch = Callable[[np.ndarray], np.ndarray]


class TopK:
    """The best of all similarities so far, by query; equal ones by id."""

    def __init__(self, num_queries: int, k: int) -> None:
        """Begin with nothing.

        Args:
            num_queries: Q.
            k: How many are kept of each, at least 1.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        # Places that are not filled are behind everything.
        self.ids = np.full((num_queries, k), np.iinfo(np.int64).max)  # (Q, k) int64
        self.similarities = np.full((num_queries, k), -np.inf, np.float32)  # (Q, k)
        self.counts = np.zeros(num_queries, np.int64)  # (Q,) filled places, the first ones

    def add(self, first: int, ids: np.ndarray, similarities: np.ndarray) -> None:
        """Compare some queries with a block.

        Args:
            first: The first query.
            ids: (B,) int64 database ids, none of which came before.
            similarities: (R, B) float32 of the queries from ``first`` on.
        """
        k, num_rows = self.ids.shape[1], len(similarities)
        part = slice(first, first + num_rows)
        # What is below the k-th so far cannot enter; at the beginning, below the block's own k-th.
        least = self.similarities[part, -1].copy()
        is_open = self.counts[part] < k
        if is_open.any() and len(ids) > k:
            least[is_open] = np.partition(similarities[is_open], -k, axis=1)[:, -k]
        rows, columns = np.nonzero(similarities >= least[:, None])
        touched = np.unique(rows)
        if len(touched) == 0:
            return
        kept = touched + first
        all_rows = np.concatenate([np.repeat(touched, k), rows])
        all_ids = np.concatenate([self.ids[kept].ravel(), ids[columns]])
        values = np.concatenate([self.similarities[kept].ravel(), similarities[rows, columns]])
        order = np.lexsort((all_ids, -values, all_rows))
        starts = np.searchsorted(all_rows[order], touched)
        best = order[starts[:, None] + np.arange(k)]
        self.ids[kept], self.similarities[kept] = all_ids[best], values[best]
        self.counts[kept] = np.minimum(k, self.counts[kept] + np.bincount(rows)[touched])


def most_similar(
    query_descriptors: np.ndarray,
    blocks: Blocks,
    fetch: Fetch,
    k: int,
    progress: Callable[[int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The K = min(k, N) most similar of N database images for each query.

    Args:
        query_descriptors: (Q, D) float32, rows of unit length.
        blocks: The database, as often as it is asked for.
        fetch: Its descriptors by id.
        k: How many are wanted, at least 1.
        progress: Called with the number of database images of each block that is done, the
            first time that the database is searched.

    Returns:
        ids (Q, K) int64 and similarities (Q, K) float32: most similar first, equal ones by id.
    """
    num_queries = len(query_descriptors)
    waiting, num_kept = np.arange(num_queries), k + _SPARE
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # queries, ids, similarities
    while len(waiting):
        top, num_database = _search(query_descriptors[waiting], blocks, num_kept, progress)
        progress = None
        count = min(k, num_database)
        ids, similarities = _measured(query_descriptors[waiting], top, fetch, count)
        # Whatever was left out is no better than the last that was kept.
        is_sure = np.full(len(waiting), num_kept >= num_database)
        if count:
            is_sure |= top.similarities[:, -1] < similarities[:, -1] - _ROUNDING
        else:
            is_sure[:] = True
        found.append((waiting[is_sure], ids[is_sure], similarities[is_sure]))
        waiting, num_kept = waiting[~is_sure], 4 * num_kept
    order = np.argsort(np.concatenate([queries for queries, _, _ in found] or [waiting]))
    if len(order) == 0:
        return np.zeros((0, k), np.int64), np.zeros((0, k), np.float32)
    all_ids, values = (np.concatenate([part[i] for part in found])[order] for i in (1, 2))
    return all_ids, values


def _search(
    queries: np.ndarray, blocks: Blocks, num_kept: int, progress: Callable[[int], None] | None
) -> tuple[TopK, int]:
    """The best by float32 products, and how many images the database has."""
    queries = np.ascontiguousarray(queries, np.float32)
    top, num_database = TopK(len(queries), num_kept), 0
    buffer = np.empty((QUERY_ROWS, BLOCK_ROWS), np.float32)
    for ids, descriptors in blocks():
        for start in range(0, len(ids), BLOCK_ROWS):
            part = slice(start, start + BLOCK_ROWS)
            for first in range(0, len(queries), QUERY_ROWS):
                rows = queries[first : first + QUERY_ROWS]
                columns = descriptors[part]
                # One buffer for all: fresh memory costs a tenth of a product.
                out = buffer.ravel()[: len(rows) * len(columns)].reshape(len(rows), len(columns))
                top.add(first, ids[part], np.matmul(rows, columns.T, out=out))
        num_database += len(ids)
        if progress is not None:
            progress(len(ids))
    return top, num_database


def _measured(
    queries: np.ndarray, top: TopK, fetch: Fetch, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """The first ``count`` of what was kept, by similarities in float64."""
    ids = np.zeros((len(queries), count), np.int64)
    similarities = np.zeros((len(queries), count), np.float32)
    if count == 0:
        return ids, similarities
    num_filled = int(top.counts.min())  # the same for all: every query saw every image
    step = max(1, _MEASURE_BYTES // (4 * queries.shape[1] * num_filled))
    for start in range(0, len(queries), step):
        part = slice(start, start + step)
        kept = top.ids[part, :num_filled]
        rows = fetch(kept.ravel()).reshape(*kept.shape, -1).astype(np.float64)
        exact = np.einsum("qkd,qd->qk", rows, queries[part].astype(np.float64))
        exact = exact.astype(np.float32)
        order = np.lexsort((kept, -exact))[:, :count]
        ids[part] = np.take_along_axis(kept, order, axis=1)
        similarities[part] = np.take_along_axis(exact, order, axis=1)
    return ids, similarities
