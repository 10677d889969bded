"""Two-stage search: nearest global descriptors, then re-ranking by verified local matches."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from opendelg.collection import Collection, StoredImage
from opendelg.evidence import Evidence, Side
from opendelg.extraction import Box, ExtractionConfig, Extractor
from opendelg.features import ImageFeatures, LocalFeatures
from opendelg.image import DecodedImage
from opendelg.same import SameModel, is_confident
from opendelg.verification import Verification, VerificationSettings, regions, verify_many

MAX_SIDE = 1_000_000  # px, longer than any image: extraction without a limit


@dataclass(frozen=True)
class SearchConfig:
    """How a query is answered."""

    top: int = 20  # results
    rerank: int = 100  # candidates that are verified; SPEC 4.1: 100; 0: none
    verification: VerificationSettings = field(default_factory=VerificationSettings)

    def __post_init__(self) -> None:
        if self.top < 1:
            raise ValueError(f"top must be at least 1, got {self.top}")
        if self.rerank < 0:
            raise ValueError(f"rerank must be at least 0, got {self.rerank}")


@dataclass(frozen=True)
class Candidate:
    """A database image that was compared with the query."""

    id: int
    similarity: float  # dot product of the global descriptors
    verification: Verification | None  # None: not among those that were verified
    same: float | None  # probability of showing the same thing; None: not verified

    @property
    def num_inliers(self) -> int:
        """Matches that agree with one transform; 0 if not verified."""
        return 0 if self.verification is None else self.verification.num_inliers

    @property
    def is_confident(self) -> bool:
        """Whether the same thing is likely enough to be called found."""
        return is_confident(self.same)


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


def settings_for(config: ExtractionConfig, settings: VerificationSettings) -> VerificationSettings:
    """Verification settings that know the sizes to which this extraction brings images."""
    largest = config.max_size if config.max_size > 0 else MAX_SIDE
    return replace(settings, max_image_size=largest, min_image_size=max(1, config.min_size))


def rerank(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Order candidates by inliers, then similarity, then id (SPEC 4.1)."""
    return sorted(candidates, key=lambda found: (-found.num_inliers, -found.similarity, found.id))


def compare(
    query: ImageFeatures,
    ids: Sequence[int] | np.ndarray,
    similarities: Sequence[float] | np.ndarray,
    sizes: Sequence[tuple[int, int]],
    locals_: Sequence[LocalFeatures],
    same: SameModel | None,
    settings: VerificationSettings,
) -> list[Candidate]:
    """Verify database images against a query, in their order."""
    verifications = verify_many(query.local, locals_, query.size, sizes, settings)
    probabilities: Sequence[float | None] = [None] * len(verifications)
    if same is not None and verifications:
        probabilities = same.probability(
            np.asarray(similarities),
            np.array([found.support for found in verifications]),
            np.array([found.spread for found in verifications]),
        ).tolist()
    return [
        Candidate(int(image_id), float(similarity), found, probability)
        for image_id, similarity, found, probability in zip(
            ids, similarities, verifications, probabilities, strict=True
        )
    ]


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
        config, times = self.config, [time.perf_counter()]
        with self.collection.snapshot():
            wanted = max(config.top, config.rerank) + (without is not None)
            ids, similarities = self.collection.nearest(query.global_descriptor, wanted)
            if without is not None:
                similarities, ids = similarities[ids != without], ids[ids != without]
            times.append(time.perf_counter())
            images = {image.id: image for image in self.collection.images(ids)}
            verified = ids[: config.rerank]
            locals_ = dict(
                zip(verified.tolist(), self.collection.local_features(verified), strict=True)
            )
        times.append(time.perf_counter())
        candidates = compare(
            query,
            verified,
            similarities[: config.rerank],
            [images[int(image_id)].size for image_id in verified],
            list(locals_.values()),
            self.extractor.weights.same,
            settings_for(self.extractor.config, config.verification),
        )
        ranked = rerank(candidates) + [
            Candidate(int(image_id), float(similarity), None, None)
            for image_id, similarity in zip(
                ids[config.rerank :], similarities[config.rerank :], strict=True
            )
        ]
        empty = LocalFeatures.empty(query.local.descriptors.shape[1])
        results = tuple(
            _result(rank, query, found, images[found.id], locals_.get(found.id, empty))
            for rank, found in enumerate(ranked[: config.top], start=1)
        )
        times.append(time.perf_counter())
        seconds = dict(
            zip(("nearest", "read", "verify"), np.diff(times).round(4).tolist(), strict=True)
        )
        seconds["extract"] = round(extraction_seconds, 4)
        seconds["total"] = round(extraction_seconds + times[-1] - times[0], 4)
        return SearchResponse(query, results, seconds)


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
    verification = result.candidate.verification
    transform = None if verification is None else verification.database_from_query
    return {
        "rank": result.rank,
        "id": result.image.id,
        "path": str(result.image.path),
        "similarity": round(result.candidate.similarity, 6),
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
