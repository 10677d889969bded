"""Two-stage search: nearest global descriptors, then re-ranking by verified local matches."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from opendelg.collection import Collection, StoredImage
from opendelg.extraction import Box, ExtractionConfig, Extractor
from opendelg.features import ImageFeatures, LocalFeatures
from opendelg.image import DecodedImage
from opendelg.same import SameModel, is_confident
from opendelg.verification import Verification, VerificationSettings, regions, verify_many

VERIFIED_AT_A_TIME = 16  # candidates between looks at the clock; 8 for each of two threads
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
    is_complete: bool = True  # all candidates were verified; else in order of similarity


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
    deadline: float | None = None,
) -> list[Candidate]:
    """Verify database images against a query, in their order.

    Once `time.perf_counter` is past ``deadline`` the rest is left without verification.
    """
    verifications = _verify_until(deadline, query, locals_, sizes, settings)
    num_verified = len(verifications)
    probabilities: Sequence[float | None] = [None] * num_verified
    if same is not None and verifications:
        probabilities = same.probability(
            np.asarray(similarities[:num_verified]),
            np.array([found.support for found in verifications]),
            np.array([found.spread for found in verifications]),
        ).tolist()
    unverified = [None] * (len(locals_) - num_verified)
    return [
        Candidate(int(image_id), float(similarity), found, probability)
        for image_id, similarity, found, probability in zip(
            ids,
            similarities,
            [*verifications, *unverified],
            [*probabilities, *unverified],
            strict=True,
        )
    ]


def _verify_until(
    deadline: float | None,
    query: ImageFeatures,
    locals_: Sequence[LocalFeatures],
    sizes: Sequence[tuple[int, int]],
    settings: VerificationSettings,
) -> list[Verification]:
    """Verifications of the first images, of all of them if there is time."""
    if deadline is None:
        return verify_many(query.local, locals_, query.size, sizes, settings)
    found: list[Verification] = []
    while len(found) < len(locals_) and time.perf_counter() < deadline:
        part = slice(len(found), len(found) + VERIFIED_AT_A_TIME)
        found += verify_many(query.local, locals_[part], query.size, sizes[part], settings)
    return found


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
            deadline,
        )
        is_complete = all(found.verification is not None for found in candidates)
        ranked = (rerank(candidates) if is_complete else candidates) + [
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
        return SearchResponse(query, results, seconds, is_complete)


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
