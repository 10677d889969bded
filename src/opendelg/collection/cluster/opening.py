"""Collections on a cluster: made, found and opened."""

import json
import uuid

from opendelg.collection.cluster.address import Address, parse_address
from opendelg.collection.cluster.catalogue import ClusterCatalogue, Heads
from opendelg.collection.cluster.checking import ClusterChecks
from opendelg.collection.cluster.lease import Lease
from opendelg.collection.cluster.nearest import MilvusIndex
from opendelg.collection.cluster.objects import Objects
from opendelg.collection.cluster.packs import FOLDER, FeaturePacks
from opendelg.collection.cluster.tables import Tables
from opendelg.collection.interface import Parts
from opendelg.collection.packing import Precision
from opendelg.collection.recipe import Recipe
from opendelg.errors import FormatError, OpenDelgError

_KEY = "collection.json"  # says whose features are below the prefix


class Cluster:
    """A place on a cluster that holds a collection, or may."""

    def __init__(self, location: str) -> None:
        self.address: Address = parse_address(location)
        self._objects = Objects(self.address)

    def exists(self) -> bool:
        """Whether there is a collection."""
        tables = Tables(self.address)
        try:
            return tables.exist() and "state" in tables.heads()
        finally:
            tables.close()

    def create(self, recipe: Recipe, precision: Precision) -> Parts:
        """An empty collection, open for writing."""
        address = self.address
        if precision == "pq":  # its codebook would have to reach every task
            raise OpenDelgError(
                "features must be int8, float16 or 1bit on a cluster, got pq; take --features 1bit"
            )
        lease = Lease.take(self._objects, address.location)
        try:
            if self.exists():
                raise FormatError(
                    f"address must not hold a collection yet, got {address.location!r}"
                )
            heads = Heads(
                identity=self._mark(),
                recipe=recipe.to_json(),
                precision=precision,
                revision=0,
                next_id=1,
                global_dimensions=None,
                local_dimensions=None,
                features=address.features,
            )
            tables = Tables(address)
            if not tables.exist():
                tables.create_notes()
            tables.put_notes(heads.notes())
            return self._parts(tables, lease)
        except BaseException:
            lease.close()
            raise

    def open(self, read_only: bool) -> Parts:
        """The collection that is there."""
        if not self.exists():
            raise FormatError(
                f"collection must be one made by `delg index`, got {self.address.location!r}"
            )
        lease = None if read_only else Lease.take(self._objects, self.address.location)
        try:
            tables = Tables(self.address)
            self._require_own_features(Heads.from_notes(tables.heads(), self.address.location))
            return self._parts(tables, lease)
        except BaseException:
            if lease is not None:
                lease.close()
            raise

    def task_parts(self) -> tuple[Tables, FeaturePacks]:
        """What a task needs that writes on behalf of whoever holds the lease."""
        return Tables(self.address), FeaturePacks(self._objects)

    def _parts(self, tables: Tables, lease: Lease | None) -> Parts:
        packs = FeaturePacks(self._objects)
        catalogue = ClusterCatalogue(self.address, tables, packs, lease)
        return Parts(
            location=self.address.location,
            name=self.address.name,
            folder=None,
            catalogue=catalogue,
            index=MilvusIndex(self.address, tables, catalogue),
            checks=ClusterChecks(catalogue, tables, packs),
            lock=lease,
        )

    def _mark(self) -> str:
        """The identity of a new collection, written where its features will be.

        Raises:
            FormatError: If features are there already: repairing either of two collections would
                remove those of the other.
        """
        identity = uuid.uuid4().hex
        owner = {"identity": identity, "milvus": self.address.name}
        if self._objects.put_if(_KEY, json.dumps(owner).encode(), None) is not None:
            return identity
        owner = json.loads(self._objects.get(_KEY) or b"{}")
        if owner.get("milvus") != self.address.name:
            raise FormatError(
                f"features must go where no other collection has its own, got "
                f"{self.address.features!r} of {owner.get('milvus')!r}; choose another prefix"
            )
        if next(self._objects.list(FOLDER), None) is not None:
            raise FormatError(
                f"features must go where none are yet, got {self.address.features!r} with those of "
                f"a collection that {self.address.server} lacks; name the Milvus that has it, or "
                "remove them if its data is lost"
            )
        return str(owner["identity"])  # left by a crash

    def _require_own_features(self, heads: Heads) -> None:
        owner = json.loads(self._objects.get(_KEY) or b"{}")
        if owner.get("identity") != heads.identity:
            raise FormatError(
                f"features must be at {heads.features!r}, where the collection was made, got "
                f"{self.address.features!r} in {self.address.location!r}"
            )
