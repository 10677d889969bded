"""Do Milvus and the S3 store hold the same images still?  What differs, and its repair."""

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from opendelg.collection.checking import ContentDigest, descriptor_problems, local_problems
from opendelg.collection.cluster.catalogue import ClusterCatalogue
from opendelg.collection.cluster.packs import FeaturePacks, Position
from opendelg.collection.cluster.place import parse_place
from opendelg.collection.cluster.rows import (
    ALL_BUT_DESCRIPTOR,
    descriptor_of,
    facts_of,
    is_sound,
    position_of,
)
from opendelg.collection.cluster.tables import Row, Tables

_FAILURE = "failure/"


@dataclass(frozen=True)
class _Fault:
    """Something wrong, and what goes away when it is repaired: one of the three."""

    text: str
    image: str | None = None  # place
    pack: str | None = None
    note: str | None = None  # key


class ClusterChecks:
    """Compares the two halves of a collection."""

    def __init__(self, catalogue: ClusterCatalogue, tables: Tables, packs: FeaturePacks) -> None:
        self._catalogue = catalogue
        self._tables = tables
        self._packs = packs

    def problems(self) -> Iterator[str]:
        """Everything that is wrong, one line each."""
        return (fault.text for fault in self._faults())

    def repair(self) -> list[str]:
        """Removes packs and notes of no image, and images that lack a part."""
        faults = list(self._faults())
        self._catalogue.require_lease()  # finding them took long
        self._tables.delete_images(sorted({f.image for f in faults if f.image is not None}))
        self._tables.delete_notes([fault.note for fault in faults if fault.note is not None])
        for fault in faults:
            if fault.pack is not None:
                self._packs.delete(fault.pack)
        return [
            f"{fault.text}: removed" + (", index its photo again" if fault.image else "")
            for fault in faults
        ]

    def digest(self) -> str:
        """Hex SHA-256 of the content; see `ContentDigest`."""
        total = ContentDigest()
        rows = list(self._tables.scan_images("", [*ALL_BUT_DESCRIPTOR, "descriptor"]))
        for row in sorted(rows, key=lambda row: parse_place(row["place"])[::-1]):
            facts, position = facts_of(row), position_of(row)
            total.add_image(
                facts.path,
                facts.file_size,
                facts.sha256,
                facts.width,
                facts.height,
                descriptor_of(row),
                self._packs.read([position])[position],
            )
        notes = self._tables.notes(_FAILURE).items()
        for key, value in sorted(notes, key=lambda note: _place_order(note[0])):
            _, path = parse_place(key.removeprefix(_FAILURE))
            total.add_failure(path, value["file_size"], value["sha256"], value["reason"])
        return total.hexdigest()

    def num_bytes(self) -> int:
        """Bytes of all packs, and of global descriptors as Milvus keeps them at least."""
        dimensions = self._catalogue.state().global_dimensions or 0
        return sum(self._packs.sizes().values()) + 4 * dimensions * self._catalogue.count()

    def _faults(self) -> Iterator[_Fault]:
        places: set[str] = set()
        ids: dict[int, str] = {}
        by_pack: dict[str, list[Row]] = defaultdict(list)
        roots = {root.id for root in self._catalogue.roots()}
        for row in self._tables.scan_images("", [*ALL_BUT_DESCRIPTOR, "descriptor"]):
            places.add(row["place"])
            by_pack[row["pack"]].append(row)
            for problem in self._row_problems(row, roots, ids):
                yield _Fault(f"{_named(row)}: {problem}", image=row["place"])
            ids.setdefault(row["id"], row["place"])
            del row["descriptor"]
        sizes = self._packs.sizes()
        for pack, rows in by_pack.items():
            yield from self._pack_faults(pack, rows)
        for pack in sizes.keys() - by_pack.keys():
            yield _Fault(f"features in {pack} ({sizes[pack]} bytes) are of no image", pack=pack)
        for key in self._tables.notes(_FAILURE):
            if key.removeprefix(_FAILURE) in places:
                yield _Fault(f"note {key} is of a file that was read since", note=key)

    def _row_problems(self, row: Row, roots: set[int], ids: dict[int, str]) -> Iterator[str]:
        if not is_sound(row):
            yield "row is damaged"
        elif facts_of(row).root_id not in roots:
            yield "root does not exist"
        if ids.get(row["id"], row["place"]) != row["place"]:
            yield f"id {row['id']} is that of another image too"
        state = self._catalogue.state()
        yield from descriptor_problems(state, row["descriptor_checksum"], descriptor_of(row))

    def _pack_faults(self, pack: str, rows: list[Row]) -> Iterator[_Fault]:
        content = self._packs.read_whole(pack)
        state = self._catalogue.state()
        for row in rows:
            record = None if content is None else _cut(content, position_of(row))
            for problem in local_problems(state, row["num_local"], record):
                yield _Fault(f"{_named(row)}: {problem}", image=row["place"])


def _cut(content: bytes, position: Position) -> bytes:
    return content[position.offset : position.offset + position.num_bytes]


def _named(row: Row) -> str:
    return f"image {row['id']} {os.fsdecode(parse_place(row['place'])[1])!r}"


def _place_order(key: str) -> tuple[bytes, int]:
    root_id, path = parse_place(key.removeprefix(_FAILURE))
    return path, root_id
