"""Database images compared with a query, and their order."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from opendelg.expansion import ExpansionConfig
from opendelg.extraction import ExtractionConfig
from opendelg.features import ImageFeatures, LocalFeatures
from opendelg.fusion import order_of_verified
from opendelg.same import SameModel, is_confident
from opendelg.verification import Verification, VerificationSettings, verify_many

VERIFIED_AT_A_TIME = 16  # candidates between looks at the clock; 8 for each of two threads
MAX_SIDE = 1_000_000  # px, longer than any image: extraction without a limit


@dataclass(frozen=True)
class Candidate:
    """A database image that was compared with the query."""

    id: int
    similarity: float  # dot product of the global descriptors
    verification: Verification | None  # None: not among those that were verified
    same: float | None  # probability of showing the same thing; None: not verified
    expanded_similarity: float | None = None  # to the expanded query; None: it was not expanded

    @property
    def num_inliers(self) -> int:
        """Matches that agree with one transform; 0 if not verified."""
        return 0 if self.verification is None else self.verification.num_inliers

    @property
    def sought_similarity(self) -> float:
        """To what was searched with: the query, or the query as it was expanded."""
        return self.similarity if self.expanded_similarity is None else self.expanded_similarity

    @property
    def is_confident(self) -> bool:
        """Whether the same thing is likely enough to be called found."""
        return is_confident(self.same)


def settings_for(config: ExtractionConfig, settings: VerificationSettings) -> VerificationSettings:
    """Verification settings that know the sizes to which this extraction brings images."""
    largest = config.max_size if config.max_size > 0 else MAX_SIDE
    return replace(settings, max_image_size=largest, min_image_size=max(1, config.min_size))


def rerank(candidates: Sequence[Candidate], settings: VerificationSettings) -> list[Candidate]:
    """Candidates by similarity, to what was searched with, and inliers together, see `fusion`."""
    order = order_of_verified(
        np.array([found.sought_similarity for found in candidates]),
        np.array([found.num_inliers for found in candidates]),
        np.array([found.id for found in candidates]),
        settings,
    )
    return [candidates[position] for position in order]


def confirmed(candidates: Sequence[Candidate], config: ExpansionConfig) -> list[Candidate]:
    """Those that verification is sure of: what a query may be expanded with."""
    return [
        found
        for found in candidates
        if (found.num_inliers >= config.min_inliers if found.same is None else found.is_confident)
    ]


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
