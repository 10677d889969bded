"""Addresses of collections on a cluster.

    milvus://HOST:PORT/NAME?features=s3://BUCKET/PREFIX
    milvus:///FOLDERS/FILE.db/NAME?features=s3://BUCKET/PREFIX

The second is a file of Milvus Lite, which runs in the one process that has it open.

Further parameters: ``endpoint=URL`` of an S3-compatible store that is not Amazon's; ``index=`` how
Milvus finds the nearest (``FLAT``: exactly; ``HNSW`` or ``DISKANN``: nearly), which counts when the
collection is made; ``consistency=bounded``: searches may miss the last seconds of indexing and are
0.2 s faster.  Credentials come from the environment: what boto3 reads for S3, ``MILVUS_TOKEN``.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import parse_qsl, unquote, urlsplit

from opendelg.errors import OpenDelgError

Index = Literal["FLAT", "HNSW", "DISKANN"]
Consistency = Literal["strong", "bounded"]

_FORM = "milvus://HOST:PORT/NAME?features=s3://BUCKET/PREFIX"
_PORT = 19530  # Milvus' own
_CHOICES = {"index": get_args(Index), "consistency": get_args(Consistency)}


@dataclass(frozen=True)
class Address:
    """Where the two halves of a collection are."""

    location: str  # as a user names it
    server: str  # HOST:PORT, or the path of a file of Milvus Lite
    name: str  # of the Milvus collection, and the beginning of its companion's
    bucket: str
    prefix: str  # of the objects' keys, without a slash at the end
    endpoint: str | None  # of the S3 store; None: what the environment says
    index: str
    consistency: str

    @property
    def is_file(self) -> bool:
        """Whether Milvus Lite keeps the catalogue in a file: there is no server."""
        return self.server.startswith("/")

    @property
    def features(self) -> str:
        """Where local features are, as it is written in the address."""
        return f"s3://{self.bucket}/{self.prefix}"


def is_cluster(location: Path | str) -> bool:
    """Whether a location is an address; a path that was made of one counts."""
    return str(location).startswith("milvus:/")


def parse_address(location: str) -> Address:
    """The parts of an address.

    Raises:
        OpenDelgError: If it is none, with what is wrong with it.
    """
    # A path made of an address has lost slashes, so their number says nothing.
    beginning, _, query = re.sub(r"^milvus:/+", "", location).partition("?")
    place, _, name = beginning.rstrip("/").rpartition("/")
    values = dict(parse_qsl(query, keep_blank_values=True))
    unknown = values.keys() - {"features", "endpoint", *_CHOICES}
    if unknown:
        raise _wrong(location, f"unknown parameters {sorted(unknown)}")
    for key, choices in _CHOICES.items():
        if values.setdefault(key, choices[0]) not in choices:
            raise _wrong(location, f"{key}={values[key]}, which is none of {choices}")
    if not re.fullmatch(r"[A-Za-z_]\w{0,199}", name, re.ASCII):
        raise _wrong(location, f"NAME {name!r}, which must be letters, digits and '_'")
    features = re.fullmatch(r"s3:/+([^/]+)/(.*[^/])/*", values.get("features", ""))
    if features is None:
        raise _wrong(location, f"features={values.get('features', '')!r}")
    endpoint = values.get("endpoint")
    if endpoint is not None and not _is_url(endpoint):
        raise _wrong(location, f"endpoint={endpoint!r}, which must be http://HOST:PORT")
    address = Address(
        location=location,
        server=_server(location, place),
        name=name,
        bucket=features[1],
        prefix=features[2],
        endpoint=endpoint,
        index=values["index"],
        consistency=values["consistency"],
    )
    if address.is_file and address.index == "DISKANN":
        raise _wrong(location, "index=DISKANN, which Milvus Lite has not")
    return address


def _server(location: str, place: str) -> str:
    """HOST:PORT, or the path of a file, which has folders and ends so."""
    if place.endswith(".db") and ("/" in place or location.startswith("milvus:///")):
        return f"/{unquote(place)}"
    try:
        parts = urlsplit(f"//{place}")
        host, port = parts.hostname, parts.port or _PORT
    except ValueError as error:
        raise _wrong(location, f"a host or port that is none ({error})") from error
    if parts.path:
        raise _wrong(
            location, f"folders in {place!r}; only a file of Milvus Lite has them, FILE.db/NAME"
        )
    if not host or parts.username is not None:
        raise _wrong(location, "no host, or a user; give $MILVUS_TOKEN instead")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _wrong(location: str, what: str) -> OpenDelgError:
    return OpenDelgError(f"address must have the form {_FORM}, got {what} in {location!r}")
