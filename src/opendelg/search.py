"""Two-stage search: nearest global descriptors, then re-ranking by verified local matches."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from opendelg.candidates import Candidate as Candidate
from opendelg.candidates import compare as compare
from opendelg.candidates import rerank as rerank
from opendelg.candidates import settings_for as settings_for
from opendelg.collection import Collection, StoredImage
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
    is_complete: bool = True  # all candidates were verified; else in order of similarity
    expanded_with: tuple[int, ...] | None = None  # ids added to the query; None: not asked for


class Searcher:
    """Searches one collection with the extractor that made it.

    Not for several threads, but for `search_features` and `compare_with`, which extract nothing.
    """

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

    def compare_with(self, query: ImageFeatures, image_id: int) -> SearchResult:
        """Compare a query with one image of the collection: what a search says of this image."""
        with self.collection.snapshot():
            image = self.collection.image(image_id)
            similarity = self.collection.similarity(image_id, query.global_descriptor)
            (local,) = self.collection.local_features([image_id])
        settings = settings_for(self.extractor.config, self.config.verification)
        same = self.extractor.weights.same
        (candidate,) = compare(
            query, [image_id], [similarity], [image.size], [local], same, settings
        )
        return _result(1, query, candidate, image, local)

    def search_features(
        self,
        query: ImageFeatures,
        extraction_seconds: float = 0.0,
        without: int | None = None,
        deadline: float | None = None,
    ) -> SearchResponse:
        """Find what shows the same thing as an image with these features.

        Args:
            query: As the extractor of this searcher makes them; several threads may search.
            extraction_seconds: What they took, for the answer.
            without: Id of an image to leave out of the results.
            deadline: Time of `time.perf_counter` at which verification stops, if it is not done:
                results are then in order of similarity.
        """
        started = time.perf_counter()
        run = SearchRun(self.collection, self.extractor, self.config, query, without, deadline)
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
        return SearchResponse(query, results, seconds, run.is_complete, expanded_with)


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
