"""Nearest neighbours by Milvus, measured again so that they come as from a folder."""

import numpy as np

from opendelg.collection.cluster.address import Address
from opendelg.collection.cluster.catalogue import ClusterCatalogue
from opendelg.collection.cluster.rows import ALL_BUT_DESCRIPTOR
from opendelg.collection.cluster.tables import MAX_FOUND, Tables
from opendelg.collection.nearest import measured
from opendelg.errors import OpenDelgError

_SPARE = 16  # candidates beyond k, so that ties and rounding at the end are seen
_ROUNDING = 1e-5  # similarity; more than float32 sums of unit vectors can be off


class MilvusIndex:
    """The index that Milvus keeps of the table of images."""

    def __init__(self, address: Address, tables: Tables, catalogue: ClusterCatalogue) -> None:
        self._address = address
        self._tables = tables
        self._catalogue = catalogue

    def forget(self) -> None:
        """Nothing is in memory."""

    def search(self, query_descriptor: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The min(k, N) most similar images: exactly with a FLAT index, else nearly.

        Args:
            query_descriptor: (D,) float32, unit length.
            k: Number of images wanted.

        Returns:
            ids (K,) int64 and exact similarities (K,) float32: most similar first, ties by id.

        Raises:
            OpenDelgError: If k is more than Milvus can return.
        """
        if k > MAX_FOUND:
            raise OpenDelgError(
                f"number of candidates must be at most {MAX_FOUND} on a cluster, got {k}"
            )
        asked = min(k + _SPARE, MAX_FOUND)
        while True:
            found = self._tables.nearest(
                query_descriptor, asked, [*ALL_BUT_DESCRIPTOR, "descriptor"]
            )
            if not found:
                return np.zeros(0, np.int64), np.zeros(0, np.float32)
            ids = np.array([row["id"] for _, row in found], np.int64)
            rows = np.array([row["descriptor"] for _, row in found], np.float32)
            ids, similarities = measured(ids, rows, query_descriptor)
            # Whatever Milvus left out is no better than its last row.
            is_whole = len(found) < asked or asked == MAX_FOUND
            if is_whole or found[-1][0] < similarities[k - 1] - _ROUNDING:
                self._catalogue.keep([row for _, row in found])
                return ids[:k], similarities[:k]
            asked = min(4 * asked, MAX_FOUND)

    def save(self) -> None:
        """Removes the features that changes left without an image; Milvus does the rest."""
        self._catalogue.drop_unused_packs()
        self._catalogue.forget_files()

    def described(self) -> str:
        """How a search goes, in words."""
        exactly = "exact" if self._address.index == "FLAT" else f"nearly, {self._address.index}"
        return f"Milvus, {exactly}, {self._catalogue.count()} images"
