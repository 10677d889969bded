"""The second stage of an evaluation: one query's ranking after verification, on rows of arrays."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from opendelg.candidates import Candidate, confirmed, rerank
from opendelg.evaluation.preparation import PreparedDatabase
from opendelg.search import SearchConfig

# Verifies rows (K,) of the database against the query: candidates whose ids are the rows.
Compare = Callable[[np.ndarray], list[Candidate]]


def ranked_rows(similarities: np.ndarray) -> np.ndarray:
    """Rows (K,) int64 of a database by similarity (N,), ties by row, -inf left out."""
    order = np.argsort(-similarities, kind="stable")
    return order[: np.count_nonzero(similarities > -np.inf)]


def verified_ranking(
    database: PreparedDatabase,
    query: np.ndarray,
    similarities: np.ndarray,
    compare: Compare,
    config: SearchConfig,
    own: int = -1,
) -> np.ndarray:
    """Verify the best of the global stage; expand the query with the confirmed if asked to.

    Args:
        database: What is searched.
        query: (D,) float32 as `database.queries` gives it, not expanded.
        similarities: (N,) of the global stage, -inf for what is left out.
        compare: See `Compare`; called again with the new candidates of an expanded query.
        config: Of the search.
        own: Row of the database that is the query itself, -1 if none is.

    Returns:
        (K,) int64 rows, all but those left out: the verified first, by inliers.
    """
    order = ranked_rows(similarities)
    compared = compare(order[: config.rerank])
    sure = [found.id for found in confirmed(compared, config.expansion)]
    if config.expansion.verified and sure:
        expanded = database.expanded_with(query, np.array(sure), config.expansion.alpha, own)
        similarities = database.similarities(expanded[None], np.array([own]))[0]
        order = ranked_rows(similarities)
        best = order[: config.rerank]
        compared += compare(best[~np.isin(best, [found.id for found in compared])])
    sought = [replace(c, expanded_similarity=float(similarities[c.id])) for c in compared]
    first = np.array([found.id for found in rerank(sought)], np.int64)
    return np.concatenate([first, order[~np.isin(order, first)]])
