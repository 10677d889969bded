"""The two tables of a collection in Milvus; the only place that knows pymilvus.

``NAME`` has a row per image, its key being the photo's place (root and path), so that a photo can
never be there twice, whoever writes it and how often.  ``NAME_notes`` has all else, as JSON: the
row about the whole, roots, and files that could not be read.
"""

import json
import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from opendelg.collection.cluster.address import Address
from opendelg.errors import OpenDelgError, UnavailableError

TIMEOUT = 30.0  # s, for one request
MAX_FOUND = 16_384  # rows that Milvus returns for one request
_CONSISTENCY = {"strong": "Strong", "bounded": "Bounded"}
_PLACE_BYTES = 16_384  # a path has 4096 at most, written with 3 each
_VALUE_BYTES = 65_535  # the most Milvus has
_ROWS_AT_A_TIME = 1000  # of 8 KiB; a message may have 64 MiB
_NOTE_DIMENSIONS = 2  # every table of Milvus must have a vector; this one says nothing
_BUILD = {"FLAT": {}, "HNSW": {"M": 32, "efConstruction": 200}, "DISKANN": {}}

Row = dict[str, Any]


class Tables:
    """Both tables; threads may share it."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._images, self._notes = address.name, f"{address.name}_notes"
        self._lock = threading.Lock()
        self._made: Any = None
        self._seen: set[str] = set()

    def close(self) -> None:
        """Ends the connection."""
        with self._lock:
            made, self._made = self._made, None
        if made is not None:
            made.close()

    # -- the tables ----------------------------------------------------------------------------

    def exist(self) -> bool:
        """Whether there is a collection of this name."""
        if self._address.is_file and not os.path.lexists(self._address.server):
            return False  # asking would make it
        with self._asked() as client:
            return bool(client.has_collection(self._notes, timeout=TIMEOUT))

    def create_notes(self) -> None:
        """Makes the table of notes."""
        fields = [
            {"field_name": "key", "max_length": _PLACE_BYTES, "is_primary": True},
            {"field_name": "value", "max_length": _VALUE_BYTES},
        ]
        self._create(self._notes, fields, [], "nothing", _NOTE_DIMENSIONS, "FLAT")

    def create_images(self, num_dimensions: int) -> None:
        """Makes the table of images, unless it is there."""
        with self._asked() as client:
            if self._is_there(client, self._images):
                return
        texts = [
            {"field_name": "place", "max_length": _PLACE_BYTES, "is_primary": True},
            {"field_name": "sha256", "max_length": 64},
            {"field_name": "pack", "max_length": 64},
        ]
        numbers = ["id", "file_size", "mtime_ns", "width", "height", "num_local", "offset"]
        numbers += ["num_bytes", "checksum", "descriptor_checksum"]
        index = self._address.index
        self._create(self._images, texts, numbers, "descriptor", num_dimensions, index)

    def drop(self) -> None:
        """Removes both tables."""
        with self._asked() as client:
            client.drop_collection(self._images, timeout=TIMEOUT)
            client.drop_collection(self._notes, timeout=TIMEOUT)

    def _create(
        self,
        name: str,
        texts: list[Row],
        numbers: list[str],
        vector: str,
        num_dimensions: int,
        index: str,
    ) -> None:
        with self._asked() as client:
            types = _pymilvus().DataType
            schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
            for text in texts:
                schema.add_field(datatype=types.VARCHAR, **text)
            for number in numbers:
                schema.add_field(number, types.INT64)
            schema.add_field(vector, types.FLOAT_VECTOR, dim=num_dimensions)
            indexes = client.prepare_index_params()
            indexes.add_index(vector, index_type=index, metric_type="IP", params=_BUILD[index])
            if "id" in numbers:
                kind = "INVERTED" if self._address.is_file else "STL_SORT"  # what each knows
                indexes.add_index("id", index_type=kind)
            client.create_collection(
                name, schema=schema, index_params=indexes, consistency_level="Strong"
            )

    # -- images --------------------------------------------------------------------------------

    def put_images(self, rows: Sequence[Row]) -> None:
        """Adds rows, or replaces those of the same places; each is there whole, or not."""
        for start in range(0, len(rows), _ROWS_AT_A_TIME):
            with self._asked() as client:
                part = list(rows[start : start + _ROWS_AT_A_TIME])
                client.upsert(self._images, part, timeout=TIMEOUT)

    def delete_images(self, places: Sequence[str]) -> None:
        """Removes rows, as far as they are there."""
        self._delete(self._images, places)

    def images(self, condition: str, fields: list[str], is_exact: bool = True) -> list[Row]:
        """At most `MAX_FOUND` rows that fulfil a condition, in no order.

        Args:
            condition: In Milvus' language.
            fields: The columns wanted.
            is_exact: See all that was ever written, whatever the address says.
        """
        return self._query(self._images, condition, fields, is_exact)

    def images_among(self, field: str, values: Sequence[Any], fields: list[str]) -> list[Row]:
        """The rows whose field is one of these values, in no order."""
        rows: list[Row] = []
        for start in range(0, len(values), _ROWS_AT_A_TIME):
            part = json.dumps(list(values[start : start + _ROWS_AT_A_TIME]))
            rows += self._query(self._images, f"{field} in {part}", fields, is_exact=True)
        return rows

    def scan_images(self, condition: str, fields: list[str]) -> Iterator[Row]:
        """All rows that fulfil a condition, in order of place, however many."""
        return self._scan(self._images, condition, fields)

    def count_images(self, condition: str = "") -> int:
        """How many rows fulfil a condition."""
        (row,) = self._query(self._images, condition, ["count(*)"], is_exact=True)
        return int(row["count(*)"])

    def nearest(
        self, query_descriptor: np.ndarray, k: int, fields: list[str]
    ) -> list[tuple[float, Row]]:
        """The k rows of the largest inner products as Milvus rounds and, by its index, finds."""
        index = self._address.index
        effort = {"HNSW": {"ef": max(2 * k, 256)}, "DISKANN": {"search_list": max(2 * k, 200)}}
        with self._asked() as client:
            (hits,) = client.search(
                self._images,
                [query_descriptor.astype(np.float32)],
                limit=k,
                output_fields=fields,
                search_params={"metric_type": "IP", "params": effort.get(index, {})},
                consistency_level=_CONSISTENCY[self._address.consistency],
                timeout=TIMEOUT,
            )
        return [(float(hit["distance"]), dict(hit["entity"])) for hit in hits]

    # -- notes ---------------------------------------------------------------------------------

    def put_notes(self, notes: Mapping[str, Any]) -> None:
        """Writes notes, each a JSON value under its key."""
        rows = [
            {"key": key, "value": json.dumps(value), "nothing": [0.0] * _NOTE_DIMENSIONS}
            for key, value in notes.items()
        ]
        for start in range(0, len(rows), _ROWS_AT_A_TIME):
            with self._asked() as client:
                part = rows[start : start + _ROWS_AT_A_TIME]
                client.upsert(self._notes, part, timeout=TIMEOUT)

    def delete_notes(self, keys: Sequence[str]) -> None:
        """Removes notes, as far as they are there."""
        self._delete(self._notes, keys)

    def notes(self, below: str) -> dict[str, Any]:
        """All notes whose keys start so, in order of key."""
        found = self._scan(self._notes, f'key like "{below}%"', ["key", "value"])
        return {row["key"]: json.loads(row["value"]) for row in found}

    def has_note(self, key: str) -> bool:
        """Whether there is a note under a key."""
        return bool(self._query(self._notes, f'key == "{key}"', ["key"], is_exact=True))

    def heads(self) -> dict[str, Any]:
        """The few notes that are no failures, read at once."""
        rows = self._query(
            self._notes, 'key == "state" or key like "root/%"', ["key", "value"], is_exact=False
        )
        return {row["key"]: json.loads(row["value"]) for row in rows}

    def count_notes(self, below: str) -> int:
        """How many keys start so."""
        (row,) = self._query(self._notes, f'key like "{below}%"', ["count(*)"], is_exact=True)
        return int(row["count(*)"])

    # -- inside --------------------------------------------------------------------------------

    def _query(self, table: str, condition: str, fields: list[str], is_exact: bool) -> list[Row]:
        level = "Strong" if is_exact else _CONSISTENCY[self._address.consistency]
        with self._asked() as client:
            if not self._is_there(client, table):
                return [{"count(*)": 0}] if fields == ["count(*)"] else []
            found = client.query(
                table,
                filter=condition,
                output_fields=fields,
                consistency_level=level,
                timeout=TIMEOUT,
            )
        return [dict(row) for row in found]

    def _scan(self, table: str, condition: str, fields: list[str]) -> Iterator[Row]:
        with self._asked() as client:
            if not self._is_there(client, table):
                return
            pages = client.query_iterator(
                table,
                batch_size=_ROWS_AT_A_TIME,
                filter=condition,
                output_fields=fields,
                consistency_level="Strong",
                timeout=TIMEOUT,
            )
        try:
            while True:
                with self._asked():
                    page = pages.next()
                if not page:
                    return
                yield from (dict(row) for row in page)
        finally:
            pages.close()

    def _is_there(self, client: Any, table: str) -> bool:
        """Whether a table is there; that of images is made with the first one."""
        if table not in self._seen and client.has_collection(table, timeout=TIMEOUT):
            self._seen.add(table)
        return table in self._seen

    def _delete(self, table: str, keys: Sequence[str]) -> None:
        for start in range(0, len(keys), _ROWS_AT_A_TIME):
            with self._asked() as client:
                client.delete(
                    table, ids=list(keys[start : start + _ROWS_AT_A_TIME]), timeout=TIMEOUT
                )

    @contextmanager
    def _asked(self) -> Iterator[Any]:
        """A client; its faults become errors that a user can act on."""
        module = _pymilvus()
        import grpc  # what pymilvus speaks, and at times raises

        try:
            yield self._client(module)
        except (module.MilvusException, grpc.RpcError) as error:
            with self._lock:
                self._made = None  # the next request connects anew
            reason = error.details() if isinstance(error, grpc.RpcError) else error.message
            raise self._unavailable(reason) from error

    def _unavailable(self, reason: str) -> UnavailableError:
        server = self._address.server
        if self._address.is_file:
            return UnavailableError(
                f"file must be one of Milvus Lite that no other process has open, got {reason!r} "
                f"from {server!r}; end the other process, it may be `delg serve`"
            )
        return UnavailableError(
            f"Milvus must answer, got {reason} from {server}; start it and run the command again"
        )

    def _client(self, module: Any) -> Any:
        with self._lock:
            if self._made is None:
                self._made = (
                    self._file(module) if self._address.is_file else self._connected(module)
                )
            return self._made

    def _connected(self, module: Any) -> Any:
        token = os.environ.get("MILVUS_TOKEN", "")
        return module.MilvusClient(f"http://{self._address.server}", token=token, timeout=TIMEOUT)

    def _file(self, module: Any) -> Any:
        """Milvus Lite; other than a server it has no table loaded when it starts."""
        folder = os.path.dirname(self._address.server)
        if not os.path.isdir(folder):
            raise OpenDelgError(
                f"folder of a file of Milvus Lite must exist, got {folder!r}; make it"
            )
        # It logs each time that it is asked for what only a server knows, traceback included.
        logging.getLogger("grpc._server").setLevel(logging.CRITICAL)
        client = module.MilvusClient(self._address.server, timeout=TIMEOUT)
        for table in (self._images, self._notes):
            if client.has_collection(table, timeout=TIMEOUT):
                client.load_collection(table, timeout=TIMEOUT)
        return client


def _pymilvus() -> Any:
    try:
        import pymilvus
    except ImportError as error:
        raise OpenDelgError(
            "pymilvus must be installed for a collection on a cluster, got none; "
            "run pip install 'opendelg[cluster]'"
        ) from error
    # They log what they raise as well, traceback included.
    for name in ("pymilvus", "milvus_lite"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return pymilvus
