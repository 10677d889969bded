"""The database of Revisited Oxford or Paris: photos in a collection, distractors behind them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from opendelg.collection import Collection
from opendelg.datasets.revisited import LISTS, RevisitedDataset, RevisitedPhotos
from opendelg.errors import OpenDelgError
from opendelg.evaluation.distractor_sources import DistractorSource, PhotoFolder
from opendelg.evaluation.distractors import Distractors
from opendelg.evaluation.groups import stored_ids
from opendelg.evaluation.progress import Progress, silent
from opendelg.evaluation.ranking import Ranking, StreamedRanking
from opendelg.features import LocalFeatures


@dataclass(frozen=True)
class RevisitedDatabase:
    """The images that queries are held against.

    Ids are those of the ground truth; distractors follow in the order of their shards.
    """

    dataset: RevisitedDataset
    collection: Collection
    present: np.ndarray  # (N,) int64 ids of the photos that are there, ascending
    stored: np.ndarray  # (N,) int64, the collection's id of each
    descriptors: np.ndarray  # (N, D) float32
    distractors: Distractors | None
    _prepared: dict[int, int] = field(default_factory=dict)  # of distractors, as ``stored``

    @classmethod
    def of(
        cls,
        dataset: RevisitedDataset,
        photos: RevisitedPhotos,
        collection: Collection,
        distractors: Distractors | None = None,
    ) -> "RevisitedDatabase":
        """The database in a collection that holds all its photos (see `groups.index_whole`).

        Raises:
            OpenDelgError: If the collection lacks one, or a distractor is of the dataset.
        """
        if distractors is not None:
            own = [*photos.queries.values(), *photos.database.values()]
            _require_others(distractors.source, own)
        stored = stored_ids(collection, list(photos.database.values()))
        ids, descriptors = collection.global_descriptors()
        return cls(
            dataset,
            collection,
            np.array(list(photos.database), np.int64),
            stored,
            descriptors[np.searchsorted(ids, stored)],
            distractors,
        )

    def __len__(self) -> int:
        return len(self.present) + (0 if self.distractors is None else len(self.distractors))

    def truth(self, queries: Sequence[int]) -> dict[str, tuple[np.ndarray, ...]]:
        """The three lists of queries (by position in the dataset), of the photos there are."""
        return {
            label: tuple(np.intersect1d(lists[query], self.present) for query in queries)
            for label, lists in zip(
                LISTS, (self.dataset.easy, self.dataset.hard, self.dataset.junk), strict=True
            )
        }

    def rank(
        self, query_descriptors: np.ndarray, judged: Sequence[np.ndarray], kept: int
    ) -> list[Ranking]:
        """Global rankings that keep the first images and all judged ones.

        Args:
            query_descriptors: (Q, D) float32.
            judged: Q arrays (J,) int64 of distinct ids.
            kept: How many of the first images are kept.
        """
        similarities = query_descriptors @ self.descriptors.T
        ranked = StreamedRanking(
            query_descriptors,
            judged,
            [
                row[np.searchsorted(self.present, ids)]
                for row, ids in zip(similarities, judged, strict=True)
            ],
            kept,
        )
        ranked.add(self.present, self.descriptors)
        start = len(self.dataset.names)
        for positions, block in self.distractors.blocks() if self.distractors is not None else ():
            ranked.add(start + positions, block)
        return ranked.rankings()

    def prepare(self, ids: np.ndarray, progress: Progress = silent) -> None:
        """Extract local features of those distractors among these images that lack them."""
        positions = np.unique(self._positions(ids))
        if self.distractors is not None and len(positions):
            stored = self.distractors.local_ids(positions, progress).tolist()
            self._prepared.update(zip(positions.tolist(), stored, strict=True))

    def local_features(self, ids: np.ndarray) -> tuple[list[tuple[int, int]], list[LocalFeatures]]:
        """Sizes (width, height) px and local features of images, in their order (see `prepare`)."""
        stored = np.zeros(len(ids), np.int64)
        is_photo = ids < len(self.dataset.names)
        stored[is_photo] = self.stored[np.searchsorted(self.present, ids[is_photo])]
        stored[~is_photo] = [self._prepared[p] for p in self._positions(ids).tolist()]
        sizes = [image.size for image in self.collection.images(stored)]
        return sizes, self.collection.local_features(stored)

    def names(self, ids: np.ndarray) -> dict[int, str]:
        """What images are called."""
        of_photos = {i: self.dataset.names[i] for i in ids.tolist() if i < len(self.dataset.names)}
        if self.distractors is None:
            return of_photos
        positions = self._positions(ids)
        named = zip(
            (positions + len(self.dataset.names)).tolist(),
            self.distractors.names(positions),
            strict=True,
        )
        return of_photos | dict(named)

    def _positions(self, ids: np.ndarray) -> np.ndarray:
        """Positions of the distractors among these ids, in their order."""
        positions: np.ndarray = ids[ids >= len(self.dataset.names)] - len(self.dataset.names)
        return positions


def _require_others(source: DistractorSource, photos: Sequence[Path]) -> None:
    """Raises OpenDelgError if distractors are photos of the dataset: no query looks for those."""
    if not isinstance(source, PhotoFolder):
        return
    root, own = os.path.realpath(source.root), {os.path.realpath(path) for path in photos}
    shared = [name for name in source.names if os.path.join(root, name) in own]
    if shared:
        raise OpenDelgError(
            f"distractors must be other photos than the dataset's, got {len(shared)} of these in "
            f"{str(source.root)!r}, first {shared[0]!r}"
        )
