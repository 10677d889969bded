"""The second stage of every protocol: the first images of a ranking verified against the query."""

from dataclasses import dataclass

import numpy as np

from opendelg.collection import Collection
from opendelg.evaluation.ranking import Ranking
from opendelg.extraction import Extractor
from opendelg.features import ImageFeatures, LocalFeatures
from opendelg.search import SearchConfig, compare, rerank, settings_for


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
    """The ranking with its first ``config.rerank`` images by inliers, then similarity (SPEC 4.1).

    Args:
        query: Local features of the query, or of the part of it that is searched for.
        ranking: Of database ids.
        stored: (N,) int64, the collection's id of each database id.
        collection: Holds their local features.
        extractor: What made the collection.
        config: How many are verified, and how.
    """
    head = ranking.ids[: config.rerank]
    images = collection.images(stored[head])
    nothing = np.zeros(0, np.float32)  # stage 1 is over
    compared = compare(
        ImageFeatures(query.size, nothing, query.local),
        head,
        ranking.similarities[: config.rerank],
        [image.size for image in images],
        collection.local_features(stored[head]),
        None,
        settings_for(extractor.config, config.verification),
    )
    ordered = rerank(compared)
    return ranking.reordered(
        np.array([found.id for found in ordered], np.int64),
        np.array([found.num_inliers for found in ordered], np.int32),
    )
