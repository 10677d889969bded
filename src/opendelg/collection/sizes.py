"""Bytes that a collection takes on disk and in memory, before there is one.

All of it follows from the layouts: SQLite's table pages, the records of `packing`, and the files
of `nearest` and `segments`.  A test holds these figures against a collection that was written.

Source: "Database File Format", sqlite.org/fileformat2.html, sections 1.6 (B-tree pages) and 2.1
(records).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from opendelg.collection.codes import code_bytes
from opendelg.collection.current_index import SEGMENT_ROWS
from opendelg.collection.packing import Precision, record_bytes
from opendelg.collection.schema import PAGE_BYTES

_PAGE_HEADER = 8  # bytes of a leaf
_CELL = 2 + 3 + 4  # bytes: pointer to a cell, its size and its row's id, mostly less
_INNER_CELL = 2 + 4 + 4  # bytes of an inner page for each page below it
_FACTS = 101  # bytes of an image's row without its path: numbers, SHA-256, lengths of all
_INDEXED = 9  # bytes of an image's row in the index by path, without the path
_INDEX_FILL = 0.7  # of the pages of an index that grows at its end
_GLOBAL = 12  # bytes of a global descriptor's row without the descriptor
_LOCAL = 7  # bytes of a local record's row without the record
_EMPTY = 12 * PAGE_BYTES  # a catalogue without images
_TRAILERS = 200  # bytes of a file beside its arrays
_SIMULATED = 10_000  # rows


@dataclass(frozen=True)
class CollectionSizes:
    """Bytes of a collection; of `Layout` and a number of images."""

    catalogue: int  # on disk: the truth
    index: int  # on disk: derived from it
    exact_images: int  # searched one by one
    coded_images: int  # searched by codes
    search_memory: int  # that a search holds for the index
    mapped: int  # of descriptors on the disk, which are fast to read as far as memory is free
    index_memory: int  # that indexing holds for the index, at most

    @property
    def disk(self) -> int:
        """All files."""
        return self.catalogue + self.index


@dataclass(frozen=True)
class Layout:
    """What an image takes."""

    global_dimensions: int
    local_dimensions: int
    precision: Precision
    num_keypoints: Sequence[int]  # of each image of a sample
    path_bytes: Sequence[int]  # of each image of a sample, below its root

    def record_bytes(self) -> float:
        """Of local features, on average over the sample."""
        return _mean(
            [record_bytes(n, self.local_dimensions, self.precision) for n in self.num_keypoints]
        )

    def image_bytes(self) -> float:
        """Of the catalogue, on average over the sample."""
        records = [
            _LOCAL + record_bytes(n, self.local_dimensions, self.precision)
            for n in self.num_keypoints
        ]
        return (
            row_bytes([_GLOBAL + 4 * self.global_dimensions])
            + row_bytes(records)
            + row_bytes([_FACTS + n for n in self.path_bytes])
            + row_bytes([_INDEXED + n for n in self.path_bytes]) / _INDEX_FILL
        )

    def of(self, num_images: int) -> CollectionSizes:
        """Bytes of a collection of so many images, all added before its index was made."""
        num_segments, num_exact = divmod(num_images, SEGMENT_ROWS)
        row = 4 * self.global_dimensions + 8  # a descriptor and its id
        codes = num_segments * code_bytes(SEGMENT_ROWS, self.global_dimensions)
        coded = num_segments * SEGMENT_ROWS
        return CollectionSizes(
            catalogue=_EMPTY + round(num_images * self.image_bytes()),
            index=num_images * row + codes + (num_segments + 1) * _TRAILERS,
            exact_images=num_exact,
            coded_images=coded,
            search_memory=num_exact * row + codes + 9 * coded,  # ids, and which are live
            mapped=4 * self.global_dimensions * coded,
            # Rows to be set aside, their codes, and the codes as bytes.
            index_memory=min(num_images, SEGMENT_ROWS) * row
            + 2 * code_bytes(min(num_images, SEGMENT_ROWS), self.global_dimensions)
            + codes,
        )


def row_bytes(payloads: Sequence[int]) -> float:
    """Bytes of the file for a row, on average, in a table that grows at its end.

    Rows of these sizes follow each other again and again.  A page is left when the next row does
    not fit; a row that is too large for any leaves its rest in pages of its own.
    """
    cells, num_spilled = zip(*(_cell(payload) for payload in payloads), strict=True)
    repeats = max(1, _SIMULATED // len(payloads))
    num_pages, left = 1, PAGE_BYTES - _PAGE_HEADER
    for cell in cells * repeats:
        if cell > left:
            num_pages, left = num_pages + 1, PAGE_BYTES - _PAGE_HEADER
        left -= cell
    leaves = num_pages * PAGE_BYTES / (repeats * len(payloads))
    return leaves * (1 + _INNER_CELL / PAGE_BYTES) + PAGE_BYTES * _mean(num_spilled)


def _cell(payload: int) -> tuple[int, int]:
    """Bytes of a leaf that a row takes, and pages of its own."""
    most = PAGE_BYTES - 35
    if payload <= most:
        return payload + _CELL, 0
    least = (PAGE_BYTES - 12) * 32 // 255 - 23
    local = least + (payload - least) % (PAGE_BYTES - 4)
    local = least if local > most else local
    return local + _CELL + 4, -(-(payload - local) // (PAGE_BYTES - 4))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(1, len(values))
