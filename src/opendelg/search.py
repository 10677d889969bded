"""Two-stage search: nearest global descriptors, then re-ranking by verified local matches."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from opendelg.candidates import Candidate as Candidate
from opendelg.candidates import compare as compare
from opendelg.candidates import rerank as rerank
from opendelg.candidates import settings_for as settings_for
from opendelg.collection import Collection, StoredImage
from opendelg.evidence import Evidence, Side
from opendelg.extraction import Box, Extractor
from opendelg.features import ImageFeatures, LocalFeatures
from opendelg.image import DecodedImage
from opendelg.search_run import SearchConfig as SearchConfig
from opendelg.search_run import SearchRun
from opendelg.verification import VerificationSettings, regions


@dataclass(frozen=True)
class SearchResult:
    """One result with all that explains it."""

    rank: int  # from 1
    image: StoredImage
    candidate: Candidate
    local: LocalFeatures  # of the database image
    query_region: np.ndarray  # (K, 2) float32 px, polygon around the inliers
    database_region: np.ndarray  # (K', 2) float32 px


@dataclass(frozen=True)
class SearchResponse:
    """The answer to a query, best result first."""

    query: ImageFeatures
    results: tuple[SearchResult, ...]
    seconds: Mapping[str, float]  # by stage
    expanded_with: tuple[int, ...] | None = None  # ids added to the query; None: not asked for


class Searcher:
    """Searches one collection with the extractor that made it; not for several threads."""

    def __init__(
        self, collection: Collection, extractor: Extractor, config: SearchConfig | None = None
    ) -> None:
        self.collection = collection
        self.extractor = extractor
        self.config = config or SearchConfig()

    def search(
        self, image: DecodedImage, box: Box | None = None, without: int | None = None
    ) -> SearchResponse:
        """Find what shows the same thing as an image, or as the part of it inside `box`.

        Args:
            image: The query.
            box: The part of it to search with.
            without: Id of an image to leave out of the results.

        Raises:
            ImageError: If the image is too small or no pixel is in the box.
        """
        started = time.perf_counter()
        query = self.extractor.extract(image, box, want_local=self.config.rerank > 0)
        return self.search_features(query, time.perf_counter() - started, without)

    def search_stored(self, image_id: int) -> SearchResponse:
        """Find what shows the same thing as an image of the collection, that image left out."""
        started = time.perf_counter()
        image = self.collection.image(image_id)
        query = ImageFeatures(
            image.size,
            self.collection.global_descriptor(image_id),
            self.collection.local_features([image_id])[0],
        )
        return self.search_features(query, time.perf_counter() - started, without=image_id)

    def search_features(
        self, query: ImageFeatures, extraction_seconds: float = 0.0, without: int | None = None
    ) -> SearchResponse:
        """Find what shows the same thing as an image with these features."""
        started = time.perf_counter()
        run = SearchRun(self.collection, self.extractor, self.config, query, without)
        ranked = run.search()
        ordered = time.perf_counter()
        empty = LocalFeatures.empty(query.local.descriptors.shape[1])
        results = tuple(
            _result(rank, query, found, run.images[found.id], run.locals.get(found.id, empty))
            for rank, found in enumerate(ranked[: self.config.top], start=1)
        )
        run.seconds["verify"] += time.perf_counter() - ordered
        seconds = {stage: round(value, 4) for stage, value in run.seconds.items()}
        seconds["extract"] = round(extraction_seconds, 4)
        seconds["total"] = round(extraction_seconds + time.perf_counter() - started, 4)
        expanded_with = run.expanded_with if self.config.expansion.is_on else None
        return SearchResponse(query, results, seconds, expanded_with)


def _result(
    rank: int,
    query: ImageFeatures,
    candidate: Candidate,
    image: StoredImage,
    local: LocalFeatures,
) -> SearchResult:
    outline = np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32)
    if candidate.verification is not None:
        outline = regions(query.local, local, candidate.verification, query.size, image.size)
    return SearchResult(rank, image, candidate, local, *outline)


def result_as_dict(result: SearchResult) -> dict[str, Any]:
    """A result as the command line and the service report it."""
    verification, expanded = result.candidate.verification, result.candidate.expanded_similarity
    transform = None if verification is None else verification.database_from_query
    return {
        "rank": result.rank,
        "id": result.image.id,
        "path": str(result.image.path),
        "similarity": round(result.candidate.similarity, 6),
        "expanded_similarity": None if expanded is None else round(expanded, 6),
        "num_matches": 0 if verification is None else len(verification.matches),
        "num_inliers": result.candidate.num_inliers,
        "same": None if result.candidate.same is None else round(result.candidate.same, 6),
        "database_from_query": None if transform is None else transform.tolist(),
        "region": {
            "query": result.query_region.tolist(),
            "database": result.database_region.tolist(),
        },
    }


def result_evidence(result: SearchResult, query: ImageFeatures, side: Side) -> Evidence:
    """What is drawn of a result; `side` names the query photo."""
    verification, image = result.candidate.verification, result.image
    matches = np.zeros((0, 2), np.int64) if verification is None else verification.matches
    return Evidence(
        query=side,
        database=Side(image.path.name, image.path, image.size),
        rank=result.rank,
        similarity=result.candidate.similarity,
        num_matches=len(matches),
        num_inliers=result.candidate.num_inliers,
        same=result.candidate.same,
        query_points=query.local.keypoints[matches[:, 0]],
        database_points=result.local.keypoints[matches[:, 1]],
        inliers=np.zeros(0, bool) if verification is None else verification.inliers,
        query_region=result.query_region,
        database_region=result.database_region,
    )


def match_images(
    extractor: Extractor,
    query_image: DecodedImage,
    database_image: DecodedImage,
    database_path: Path,
    settings: VerificationSettings | None = None,
) -> tuple[ImageFeatures, SearchResult]:
    """Compare two images outside a collection: the query's features, and the only result."""
    query = extractor.extract(query_image)
    database = extractor.extract(database_image)
    similarity = float(query.global_descriptor @ database.global_descriptor)
    (candidate,) = compare(
        query,
        [0],
        [similarity],
        [database.size],
        [database.local],
        extractor.weights.same,
        settings_for(extractor.config, settings or VerificationSettings()),
    )
    image = StoredImage(
        0, database_path, Path(database_path.name), database.size, len(database.local)
    )
    return query, _result(1, query, candidate, image, database.local)


def query_side(path: Path, query: ImageFeatures) -> Side:
    """The query's side of its evidence."""
    return Side(path.name, path, query.size)
