"""The second stage of every protocol: the first images of a ranking verified against the query."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from opendelg.collection import Collection
from opendelg.evaluation.ranking import Ranking
from opendelg.extraction import Extractor
from opendelg.features import LocalFeatures
from opendelg.fusion import order_of_verified
from opendelg.search import SearchConfig, settings_for
from opendelg.verification import VerificationSettings, verify_many


@dataclass(frozen=True)
class VerifiedQuery:
    """What verification needs of a query."""

    size: tuple[int, int]  # (width, height) px of the whole original image
    local: LocalFeatures


def verify_head(
    query: VerifiedQuery,
    ranking: Ranking,
    stored: np.ndarray,
    collection: Collection,
    extractor: Extractor,
    config: SearchConfig,
) -> Ranking:
    """The ranking with its first ``config.rerank`` images verified and ordered again, see `fusion`.

    Args:
        query: Local features of the query, or of the part of it that is searched for.
        ranking: Of database ids.
        stored: (N,) int64, the collection's id of each database id.
        collection: Holds their local features.
        extractor: What made the collection.
        config: How many are verified, and how.
    """
    head = ranking.ids[: config.rerank]
    sizes = [image.size for image in collection.images(stored[head])]
    settings = settings_for(extractor.config, config.verification)
    inliers = count_inliers(query, sizes, collection.local_features(stored[head]), settings)
    return reranked(ranking, inliers, settings)


def count_inliers(
    query: VerifiedQuery,
    sizes: Sequence[tuple[int, int]],
    locals_: Sequence[LocalFeatures],
    settings: VerificationSettings,
) -> np.ndarray:
    """Matches (R,) int32 that agree with one transform, of the query with each image.

    Args:
        query: What is searched for.
        sizes: (width, height) px of each image.
        locals_: Its local features.
        settings: From `search.settings_for`.
    """
    found = verify_many(query.local, locals_, query.size, sizes, settings)
    return np.array([verification.num_inliers for verification in found], np.int32)


def reranked(ranking: Ranking, num_inliers: np.ndarray, settings: VerificationSettings) -> Ranking:
    """The ranking with its first R images, which were verified, in the order of `fusion`.

    Args:
        ranking: Of database ids.
        num_inliers: (R,) int32 of its first R images.
        settings: What they were verified with.
    """
    count = len(num_inliers)
    ids, similarities = ranking.ids[:count], ranking.similarities[:count]
    order = order_of_verified(similarities, num_inliers, ids, settings)
    return ranking.reordered(ids[order], num_inliers[order])
