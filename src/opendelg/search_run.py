"""One search from the first stage to the last, an expanded query searched again included."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from opendelg.candidates import Candidate, compare, confirmed, rerank, settings_for
from opendelg.collection import Collection, StoredImage
from opendelg.expansion import ExpansionConfig, expand
from opendelg.extraction import Extractor
from opendelg.features import ImageFeatures, LocalFeatures
from opendelg.verification import VerificationSettings


@dataclass(frozen=True)
class SearchConfig:
    """How a query is answered."""

    top: int = 20  # results
    rerank: int = 100  # candidates that are verified; SPEC 4.1: 100; 0: none
    verification: VerificationSettings = field(default_factory=VerificationSettings)
    expansion: ExpansionConfig = field(default_factory=ExpansionConfig)

    def __post_init__(self) -> None:
        if self.top < 1:
            raise ValueError(f"top must be at least 1, got {self.top}")
        if self.rerank < 0:
            raise ValueError(f"rerank must be at least 0, got {self.rerank}")
        if self.expansion.verified and self.rerank == 0:
            raise ValueError("rerank must be at least 1 to expand with what it confirms, got 0")


class SearchRun:
    """One search: what was found and compared so far, and how long it took."""

    def __init__(
        self,
        collection: Collection,
        extractor: Extractor,
        config: SearchConfig,
        query: ImageFeatures,
        without: int | None = None,
        deadline: float | None = None,
    ) -> None:
        """Prepare a search.

        Args:
            collection: What is searched.
            extractor: What made its features; its weights rate the pairs.
            config: How to search.
            query: Features of the query.
            without: Id of an image to leave out.
            deadline: Time of `time.perf_counter` at which verification stops, done or not.
        """
        self._collection, self._extractor, self._config = collection, extractor, config
        self._query, self._without, self._deadline = query, without, deadline
        self._sought = query.global_descriptor  # what is searched with
        self._ids: list[int] = []  # nearest to it, best first
        self._similarities: dict[int, float] = {}  # to the query itself
        self._descriptors: dict[int, np.ndarray] = {}  # read if the query may be expanded
        self._compared: dict[int, Candidate] = {}
        self.images: dict[int, StoredImage] = {}
        self.locals: dict[int, LocalFeatures] = {}  # of the images that were verified
        self.seconds = {"nearest": 0.0, "read": 0.0, "verify": 0.0}
        self.expanded_with: tuple[int, ...] = ()  # ids of the images added to the query

    def search(self) -> list[Candidate]:
        """Find, compare and order, best first; more than are asked for."""
        expansion = self._config.expansion
        # The collection is read in one state at a time, not held while images are verified.
        with self._collection.snapshot():
            self._find()
            if expansion.nearest > 0:
                self._expand(self._ids[: expansion.nearest])
            self._read()
        self._verify()
        if expansion.verified:
            sure = [found.id for found in confirmed(list(self._compared.values()), expansion)]
            with self._collection.snapshot():
                self._expand(sure)
                self._read()
            self._verify()
        compared = [self._sought_candidate(found) for found in self._compared.values()]
        if not self.is_complete:  # whoever was verified first has no right to come first
            compared.sort(key=lambda found: (-found.sought_similarity, found.id))
        ranked = rerank(compared, self._config.verification) if self.is_complete else compared
        return ranked + [
            self._sought_candidate(Candidate(image_id, self._similarity(image_id), None, None))
            for image_id in self._ids
            if image_id not in self._compared
        ]

    @property
    def is_complete(self) -> bool:
        """Whether all that was to be verified is."""
        return all(found.verification is not None for found in self._compared.values())

    def _find(self) -> None:
        """Look for what is nearest to the query as it is now."""
        with self._timed("nearest"):
            config = self._config
            wanted = max(config.top, config.rerank, config.expansion.nearest)
            ids, similarities = self._collection.nearest(
                self._sought, wanted + (self._without is not None)
            )
            found = dict(zip(ids.tolist(), similarities.tolist(), strict=True))
            found.pop(self._without, None)
            self._ids = list(found)
            if not self.expanded_with:
                self._similarities = found
            if config.expansion.is_on:
                for image_id in self._ids:
                    if image_id not in self._descriptors:
                        descriptor = self._collection.global_descriptor(image_id)
                        self._descriptors[image_id] = descriptor

    def _expand(self, ids: Sequence[int]) -> None:
        """Average the query with those of these images that count, and look again."""
        similarities = np.array([self._similarity(image_id) for image_id in ids])
        added = tuple(i for i, value in zip(ids, similarities, strict=True) if value > 0)
        if not added:
            return
        self.expanded_with = added
        self._sought = expand(
            self._query.global_descriptor,
            np.stack([self._descriptors[image_id] for image_id in added]),
            similarities[similarities > 0],
            self._config.expansion.alpha,
        )
        self._find()

    def _read(self) -> None:
        """Read what is needed to compare what was found, and to show it."""
        with self._timed("read"):
            self.images |= {image.id: image for image in self._collection.images(self._ids)}
            new = self._new()
            self.locals |= zip(new, self._collection.local_features(new), strict=True)

    def _verify(self) -> None:
        """Compare the query's local features with those of the nearest, as far as it is new."""
        with self._timed("verify"):
            new = self._new()
            found = compare(
                self._query,
                new,
                [self._similarity(image_id) for image_id in new],
                [self.images[image_id].size for image_id in new],
                [self.locals[image_id] for image_id in new],
                self._extractor.weights.same,
                settings_for(self._extractor.config, self._config.verification),
                self._deadline,
            )
            self._compared |= {candidate.id: candidate for candidate in found}

    def _new(self) -> list[int]:
        """The nearest that are to be verified and are not yet."""
        return [i for i in self._ids[: self._config.rerank] if i not in self._compared]

    def _similarity(self, image_id: int) -> float:
        """Similarity to the query itself."""
        if image_id in self._similarities:
            return self._similarities[image_id]
        return _product(self._descriptors[image_id], self._query.global_descriptor)

    def _sought_candidate(self, found: Candidate) -> Candidate:
        """A candidate with its similarity to the expanded query, if there is one."""
        if not self.expanded_with:
            return found
        similarity = _product(self._descriptors[found.id], self._sought)
        return replace(found, expanded_similarity=similarity)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[stage] += time.perf_counter() - started


def _product(descriptor: np.ndarray, other: np.ndarray) -> float:
    """Similarity as the collection's index rounds it."""
    products = descriptor.astype(np.float64) * other.astype(np.float64)
    return float(products.sum().astype(np.float32))
