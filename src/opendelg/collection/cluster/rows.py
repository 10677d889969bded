"""One image as a row of the table of images, and how rows are written: features first.

A crash between the two leaves a pack that no row names, which searches never see and
`delg verify --repair` removes; never a row without its features.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from opendelg.collection.catalogue import ImageFacts, ImageRow
from opendelg.collection.cluster.packs import FeaturePacks, Position
from opendelg.collection.cluster.place import parse_place, place_of
from opendelg.collection.cluster.tables import Row, Tables

POSITION = ["pack", "offset", "num_bytes"]
FACTS = ["place", "id", "file_size", "mtime_ns", "sha256", "width", "height", "num_local"]
ALL_BUT_DESCRIPTOR = [*FACTS, *POSITION, "checksum", "descriptor_checksum"]


class Slot(NamedTuple):
    """Where an image is to be written."""

    id: int
    root_id: int
    path: bytes


@dataclass(frozen=True)
class NewImage:
    """An image that is to be written, with the id that it has or gets."""

    id: int
    root_id: int
    path: bytes
    row: ImageRow

    @property
    def place(self) -> str:
        """Its key."""
        return place_of(self.root_id, self.path)

    @property
    def facts(self) -> ImageFacts:
        """What is stored apart from features."""
        stat, (width, height) = self.row.stat, self.row.size
        return ImageFacts(
            self.id,
            self.root_id,
            self.path,
            stat.size,
            stat.mtime_ns,
            stat.sha256,
            width,
            height,
            self.row.num_local,
        )


def write_images(tables: Tables, packs: FeaturePacks, images: Sequence[NewImage]) -> None:
    """Writes images; done again, by whomever, it changes nothing."""
    positions = packs.write([image.row.record for image in images])
    tables.put_images(
        [
            row_of(image.facts, position, image.row.descriptor)
            for image, position in zip(images, positions, strict=True)
        ]
    )


def row_of(facts: ImageFacts, position: Position, descriptor: bytes) -> Row:
    """The row of an image whose features are in a pack."""
    return {
        "place": place_of(facts.root_id, facts.path),
        "id": facts.id,
        "file_size": facts.file_size,
        "mtime_ns": facts.mtime_ns,
        "sha256": facts.sha256 or "",
        "width": facts.width,
        "height": facts.height,
        "num_local": facts.num_local,
        **position._asdict(),
        "checksum": _checksum(facts, position),
        "descriptor_checksum": zlib.crc32(descriptor),
        "descriptor": np.frombuffer(descriptor, "<f4"),
    }


def facts_of(row: Row) -> ImageFacts:
    """What a row says of the image apart from features."""
    root_id, path = parse_place(row["place"])
    return ImageFacts(
        row["id"],
        root_id,
        path,
        row["file_size"],
        row["mtime_ns"],
        row["sha256"] or None,
        row["width"],
        row["height"],
        row["num_local"],
    )


def position_of(row: Row) -> Position:
    """Where a row says that the local features are."""
    return Position(row["pack"], row["offset"], row["num_bytes"])


def descriptor_of(row: Row) -> bytes:
    """The global descriptor of a row, as it was written."""
    return np.asarray(row["descriptor"], "<f4").tobytes()


def is_sound(row: Row) -> bool:
    """Whether a row is as it was written, its descriptor apart."""
    return bool(row["checksum"] == _checksum(facts_of(row), position_of(row)))


def _checksum(facts: ImageFacts, position: Position) -> int:
    return zlib.crc32(repr(tuple(position)).encode(), facts.checksum())
