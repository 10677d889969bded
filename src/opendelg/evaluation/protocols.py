"""Each protocol as a value: a dataset that was read, the rules, and one call that runs it.

The commands of `delg evaluate` make them and call ``run``.  ``about`` is what the run will say made
it, as far as that is known before: a saved run that says the same need not be made again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from opendelg.collection import Collection
from opendelg.datasets.groups import GroupsDataset
from opendelg.datasets.places import PlacesDataset
from opendelg.datasets.revisited import (
    RevisitedDataset,
    RevisitedName,
    RevisitedPhotos,
    find_revisited_photos,
    read_revisited,
    require_photos,
)
from opendelg.evaluation.cropped import extract_queries, reduced_from
from opendelg.evaluation.distractor_sources import DistractorSource, find_distractors
from opendelg.evaluation.distractors import extract_distractors
from opendelg.evaluation.groups import (
    about_groups,
    evaluate_groups,
    index_whole,
    plan_groups,
    require_positives,
)
from opendelg.evaluation.landmark_data import LandmarkBenchmark
from opendelg.evaluation.landmark_recognition import (
    VoteConfig,
    about_recognition,
    evaluate_landmark_recognition,
)
from opendelg.evaluation.landmark_retrieval import evaluate_landmark_retrieval
from opendelg.evaluation.landmark_search import LandmarkSearch, Workload
from opendelg.evaluation.places import about_places, evaluate_places, plan_places
from opendelg.evaluation.preparation import PreparationConfig
from opendelg.evaluation.progress import ByteProgress, Progress, silent, silent_bytes
from opendelg.evaluation.provenance import provenance
from opendelg.evaluation.revisited import VerificationMode, about_revisited, evaluate_revisited
from opendelg.evaluation.revisited_database import RevisitedDatabase
from opendelg.evaluation.runs import Run
from opendelg.extraction import Box, Extractor
from opendelg.indexing import Plan, plan_indexing
from opendelg.search import SearchConfig


class ReadProtocol(Protocol):
    """A protocol whose dataset was read."""

    def about(self, extractor: Extractor) -> Mapping[str, Any]:
        """What the run will say made it, as far as it is known before."""

    def run(
        self,
        collection: Collection,
        extractor: Extractor,
        progress: Progress = silent,
        byte_progress: ByteProgress = silent_bytes,
    ) -> Run:
        """Extract what the collection lacks, and rank the database for every query.

        Raises:
            OpenDelgError: If an image cannot be read, or there is no figure to be had.
        """


@dataclass(frozen=True)
class Groups:
    """Photos labelled by groups; raises OpenDelgError if no query can find anything."""

    dataset: GroupsDataset
    config: SearchConfig
    preparation: PreparationConfig

    def __post_init__(self) -> None:
        require_positives(self.dataset)

    def about(self, extractor: Extractor) -> Mapping[str, Any]:
        """As of `ReadProtocol`."""
        return about_groups(self.dataset, extractor, self.config, self.preparation)

    def run(
        self,
        collection: Collection,
        extractor: Extractor,
        progress: Progress = silent,
        byte_progress: ByteProgress = silent_bytes,
    ) -> Run:
        """As of `ReadProtocol`."""
        _index(plan_groups(self.dataset, collection), collection, extractor, progress)
        with progress("searching", len(self.dataset.query_ids)) as advance:
            return evaluate_groups(
                self.dataset, collection, extractor, self.config, advance, self.preparation
            )


@dataclass(frozen=True)
class Revisited:
    """Revisited Oxford or Paris."""

    dataset: RevisitedDataset
    photos: RevisitedPhotos
    distractors: DistractorSource | None
    original_side: int | None  # px, longer side of the photos before they were reduced
    is_cropped: bool
    config: SearchConfig
    modes: tuple[VerificationMode, ...]

    @classmethod
    def read(
        cls,
        folder: Path,
        name: RevisitedName,
        config: SearchConfig,
        distractors: Path | None = None,
        subset: bool = False,
        original_side: int | None = None,
        is_cropped: bool = True,
        modes: tuple[VerificationMode, ...] = ("standard", "paper"),
    ) -> "Revisited":
        """The dataset in a folder; raises as the functions of `datasets.revisited`.

        Args:
            folder: Ground truth and photos.
            name: Of the dataset.
            config: How many candidates are verified.
            distractors: As of `find_distractors`; None: none.
            subset: Take the photos that are there; whether they are reduced is found out.
            original_side: As of `extract_queries`.
            is_cropped: As of `extract_queries`.
            modes: Ways to verify.
        """
        dataset = read_revisited(folder, name)
        photos = find_revisited_photos(dataset, folder)
        require_photos(dataset, photos, subset)
        source = None if distractors is None else find_distractors(distractors)
        if subset and original_side is None:
            original_side = reduced_from(_boxes(dataset, photos))
        return cls(dataset, photos, source, original_side, is_cropped, config, modes)

    def about(self, extractor: Extractor) -> Mapping[str, Any]:
        """As of `ReadProtocol`; what distractors there are is known by their files only."""
        distractors = None
        if self.distractors is not None:
            distractors = {"source_sha256": self.distractors.fingerprint()}
        present = list(self.photos.database)
        return about_revisited(
            self.dataset, present, distractors, extractor, self.config, self.modes
        )

    def run(
        self,
        collection: Collection,
        extractor: Extractor,
        progress: Progress = silent,
        byte_progress: ByteProgress = silent_bytes,
    ) -> Run:
        """As of `ReadProtocol`."""
        with progress("extracting queries", len(self.photos.queries)) as advance:
            cropped = extract_queries(
                _boxes(self.dataset, self.photos),
                extractor,
                self.original_side,
                is_cropped=self.is_cropped,
                want_local=self.config.rerank > 0,
                progress=advance,
            )
            queries = dict(zip(self.photos.queries, cropped, strict=True))
        plan = plan_indexing(collection, list(self.photos.database.values()))
        _index(plan, collection, extractor, progress)
        others = None
        if self.distractors is not None:
            others = extract_distractors(
                self.distractors, collection, extractor, progress, byte_progress
            )
        return evaluate_revisited(
            RevisitedDatabase.of(self.dataset, self.photos, collection, others),
            queries,
            extractor,
            self.config,
            self.modes,
            self._notes(),
            progress,
        )

    def _notes(self) -> list[str]:
        """What the options change of the protocol."""
        notes = []
        if not self.is_cropped:
            notes.append("NOT COMPARABLE: queries are whole photos; published queries are cropped")
        if self.original_side is not None:
            notes.append(
                f"REDUCED PHOTOS: boxes are scaled from a longer side of {self.original_side} px: "
                "not comparable with published figures"
            )
        return notes


@dataclass(frozen=True)
class Places:
    """Place recognition."""

    dataset: PlacesDataset
    config: SearchConfig

    def about(self, extractor: Extractor) -> Mapping[str, Any]:
        """As of `ReadProtocol`."""
        return about_places(self.dataset, extractor, self.config)

    def run(
        self,
        collection: Collection,
        extractor: Extractor,
        progress: Progress = silent,
        byte_progress: ByteProgress = silent_bytes,
    ) -> Run:
        """As of `ReadProtocol`."""
        _index(plan_places(self.dataset, collection), collection, extractor, progress)
        count = len(self.dataset.queries) if self.config.rerank else 0
        with progress("searching", count) as advance:
            return evaluate_places(self.dataset, collection, extractor, self.config, advance)


@dataclass(frozen=True)
class LandmarkRetrieval:
    """Retrieval on Google Landmarks v2."""

    benchmark: LandmarkBenchmark
    config: SearchConfig

    def about(self, extractor: Extractor) -> Mapping[str, Any]:
        """As of `ReadProtocol`."""
        return provenance(extractor, self.config, self.benchmark.about)

    def run(
        self,
        collection: Collection,
        extractor: Extractor,
        progress: Progress = silent,
        byte_progress: ByteProgress = silent_bytes,
    ) -> Run:
        """As of `ReadProtocol`."""
        search = _landmark_search(self.benchmark, collection, extractor, progress)
        return evaluate_landmark_retrieval(self.benchmark, search, extractor, self.config)


@dataclass(frozen=True)
class LandmarkRecognition:
    """Recognition on Google Landmarks v2."""

    benchmark: LandmarkBenchmark
    config: SearchConfig
    vote: VoteConfig

    def about(self, extractor: Extractor) -> Mapping[str, Any]:
        """As of `ReadProtocol`."""
        return about_recognition(self.benchmark, extractor, self.config, self.vote)

    def run(
        self,
        collection: Collection,
        extractor: Extractor,
        progress: Progress = silent,
        byte_progress: ByteProgress = silent_bytes,
    ) -> Run:
        """As of `ReadProtocol`."""
        search = _landmark_search(self.benchmark, collection, extractor, progress)
        return evaluate_landmark_recognition(
            self.benchmark, search, extractor, self.config, self.vote
        )


def _index(plan: Plan, collection: Collection, extractor: Extractor, progress: Progress) -> None:
    with progress("extracting", len(plan.work(update=True))) as advance:
        index_whole(collection, extractor, plan, advance)


def _landmark_search(
    benchmark: LandmarkBenchmark, collection: Collection, extractor: Extractor, progress: Progress
) -> LandmarkSearch:
    workload = Workload(batch_size=extractor.batch_size)
    return LandmarkSearch(benchmark, collection, extractor, progress, workload)


def _boxes(dataset: RevisitedDataset, photos: RevisitedPhotos) -> list[tuple[str, Path, Box]]:
    """Name, photo and box of each query that is there."""
    return [
        (dataset.query_names[n], path, tuple(dataset.boxes[n].tolist()))
        for n, path in photos.queries.items()
    ]
