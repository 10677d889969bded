"""Images written by tasks on other machines, on behalf of whoever holds the lease."""

import logging
import time
from collections.abc import Sequence

import numpy as np

from opendelg.collection.catalogue import ImageRow
from opendelg.collection.cluster.opening import Cluster
from opendelg.collection.cluster.rows import NewImage, Slot, write_images
from opendelg.collection.packing import Precision, pack_local
from opendelg.collection.records import FileStat
from opendelg.errors import UnavailableError
from opendelg.features import ImageFeatures

_log = logging.getLogger(__name__)

PATIENCE_SECONDS = 300.0  # for a service that is down, before the task fails and is tried elsewhere


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
        end = time.monotonic() + PATIENCE_SECONDS
        pause = 1.0  # s
        while True:
            try:
                write_images(self._tables, self._packs, rows)
                return
            except UnavailableError as error:
                if time.monotonic() + pause > end:
                    raise
                _log.warning("%s; trying again in %.0f s", error, pause)
            time.sleep(pause)
            pause = min(2 * pause, 30.0)

    def _row(self, stat: FileStat, features: ImageFeatures) -> ImageRow:
        return ImageRow(
            stat=stat,
            size=(int(features.size[0]), int(features.size[1])),
            num_local=len(features.local),
            descriptor=np.asarray(features.global_descriptor).astype("<f4").tobytes(),
            record=pack_local(features.local, self._precision),
        )
