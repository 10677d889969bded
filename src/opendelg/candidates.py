"""Database images compared with a query, and their order."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from opendelg.expansion import ExpansionConfig
from opendelg.extraction import ExtractionConfig
from opendelg.features import ImageFeatures, LocalFeatures
from opendelg.same import SameModel, is_confident
from opendelg.verification import Verification, VerificationSettings, verify_many

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


def rerank(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Order candidates by inliers, then similarity, then id (SPEC 4.1).

    Images that only an expanded query found, and that share nothing with the query itself, thus
    come last, by their similarity to the expanded query.
    """
    return sorted(
        candidates, key=lambda found: (-found.num_inliers, -found.sought_similarity, found.id)
    )


def confirmed(candidates: Sequence[Candidate], config: ExpansionConfig) -> list[Candidate]:
    """Those that verification is sure of, the surest first: what a query may be expanded with."""
    sure = [
        found
        for found in candidates
        if (found.num_inliers >= config.min_inliers if found.same is None else found.is_confident)
    ]
    return rerank(sure)


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
