"""Query expansion and database augmentation: descriptors averaged with those of their neighbours.

Both add to a descriptor those of its most similar database images, weighted with a power of
their similarity.  The descriptor itself weighs 1, an image of similarity 0 or below nothing: it
says nothing of the query, and with it the sum might vanish.  So a sum never has length 0 unless
the descriptor itself has, which then stays as it is.

Source: Radenović et al., "Fine-tuning CNN image retrieval with no human annotation", TPAMI 2019
(arXiv 1711.02512), section 3.5 (alpha query expansion; alpha 0 is average query expansion, Chum
et al., ICCV 2007); Gordo et al., "End-to-end learning of deep visual representations", IJCV
2017, section 5.3 (database augmentation).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_BLOCK_BYTES = 1 << 26  # of similarities, or of neighbours' descriptors, at a time


@dataclass(frozen=True)
class ExpansionConfig:
    """How queries are expanded; by default not at all.

    The values to switch on were chosen with ``benchmarks/expansion.py``.
    """

    nearest: int = 0  # most similar images that are added to the query; 0: none
    alpha: float = 3.0  # their weight is similarity ** alpha; the paper's value; 0: all weigh 1
    verified: bool = False  # add the images that verification confirmed, then search again
    min_inliers: int = 20  # of a confirmed image, where the weights have no model of `same`

    def __post_init__(self) -> None:
        require_counts(nearest=self.nearest, min_inliers=self.min_inliers)
        require_alpha(self.alpha)

    @property
    def is_on(self) -> bool:
        """Whether anything is added to a query."""
        return self.nearest > 0 or self.verified


def require_counts(**counts: int) -> None:
    """Raises ValueError, with its name, for a count below 0."""
    for name, count in counts.items():
        if count < 0:
            raise ValueError(f"{name} must be at least 0, got {count}")


def require_alpha(alpha: float) -> None:
    """Raises ValueError unless alpha is a finite number from 0 on."""
    if not 0 <= alpha < float("inf"):
        raise ValueError(f"alpha must be a finite number of at least 0, got {alpha}")


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Rows (..., D) float32 of length 1; a row of zeros stays one."""
    wide = rows.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=-1, keepdims=True)
    return np.asarray(wide / np.where(lengths > 0, lengths, 1), np.float32)


def expand(
    descriptors: np.ndarray, neighbours: np.ndarray, similarities: np.ndarray, alpha: float
) -> np.ndarray:
    """Descriptors averaged with their neighbours, each of weight similarity ** alpha.

    Args:
        descriptors: (..., D) float32, unit length.
        neighbours: (..., K, D) float32 descriptors of the neighbours of each.
        similarities: (..., K); of 0 or below, or -inf: that neighbour is left out.
        alpha: 0 or above; 0 gives every neighbour of positive similarity the weight 1.

    Returns:
        (..., D) float32, unit length, or as it was where no neighbour counts.
    """
    require_alpha(alpha)
    counts = similarities > 0
    weights = np.where(counts, np.where(counts, similarities, 1.0).astype(np.float64) ** alpha, 0.0)
    added = np.einsum("...k,...kd->...d", weights, neighbours.astype(np.float64))
    expanded = unit_rows(descriptors.astype(np.float64) + added)
    return np.where(counts.any(axis=-1, keepdims=True), expanded, descriptors.astype(np.float32))


def nearest(
    descriptors: np.ndarray, database: np.ndarray, k: int, own: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The most similar database images of every descriptor.

    Args:
        descriptors: (Q, D) float32.
        database: (N, D) float32.
        k: Number of images wanted.
        own: (Q,) int64 row of the database that is the descriptor's own image, -1 if none is: it
            comes last, with similarity -inf.

    Returns:
        rows (Q, K) int64 of the database and similarities (Q, K) float32 with K = min(k, N),
        most similar first, ties by row.
    """
    k = min(k, len(database))
    rows = np.zeros((len(descriptors), k), np.int64)
    similarities = np.zeros((len(descriptors), k), np.float32)
    step = max(1, _BLOCK_BYTES // (4 * max(1, len(database))))
    for start in range(0, len(descriptors), step):
        block = descriptors[start : start + step] @ database.T
        if own is not None:
            leave_out(block, own[start : start + step])
        rows[start : start + step] = best = best_columns(block, k)
        similarities[start : start + step] = np.take_along_axis(block, best, axis=1)
    return rows, similarities


def leave_out(similarities: np.ndarray, own: np.ndarray) -> None:
    """Set the similarity of each row's own image to -inf, in place; -1: it has none."""
    having = np.flatnonzero(own >= 0)
    similarities[having, own[having]] = -np.inf


def best_columns(similarities: np.ndarray, k: int) -> np.ndarray:
    """(Q, k) int64 columns of the k highest values of (Q, N), highest first, ties by column."""
    num_columns = similarities.shape[1]
    if k == 0:
        return np.zeros((len(similarities), 0), np.int64)
    if 2 * k >= num_columns:
        return np.argsort(-similarities, axis=1, kind="stable")[:, :k]
    best = np.zeros((len(similarities), k), np.int64)
    least = np.partition(similarities, num_columns - k, axis=1)[:, num_columns - k]
    for number, row in enumerate(similarities):
        candidates = np.flatnonzero(row >= least[number])
        best[number] = candidates[np.argsort(-row[candidates], kind="stable")[:k]]
    return best


class AugmentedDatabase:
    """Database descriptors, each averaged with those of its nearest other images.

    A query that is a database image itself must not help the images that it is to find: they
    would be drawn to it.  `without` gives what they are if it is not there.
    """

    def __init__(
        self,
        database: np.ndarray,
        num_neighbours: int,
        alpha: float,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Average descriptors.

        Args:
            database: (N, D) float32, unit length.
            num_neighbours: Other images that are added to each; 0 leaves it as it is.
            alpha: Their weight is similarity ** alpha.
            progress: Called with the row of every descriptor that is done.
        """
        require_counts(num_neighbours=num_neighbours)
        require_alpha(alpha)
        self._database = database
        self._alpha = alpha
        self._num_neighbours = num_neighbours
        # One more than is used, which follows if one of the others is left out.
        width = min(num_neighbours + 1, len(database)) if num_neighbours else 0
        self._rows = np.zeros((len(database), width), np.int64)
        self._similarities = np.zeros((len(database), width), np.float32)
        self.descriptors = database  # (N, D) float32, unit length
        if num_neighbours:
            self._augment(progress)
        used = self._rows[:, :num_neighbours].ravel()
        self._users = np.argsort(used, kind="stable")  # positions in `used`, by whom they name
        self._used = used[self._users]

    def _augment(self, progress: Callable[[int], None] | None) -> None:
        num_images, width = self._rows.shape
        self.descriptors = np.zeros_like(self._database)
        columns = np.arange(min(self._num_neighbours, width))[None]
        step = max(1, _BLOCK_BYTES // (4 * max(1, num_images)))
        for start in range(0, num_images, step):
            chosen = np.arange(start, min(start + step, num_images))
            self._rows[chosen], self._similarities[chosen] = nearest(
                self._database[chosen], self._database, width, own=chosen
            )
            self.descriptors[chosen] = self._averages(chosen, columns.repeat(len(chosen), axis=0))
            if progress is not None:
                for row in chosen:
                    progress(int(row))

    def _averages(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """The averages (R, D) of images with their neighbours in these columns (R, K)."""
        averages = np.zeros((len(rows), self._database.shape[1]), np.float32)
        step = max(1, _BLOCK_BYTES // max(1, 8 * columns.shape[1] * self._database.shape[1]))
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            neighbours = np.take_along_axis(self._rows[rows[part]], columns[part], axis=1)
            averages[part] = expand(
                self._database[rows[part]],
                self._database[neighbours],
                np.take_along_axis(self._similarities[rows[part]], columns[part], axis=1),
                self._alpha,
            )
        return averages

    def without(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """What the database would be if one image were not in it.

        Args:
            row: The image.

        Returns:
            Rows (R,) int64, ascending, of the other images that it was averaged into, and their
            descriptors (R, D) float32 with the next nearest image in its place.
        """
        first, last = np.searchsorted(self._used, [row, row + 1])
        width = min(self._num_neighbours, self._rows.shape[1])
        rows = np.sort(self._users[first:last] // max(1, width))
        rows = rows[rows != row]
        # A stable sort puts the image last and keeps the others in their order.
        is_it = self._rows[rows] == row
        columns = np.argsort(is_it, axis=1, kind="stable")[:, : self._rows.shape[1] - 1]
        columns = columns[:, : self._num_neighbours]
        return rows, self._averages(rows, columns)
