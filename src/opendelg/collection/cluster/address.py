"""Addresses of collections on a cluster.

    milvus://HOST:PORT/NAME?features=s3://BUCKET/PREFIX

Further parameters: ``endpoint=URL`` of an S3-compatible store that is not Amazon's; ``index=`` how
Milvus finds the nearest (``FLAT``: exactly; ``HNSW`` or ``DISKANN``: nearly), which counts when the
collection is made; ``consistency=bounded``: searches may miss the last seconds of indexing and are
0.2 s faster.  Credentials come from the environment: what boto3 reads for S3, ``MILVUS_TOKEN``.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import parse_qsl, urlsplit

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
    host: str
    port: int
    name: str  # of the Milvus collection, and the beginning of its companion's
    bucket: str
    prefix: str  # of the objects' keys, without a slash at the end
    endpoint: str | None  # of the S3 store; None: what the environment says
    index: str
    consistency: str

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
    # A path made of an address has lost one of two slashes.
    parts = urlsplit(re.sub(r"^milvus:/+", "milvus://", location))
    values = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = values.keys() - {"features", "endpoint", *_CHOICES}
    if unknown:
        raise _wrong(location, f"unknown parameters {sorted(unknown)}")
    for name, choices in _CHOICES.items():
        if values.setdefault(name, choices[0]) not in choices:
            raise _wrong(location, f"{name}={values[name]}, which is none of {choices}")
    try:
        port = parts.port or _PORT
    except ValueError as error:
        raise _wrong(location, f"a port that is no number ({error})") from error
    if not parts.hostname or parts.username is not None:
        raise _wrong(location, "no host, or a user; give $MILVUS_TOKEN instead")
    name = parts.path.strip("/")
    if not re.fullmatch(r"[A-Za-z_]\w{0,199}", name, re.ASCII):
        raise _wrong(location, f"NAME {name!r}, which must be letters, digits and '_'")
    features = re.fullmatch(r"s3:/+([^/]+)/(.*[^/])/*", values.get("features", ""))
    if features is None:
        raise _wrong(location, f"features={values.get('features', '')!r}")
    return Address(
        location=location,
        host=parts.hostname,
        port=port,
        name=name,
        bucket=features[1],
        prefix=features[2],
        endpoint=values.get("endpoint"),
        index=values["index"],
        consistency=values["consistency"],
    )


def _wrong(location: str, what: str) -> OpenDelgError:
    return OpenDelgError(f"address must have the form {_FORM}, got {what} in {location!r}")
