"""The global stage of an evaluation: what may be done to descriptors before they are compared.

A database is whitened, then augmented; queries are whitened, then expanded with what they find in
it.  A query that is in the database too counts as if it were not: it is left out of its own
ranking, its own expansion and the averages of the images that it is to find.  Only whitening has
seen it, as one descriptor of many and without a label.  (The published protocols keep queries out
of their databases, so that the question does not come up there.)
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from opendelg.errors import OpenDelgError
from opendelg.expansion import (
    AugmentedDatabase,
    ExpansionConfig,
    best_columns,
    expand,
    leave_out,
    require_alpha,
    require_counts,
)
from opendelg.whitening import fit_whitening, require_shrinkage

_BLOCK_BYTES = 1 << 26  # of similarities at a time


@dataclass(frozen=True)
class PreparationConfig:
    """What is done to the descriptors of a database; by default nothing."""

    whiten: int = 0  # dimensions that PCA-whitening keeps at most; 0: no whitening
    shrinkage: float = 0.0  # of the variances to their mean, see whitening.py
    augment: int = 0  # most similar other images that are added to each database image
    alpha: float = 3.0  # their weight is similarity ** alpha

    def __post_init__(self) -> None:
        require_counts(whiten=self.whiten, augment=self.augment)
        require_shrinkage(self.shrinkage)
        require_alpha(self.alpha)


def notes_on(expansion: ExpansionConfig, preparation: PreparationConfig) -> tuple[str, ...]:
    """What a reader of the figures must know of both; nothing where nothing is on."""
    notes = []
    if preparation.whiten:
        notes.append(
            f"database whitened to at most {preparation.whiten} dimensions, learnt on itself, "
            f"shrinkage {preparation.shrinkage:g}"
        )
    if preparation.augment:
        notes.append(
            f"database images averaged with their {preparation.augment} most similar others, "
            f"alpha {preparation.alpha:g}"
        )
    if expansion.nearest:
        notes.append(
            f"queries expanded with their {expansion.nearest} most similar images, "
            f"alpha {expansion.alpha:g}"
        )
    if expansion.verified:
        notes.append(
            f"queries expanded with confirmed images and verified again, alpha {expansion.alpha:g}"
        )
    return tuple(notes)


def refuse_expansion(expansion: ExpansionConfig, protocol: str) -> None:
    """Raises OpenDelgError if queries are to be expanded where an evaluation would not do it."""
    if expansion.is_on:
        raise OpenDelgError(
            f"queries must not be expanded under {protocol}, got {expansion}; groups can"
        )


class PreparedDatabase:
    """Descriptors of a database as they are searched."""

    def __init__(
        self,
        database: np.ndarray,
        config: PreparationConfig | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Whiten and augment.

        Args:
            database: (N, D) float32 global descriptors.
            config: What to do; by default nothing.
            progress: Called with the row of every descriptor that was augmented.

        Raises:
            OpenDelgError: If whitening cannot be learnt from the database.
        """
        config = config or PreparationConfig()
        self._whitening = None
        if config.whiten:
            self._whitening = fit_whitening(database, config.whiten, config.shrinkage)
            database = self._whitening.apply(database)
        self._augmented = AugmentedDatabase(database, config.augment, config.alpha, progress)

    def queries(self, descriptors: np.ndarray) -> np.ndarray:
        """Query descriptors (Q, D) as they are compared with the database, not yet expanded."""
        return descriptors if self._whitening is None else self._whitening.apply(descriptors)

    def descriptors(self, rows: np.ndarray, own: int = -1) -> np.ndarray:
        """Database descriptors of these rows (..., D) for the query that is row `own`, or none."""
        chosen: np.ndarray = self._augmented.descriptors[rows]
        if own >= 0:
            changed, replaced = self._augmented.without(own)
            places = np.minimum(np.searchsorted(changed, rows), max(0, len(changed) - 1))
            is_changed = changed[places] == rows if len(changed) else np.zeros(rows.shape, bool)
            chosen[is_changed] = replaced[places[is_changed]]
        return chosen

    def similarities(self, queries: np.ndarray, own: np.ndarray | None = None) -> np.ndarray:
        """Compare a block of queries with the whole database.

        Args:
            queries: (B, D) float32, see `queries` and `expanded`.
            own: (B,) int64 row of the database that a query is, -1 if it is none of them.

        Returns:
            (B, N) float32; -inf for a query's own image.
        """
        similarities = queries @ self._augmented.descriptors.T
        if own is not None:
            for number in np.flatnonzero(own >= 0):
                rows, replaced = self._augmented.without(int(own[number]))
                similarities[number, rows] = replaced @ queries[number]
            leave_out(similarities, own)
        return np.asarray(similarities)

    def expanded(
        self, queries: np.ndarray, num_neighbours: int, alpha: float, own: np.ndarray | None = None
    ) -> np.ndarray:
        """Queries (Q, D) averaged with their nearest database images.

        Args:
            queries: (Q, D) float32, see `queries`.
            num_neighbours: Database images added to each; 0: the queries as they are.
            alpha: Their weight is similarity ** alpha.
            own: (Q,) int64 as for `similarities`.
        """
        own = np.full(len(queries), -1) if own is None else own
        expanded = queries.copy()
        num_images, num_dimensions = self._augmented.descriptors.shape
        row_bytes = 4 * num_images + 8 * num_dimensions * num_neighbours
        step = max(1, _BLOCK_BYTES // max(1, row_bytes))
        for start in range(0, len(queries) if num_neighbours else 0, step):
            part = slice(start, start + step)
            similarities = self.similarities(queries[part], own[part])
            rows = best_columns(similarities, min(num_neighbours, num_images))
            neighbours = np.stack(
                [
                    self.descriptors(row, int(query))
                    for row, query in zip(rows, own[part], strict=True)
                ]
            )
            values = np.take_along_axis(similarities, rows, axis=1)
            expanded[part] = expand(queries[part], neighbours, values, alpha)
        return expanded

    def expanded_with(
        self, query: np.ndarray, rows: np.ndarray, alpha: float, own: int = -1
    ) -> np.ndarray:
        """One query (D,) averaged with these rows (K,) of the database."""
        neighbours = self.descriptors(rows, own)
        return expand(query, neighbours, neighbours @ query, alpha)
