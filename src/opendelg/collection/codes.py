"""One-bit codes of global descriptors: a thirty-second of their size, searched by table look-ups.

A code holds the signs of a rotated descriptor and two numbers that turn its agreement with a query
into an unbiased estimate of their product.  The best by estimate are measured exactly afterwards;
how many that takes is measured on the descriptors themselves.

Source: Gao and Long, "RaBitQ: Quantizing High-Dimensional Vectors with a Theoretical Error Bound",
SIGMOD 2024, as faiss has it; the rotation is a Hadamard matrix with random signs, the same for
all collections.
"""

from functools import lru_cache
from typing import Any

import numpy as np

from opendelg.scrambling import scrambled

RECALL_TARGET = 0.99  # of the 100 nearest, on average
RECALL_AT = 100
_NUM_PROBES = 20  # descriptors whose neighbours are searched to measure the recall
_NUM_CANDIDATES = (200, 500, 1000, 2000, 4000)  # for the 100 nearest
_BLOCK = 8192  # descriptors rotated at a time


class Codes:
    """Codes of descriptors, by position."""

    def __init__(self, index: Any) -> None:
        """Use `encode` or `from_bytes`."""
        self._index = index

    def __len__(self) -> int:
        """How many descriptors there are."""
        return int(self._index.ntotal)

    @classmethod
    def encode(cls, descriptors: np.ndarray) -> "Codes":
        """Codes of descriptors (N, D) float32, N at least 1."""
        faiss = _faiss()
        rotation = _rotation(descriptors.shape[1])
        index = faiss.IndexRaBitQFastScan(rotation.shape[1], faiss.METRIC_INNER_PRODUCT)
        # The centre that signs are taken around: the mean.
        centre: np.ndarray = descriptors.mean(axis=0, dtype=np.float64).astype(np.float32)
        index.train(centre[None] @ rotation)
        for start in range(0, len(descriptors), _BLOCK):
            index.add(np.asarray(descriptors[start : start + _BLOCK]) @ rotation)
        return cls(index)

    @classmethod
    def from_bytes(cls, content: bytes, num_dimensions: int) -> "Codes":
        """Codes from what `to_bytes` gave.

        Raises:
            ValueError: If they are not of descriptors of this length.
        """
        faiss = _faiss()
        try:
            index = faiss.deserialize_index(np.frombuffer(content, np.uint8))
        except RuntimeError as error:
            raise ValueError(f"codes must be those of faiss, got {error}") from error
        if not isinstance(index, faiss.IndexRaBitQFastScan) or index.d != _padded(num_dimensions):
            raise ValueError(f"codes must be of {num_dimensions} dimensions, got other ones")
        return cls(index)

    def to_bytes(self) -> bytes:
        """The codes as bytes, for files."""
        content: bytes = _faiss().serialize_index(self._index).tobytes()
        return content

    def search(
        self, query_descriptor: np.ndarray, k: int, turned: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The min(k, N) best by estimate.

        Args:
            query_descriptor: (D,) float32.
            k: How many, at least 1.
            turned: The same `rotated`, by a caller that searches many codes.

        Returns:
            Positions (K,) int64 and estimated products (K,) float32, best first.
        """
        k = min(k, len(self))
        turned = rotated(query_descriptor) if turned is None else turned
        estimates, positions = self._index.search(turned[None], k)
        found = positions[0] >= 0
        return positions[0][found], estimates[0][found]


def measured_candidates(codes: Codes, descriptors: np.ndarray) -> int | None:
    """How many candidates hold the 100 nearest of a descriptor with the recall aimed at.

    Args:
        codes: Of these descriptors.
        descriptors: (N, D) float32.

    Returns:
        Candidates to be measured exactly; None if no number tried suffices: then the codes do
        not serve these descriptors.
    """
    count = len(descriptors)
    if count < 2:
        return _NUM_CANDIDATES[0]
    probes = np.unique(np.linspace(0, count - 1, _NUM_PROBES).astype(np.int64))
    products = np.asarray(descriptors[probes]) @ np.asarray(descriptors).T
    products[np.arange(len(probes)), probes] = -np.inf  # nobody looks for what he holds
    nearest = np.argsort(-products, axis=1, kind="stable")[:, : min(RECALL_AT, count - 1)]
    for num_candidates in _NUM_CANDIDATES:
        recalls = []
        for probe, expected in zip(probes, nearest, strict=True):
            found, _ = codes.search(np.asarray(descriptors[probe]), num_candidates)
            recalls.append(np.isin(expected, found).mean())
        if np.mean(recalls) >= RECALL_TARGET:
            return num_candidates
    return None


def code_bytes(count: int, num_dimensions: int) -> int:
    """Bytes of the codes of so many descriptors: what `Codes.to_bytes` gives, within 1 KiB."""
    padded = _padded(num_dimensions)
    # A bit for each dimension and two float32; faiss packs 32 rows together.
    return -(-count // 32) * 32 * (padded // 8 + 8) + 4 * padded


def rotated(descriptor: np.ndarray) -> np.ndarray:
    """A descriptor (D,) float32 in the coordinates of the codes (P,)."""
    turned: np.ndarray = descriptor @ _rotation(len(descriptor))
    return turned


def _padded(num_dimensions: int) -> int:
    """The power of two that Hadamard's matrix needs, at least what faiss packs."""
    return max(8, 1 << (num_dimensions - 1).bit_length())


@lru_cache(maxsize=2)
def _rotation(num_dimensions: int) -> np.ndarray:
    """(D, P) float32 with orthonormal rows; nothing random, so nothing has to be kept."""
    padded = _padded(num_dimensions)
    matrix = np.ones((1, 1), np.float32)
    while len(matrix) < padded:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    signs = np.where(scrambled(np.arange(num_dimensions, dtype=np.uint64)) & np.uint64(1), 1, -1)
    rotation: np.ndarray = np.ascontiguousarray(
        matrix[:num_dimensions] * (signs[:, None] / np.sqrt(padded)), np.float32
    )
    return rotation


def _faiss() -> Any:
    """The faiss module, imported when it is first needed: that takes 0.3 s."""
    import faiss

    return faiss
