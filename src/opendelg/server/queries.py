"""The last queries: photo and features, for evidence and for links, as far as memory goes."""

import hashlib
import re
from collections import OrderedDict
from dataclasses import dataclass

from opendelg.extraction import Box
from opendelg.features import ImageFeatures

TOKEN_PATTERN = "^([0-9a-f]{32}|id[0-9]{1,19}(-[0-9.,e+-]{7,100})?)$"
_STORED = re.compile("id([0-9]{1,19})(?:-(.+))?")


@dataclass(frozen=True)
class Query:
    """What was searched with."""

    token: str
    path: str  # the name it was sent with, or the path of an image of the collection
    image_id: int | None  # of an image of the collection
    box: Box | None
    features: ImageFeatures
    photo: bytes | None  # the file, unless it is in the collection

    @property
    def num_bytes(self) -> int:
        """Memory it takes, nearly."""
        local = self.features.local
        arrays = self.features.global_descriptor, local.keypoints, local.descriptors
        num_photo = 0 if self.photo is None else len(self.photo)
        return num_photo + sum(array.nbytes for array in arrays) + 8 * len(local) + 1000


class Queries:
    """Queries by token, the longest unused forgotten first; for one thread."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._queries: OrderedDict[str, Query] = OrderedDict()

    def __len__(self) -> int:
        return len(self._queries)

    def get(self, token: str) -> Query | None:
        """The query of a token, if it is still here."""
        if token in self._queries:
            self._queries.move_to_end(token)
        return self._queries.get(token)

    def put(self, query: Query) -> None:
        """Keep a query; the last one stays, however large it is."""
        known = self._queries.pop(query.token, None)
        self._queries[query.token] = query
        self.num_bytes += query.num_bytes - (0 if known is None else known.num_bytes)
        while self.num_bytes > self.max_bytes and len(self._queries) > 1:
            _, forgotten = self._queries.popitem(last=False)
            self.num_bytes -= forgotten.num_bytes


def upload_token(photo: bytes, box: Box | None) -> str:
    """Token of a photo that was sent: a hash of its content and of the box."""
    digest = hashlib.sha256(hashlib.sha256(photo).digest() + repr(box).encode())
    return digest.hexdigest()[:32]


def stored_token(image_id: int, box: Box | None) -> str:
    """Token of an image of the collection: it says all that is needed to search again."""
    corners = "" if box is None else "-" + ",".join(f"{value:.17g}" for value in box)
    return f"id{image_id}{corners}"


def parse_stored_token(token: str) -> tuple[int, str | None] | None:
    """Id and box, as text, of the token of an image of the collection; None for others."""
    found = _STORED.fullmatch(token)
    return None if found is None else (int(found[1]), found[2])
