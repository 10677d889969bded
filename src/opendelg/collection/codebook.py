"""Product quantisation of local descriptors: one byte for four numbers, by a codebook.

A descriptor is cut into parts of four columns, and each part is replaced by the nearest of 256
that were learnt on the collection's own first descriptors.

Source: Jégou, Douze and Schmid, "Product quantization for nearest neighbor search", TPAMI 2011;
k-means and the assignment are faiss's.
"""

import struct
import zlib
from functools import cached_property
from typing import Any

import numpy as np

from opendelg.errors import FormatError

PART = 4  # columns for a byte
LEARNT_ON = 65_536  # descriptors, 256 for each entry of a part
_ENTRIES = 256
_HEADER = struct.Struct("<4sII")  # magic, parts, crc32 of the entries
_MAGIC = b"DLPQ"


class Codebook:
    """What the bytes of product-quantised descriptors stand for."""

    def __init__(self, entries: np.ndarray) -> None:
        """Keep entries (D / 4, 256, 4) float32."""
        self.entries = entries

    @property
    def num_dimensions(self) -> int:
        """Columns of a descriptor, D."""
        return len(self.entries) * PART

    @classmethod
    def learn(cls, descriptors: np.ndarray) -> "Codebook":
        """A codebook of descriptors (N, D) float32; N at least 256, D a multiple of 4."""
        quantiser = _faiss().ProductQuantizer(descriptors.shape[1], descriptors.shape[1] // PART, 8)
        quantiser.train(np.ascontiguousarray(descriptors, np.float32))
        entries = _faiss().vector_to_array(quantiser.centroids)
        return cls(entries.reshape(-1, _ENTRIES, PART))

    @classmethod
    def from_bytes(cls, content: bytes) -> "Codebook":
        """What `to_bytes` gave.

        Raises:
            FormatError: If it is damaged.
        """
        if len(content) < _HEADER.size or content[:4] != _MAGIC:
            raise FormatError(f"codebook must start with {_MAGIC!r}, got {content[:4]!r}")
        _, num_parts, checksum = _HEADER.unpack_from(content)
        values = content[_HEADER.size :]
        if zlib.crc32(values) != checksum or len(values) != 4 * num_parts * _ENTRIES * PART:
            raise FormatError("codebook must be intact, got a damaged one")
        return cls(np.frombuffer(values, "<f4").reshape(num_parts, _ENTRIES, PART))

    def to_bytes(self) -> bytes:
        """All of it, for the catalogue."""
        values = self.entries.astype("<f4").tobytes()
        return _HEADER.pack(_MAGIC, len(self.entries), zlib.crc32(values)) + values

    def encode(self, descriptors: np.ndarray) -> np.ndarray:
        """Bytes (N, D / 4) uint8 of descriptors (N, D)."""
        codes: np.ndarray = self._quantiser.compute_codes(
            np.ascontiguousarray(descriptors, np.float32)
        )
        return codes

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Descriptors (N, D) float32 that bytes (N, D / 4) uint8 stand for."""
        rows: np.ndarray = self.entries[np.arange(len(self.entries)), codes]
        return rows.reshape(len(codes), self.num_dimensions)

    @cached_property
    def _quantiser(self) -> Any:
        faiss = _faiss()
        quantiser = faiss.ProductQuantizer(self.num_dimensions, len(self.entries), 8)
        faiss.copy_array_to_vector(self.entries.astype(np.float32).ravel(), quantiser.centroids)
        return quantiser


def _faiss() -> Any:
    """The faiss module, imported when it is first needed: that takes 0.3 s."""
    import faiss

    return faiss
