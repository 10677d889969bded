"""Images written by tasks on other machines, on behalf of whoever holds the lease."""

from collections.abc import Sequence

import numpy as np

from opendelg.collection.catalogue import ImageRow
from opendelg.collection.cluster.opening import Cluster
from opendelg.collection.cluster.patience import patiently
from opendelg.collection.cluster.rows import NewImage, Slot, write_images
from opendelg.collection.packing import Precision, pack_local
from opendelg.collection.records import FileStat
from opendelg.features import ImageFeatures


class TaskWriter:
    """Writes to one collection from a task; what is written twice is there once."""

    def __init__(self, location: str, precision: Precision) -> None:
        self._tables, self._packs = Cluster(location).task_parts()
        self._precision: Precision = precision

    def write(self, images: Sequence[tuple[Slot, FileStat, ImageFeatures]]) -> None:
        """Writes images where they belong; all are there when this returns."""
        rows = [
            NewImage(*slot, self._row(stat, features))  # id, root, path
            for slot, stat, features in images
        ]
        patiently(lambda: write_images(self._tables, self._packs, rows))

    def _row(self, stat: FileStat, features: ImageFeatures) -> ImageRow:
        return ImageRow(
            stat=stat,
            size=(int(features.size[0]), int(features.size[1])),
            num_local=len(features.local),
            descriptor=np.asarray(features.global_descriptor).astype("<f4").tobytes(),
            record=pack_local(features.local, self._precision),
        )
