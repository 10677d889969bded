"""Does a catalogue hold what was put into it?  Problems in words, and one digest of it all."""

import hashlib
import os
import sqlite3
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from opendelg.collection.catalogue import Catalogue, ImageFacts, State, is_intact
from opendelg.collection.codebook import Codebook
from opendelg.collection.nearest import NearestIndex
from opendelg.collection.packing import unpack_local
from opendelg.collection.quantising import codebook_of
from opendelg.collection.segments import open_segment, segment_problems
from opendelg.errors import FormatError, OpenDelgError

_ORPHANS = {
    "roots": "SELECT count(*) FROM images WHERE root_id NOT IN (SELECT id FROM roots)",
    "images for global descriptors": "SELECT count(*) FROM global_descriptors "
    "WHERE image_id NOT IN (SELECT id FROM images)",
    "images for local features": "SELECT count(*) FROM local_features "
    "WHERE image_id NOT IN (SELECT id FROM images)",
}


class EmbeddedChecks:
    """Tells whether a folder still holds what was put into it."""

    def __init__(self, catalogue: Catalogue, index_path: Path) -> None:
        self._catalogue = catalogue
        self._index_path = index_path

    def problems(self) -> list[str]:
        """Everything wrong, one line each; the index is looked at if the catalogue is sound."""
        return catalogue_problems(self._catalogue) or index_problems(
            self._catalogue, self._index_path
        )

    def repair(self) -> list[str]:
        """Removes what belongs to no image, images that lack a part, and a damaged index."""
        done = []
        for table in ("global_descriptors", "local_features"):
            orphans = self._catalogue.query(
                f"DELETE FROM {table} WHERE image_id NOT IN (SELECT id FROM images)"
            ).rowcount
            if orphans:
                done.append(f"{orphans} rows of {table} belonged to no image: removed")
        damaged: dict[int, str] = {}
        for image_id, problem in _image_problems(self._catalogue):
            damaged.setdefault(image_id, problem)
        for image_id, problem in damaged.items():
            self._catalogue.delete_image(image_id)
            done.append(f"{problem}: removed, index its photo again")
        if not done and index_problems(self._catalogue, self._index_path):
            for path in (self._index_path, *self._index_path.parent.glob("*.segment")):
                path.unlink(missing_ok=True)
            done.append("saved index was damaged: deleted, it is made again")
        return done

    def digest(self) -> str:
        """Hex SHA-256 of the content; see `ContentDigest`."""
        return digest(self._catalogue)

    def num_bytes(self) -> int:
        """Size of the files in the folder, as far as they stay while they are counted."""
        total = 0
        for entry in os.scandir(self._index_path.parent):
            try:
                total += entry.stat().st_size if entry.is_file() else 0
            except FileNotFoundError:
                continue
        return total


class ContentDigest:
    """Hex SHA-256 of a collection's content, equal for collections that hold the same.

    Covers relative paths, sizes and checksums of the files, image sizes, global descriptors, local
    features and failures; not the folders' places, modification times, ids or the recipe.
    """

    def __init__(self) -> None:
        self._total = hashlib.sha256()

    def add_image(
        self,
        path: bytes,
        file_size: int,
        sha256: str | None,
        width: int,
        height: int,
        descriptor: bytes,
        record: bytes,
    ) -> None:
        """Adds an image; they come in order of path, then of root."""
        self._add(b"image", path, file_size, sha256, width, height, descriptor, record)

    def add_failure(self, path: bytes, file_size: int, sha256: str | None, reason: str) -> None:
        """Adds a failure, after all images, in the same order."""
        self._add(b"failure", path, file_size, sha256, reason)

    def hexdigest(self) -> str:
        """The digest of all that was added."""
        return self._total.hexdigest()

    def _add(self, *fields: object) -> None:
        for field in fields:
            content = field if isinstance(field, bytes) else repr(field).encode()
            self._total.update(struct.pack("<q", len(content)) + content)


def catalogue_problems(catalogue: Catalogue) -> list[str]:
    """Everything wrong in the catalogue, one line each; empty if it is sound."""
    problems: list[str] = []
    for check in (_structure_problems, _orphan_problems, _record_problems):
        try:
            problems += check(catalogue)
        except (sqlite3.DatabaseError, OpenDelgError) as error:
            problems.append(f"catalogue cannot be read to the end: {error}")
    return problems


def index_problems(catalogue: Catalogue, path: Path) -> list[str]:
    """Faults of the saved index.  One that is missing or out of date has none: it is derived."""
    problems = [
        f"{problem}; delete it, it is made again"
        for segment in sorted(path.parent.glob("*.segment"))
        for problem in (*segment_problems(segment), *_segment_differences(catalogue, segment))
    ]
    if not path.exists():
        return problems
    loaded = NearestIndex.load(path)
    if loaded is None:
        return [*problems, f"{path.name} is damaged or unreadable; the next search does without it"]
    index, stamp = loaded
    state = catalogue.state()
    if (stamp.identity, stamp.revision) != (state.identity, state.revision) or len(index) == 0:
        return problems
    after = int(index.ids[0]) - 1
    rows = zip(index.ids.tolist(), index.descriptors(), strict=True)
    saved = ((image_id, row.tobytes()) for image_id, row in rows)
    stored = ((image_id, row.tobytes()) for image_id, _, row in catalogue.descriptors_after(after))
    if len(index) != catalogue.count(after) or any(
        a != b for a, b in zip(saved, stored, strict=False)
    ):
        problems.append(f"{path.name} differs from the catalogue; delete it, it is made again")
    return problems


def _segment_differences(catalogue: Catalogue, path: Path) -> Iterator[str]:
    """Whether a segment of this catalogue holds other descriptors than were stored."""
    segment, state = open_segment(path), catalogue.state()
    if segment is None or segment.stamp.identity != state.identity:
        return
    dropped = catalogue.dropped_since(segment.stamp.revision)
    if dropped is None:
        return
    for image_id, row in zip(segment.ids.tolist(), segment.descriptors, strict=True):
        is_same = catalogue.descriptor_checksum(image_id) == zlib.crc32(row.tobytes())
        if not is_same and image_id not in dropped:
            yield f"{path.name} differs from the catalogue in image {image_id}"
            return


def digest(catalogue: Catalogue) -> str:
    """The `ContentDigest` of a catalogue."""
    total = ContentDigest()
    for image in catalogue.query(
        "SELECT path, file_size, sha256, width, height, descriptor, record FROM images "
        "JOIN global_descriptors AS g ON g.image_id = images.id "
        "JOIN local_features AS l ON l.image_id = images.id ORDER BY path, root_id"
    ):
        total.add_image(*image)
    for failure in catalogue.query(
        "SELECT path, file_size, sha256, reason FROM failures ORDER BY path, root_id"
    ):
        total.add_failure(*failure)
    return total.hexdigest()


def _structure_problems(catalogue: Catalogue) -> Iterator[str]:
    for (line,) in catalogue.query("PRAGMA integrity_check"):
        if line != "ok":
            yield f"catalogue is damaged: {line}"


def _orphan_problems(catalogue: Catalogue) -> Iterator[str]:
    catalogue.roots()  # raises if they are damaged
    for what, statement in _ORPHANS.items():
        (count,) = catalogue.query(statement).fetchone()
        if count:
            yield f"{count} rows refer to {what} that do not exist"


def _record_problems(catalogue: Catalogue) -> Iterator[str]:
    for _, problem in _image_problems(catalogue):
        yield problem


def _image_problems(catalogue: Catalogue) -> Iterator[tuple[int, str]]:
    """Id of each image that lacks a part or has a damaged one, and what is wrong in words."""
    state, codebook = catalogue.state(), codebook_of(catalogue)
    rows = catalogue.query(
        "SELECT id, root_id, path, file_size, mtime_ns, sha256, width, height, num_local, "
        "images.checksum, g.checksum, descriptor, record FROM images "
        "LEFT JOIN global_descriptors AS g ON g.image_id = id "
        "LEFT JOIN local_features AS l ON l.image_id = id ORDER BY id"
    )
    for *values, row_checksum, checksum, descriptor, record in rows:
        facts = ImageFacts(*values)
        if facts.checksum() != row_checksum:
            yield facts.id, f"image {facts.id}: row is damaged"
            continue
        name = repr(os.fsdecode(facts.path))  # repr can be printed whatever the bytes are
        for problem in (
            *descriptor_problems(state, checksum, descriptor),
            *local_problems(state, facts.num_local, record, codebook),
        ):
            yield facts.id, f"image {facts.id} {name}: {problem}"


def descriptor_problems(state: State, checksum: int, descriptor: bytes | None) -> Iterator[str]:
    """What is wrong with a global descriptor as it was read."""
    if descriptor is None:
        yield "global descriptor is missing"
    elif not is_intact(descriptor, checksum):
        yield "global descriptor is damaged"
    elif len(descriptor) != 4 * (state.global_dimensions or 0):
        yield f"global descriptor has {len(descriptor)} bytes"
    elif not np.isfinite(np.frombuffer(descriptor, "<f4")).all():
        yield "global descriptor is not finite"


def local_problems(
    state: State, num_local: int, record: bytes | None, codebook: Codebook | None = None
) -> Iterator[str]:
    """What is wrong with the packed local features of an image as they were read."""
    if record is None:
        yield "local features are missing"
        return
    try:
        local = unpack_local(record, codebook)
    except (FormatError, TypeError) as error:  # a damaged row may hold text
        yield f"local features are damaged: {error}"
        return
    expected = (num_local, state.local_dimensions)
    if local.descriptors.shape != expected:
        yield f"local features must have shape {expected}, got {local.descriptors.shape}"
