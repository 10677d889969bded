"""The second stage of an evaluation in which verification expands the query.

Everything is about rows of a database's arrays; whoever calls gives them their ids.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from opendelg.candidates import Candidate, compare, confirmed, rerank, settings_for
from opendelg.collection import Collection
from opendelg.evaluation.preparation import PreparedDatabase
from opendelg.evaluation.ranking import NOT_VERIFIED, Ranking
from opendelg.extraction import Extractor
from opendelg.features import ImageFeatures
from opendelg.search import SearchConfig

# Verifies rows (K,) of the database against one query: candidates whose ids are the rows.
Compare = Callable[[np.ndarray], list[Candidate]]


@dataclass(frozen=True)
class StoredDatabase:
    """Database images of an evaluation, row by row, and how they are verified."""

    collection: Collection
    extractor: Extractor  # what made the collection; its weights rate the pairs
    config: SearchConfig
    stored: np.ndarray  # (N,) int64, the collection's ids
    descriptors: np.ndarray  # (N, D) float32, as extracted: those that `same` was fitted with

    def compare(self, query: ImageFeatures, rows: np.ndarray) -> list[Candidate]:
        """Verify these rows (K,) against a query."""
        return compare(
            query,
            rows,
            self.descriptors[rows] @ query.global_descriptor,
            [image.size for image in self.collection.images(self.stored[rows])],
            self.collection.local_features(self.stored[rows]),
            self.extractor.weights.same,
            settings_for(self.extractor.config, self.config.verification),
        )


def ranking_of(similarities: np.ndarray) -> Ranking:
    """Rows by similarity (N,) float32, then by row; those of -inf are left out."""
    order = np.argsort(-similarities, kind="stable")
    order = order[: np.count_nonzero(similarities > -np.inf)]
    return Ranking.whole(order, similarities[order])


def verified_ranking(
    database: PreparedDatabase,
    query: np.ndarray,
    similarities: np.ndarray,
    compare_rows: Compare,
    config: SearchConfig,
    own: int = -1,
) -> Ranking:
    """Verify the best of the global stage; expand the query with the confirmed if asked to.

    Args:
        database: What is searched.
        query: (D,) float32 as `database.queries` gives it, not expanded.
        similarities: (N,) float32 of the global stage, -inf for what is left out.
        compare_rows: See `Compare`; called again with the new candidates of an expanded query.
        config: Of the search.
        own: Row of the database that is the query itself, -1 if none is.

    Returns:
        All rows but those left out: the verified first, in the order of `fusion`.
    """
    ranking = ranking_of(similarities)
    compared = compare_rows(ranking.ids[: config.rerank])
    sure = [found.id for found in confirmed(compared, config.expansion)]
    if config.expansion.verified and sure:
        expanded = database.expanded_with(query, np.array(sure), config.expansion.alpha, own)
        similarities = database.similarities(expanded[None], np.array([own]))[0]
        ranking = ranking_of(similarities)
        best = ranking.ids[: config.rerank]
        compared += compare_rows(best[~np.isin(best, [found.id for found in compared])])
    ordered = rerank(
        [replace(c, expanded_similarity=float(similarities[c.id])) for c in compared],
        config.verification,
    )
    first = np.array([found.id for found in ordered], np.int64)
    rows = np.concatenate([first, ranking.ids[~np.isin(ranking.ids, first)]])
    num_inliers = np.full(len(rows), NOT_VERIFIED, np.int32)
    num_inliers[: len(first)] = [found.num_inliers for found in ordered]
    return Ranking(rows, np.arange(len(rows)), similarities[rows], num_inliers)
