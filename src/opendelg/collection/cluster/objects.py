"""Objects of one S3-compatible store below one prefix; the only place that knows boto3."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from opendelg.collection.cluster.address import Address
from opendelg.errors import OpenDelgError, UnavailableError

MAX_CONNECTIONS = 32
_ABSENT = {"NoSuchKey", "404", "NotFound"}
_OVERTAKEN = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}


@dataclass(frozen=True)
class StoredObject:
    """An object as a listing shows it."""

    key: str  # below the prefix
    num_bytes: int


class Objects:
    """Reads and writes whole objects or ranges of them; threads may share it."""

    def __init__(self, address: Address) -> None:
        self._bucket = address.bucket
        self._prefix = address.prefix
        self._endpoint = address.endpoint
        self._lock = threading.Lock()
        self._made: Any = None

    def put(self, key: str, content: bytes) -> None:
        """Writes an object; it is there, whole, when this returns."""
        with self._explained():
            self._client().put_object(Bucket=self._bucket, Key=self._key(key), Body=content)

    def put_if(self, key: str, content: bytes, tag: str | None) -> str | None:
        """Writes an object if it has a tag still (None: if it is not there yet).

        Returns:
            The new tag; None if another one was faster.
        """
        condition = {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag}
        with self._explained():
            try:
                written = self._client().put_object(
                    Bucket=self._bucket, Key=self._key(key), Body=content, **condition
                )
            except self._client().exceptions.ClientError as error:
                if _code(error) in _OVERTAKEN | _ABSENT:
                    return None
                raise
        return str(written["ETag"])

    def tag(self, key: str) -> str | None:
        """The tag of an object, which changes with its content; None if there is none."""
        with self._explained():
            try:
                found = self._client().head_object(Bucket=self._bucket, Key=self._key(key))
            except self._client().exceptions.ClientError as error:
                if _code(error) in _ABSENT:
                    return None
                raise
        return str(found["ETag"])

    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes | None:
        """The bytes [start, end) of an object, all by default; None if there is no such object."""
        span = {} if end is None else {"Range": f"bytes={start}-{end - 1}"}
        with self._explained():
            try:
                found = self._client().get_object(Bucket=self._bucket, Key=self._key(key), **span)
                return bytes(found["Body"].read())
            except self._client().exceptions.ClientError as error:
                if _code(error) in _ABSENT | {"InvalidRange"}:
                    return None
                raise

    def list(self, below: str) -> Iterator[StoredObject]:
        """All objects whose keys start so."""
        with self._explained():
            pages = self._client().get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._key(below)):
                for found in page.get("Contents", []):
                    key = found["Key"].removeprefix(f"{self._prefix}/")
                    yield StoredObject(key, found["Size"])

    def delete(self, key: str) -> None:
        """Removes an object; it need not be there."""
        with self._explained():
            self._client().delete_object(Bucket=self._bucket, Key=self._key(key))

    def _key(self, key: str) -> str:
        return f"{self._prefix}/{key}"

    def _client(self) -> Any:
        with self._lock:
            if self._made is None:
                boto3, config = _boto3()
                session = boto3.session.Session()
                region = session.region_name or "us-east-1"  # stores of one region ignore it
                self._made = session.client(
                    "s3", endpoint_url=self._endpoint, region_name=region, config=config
                )
            return self._made

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns faults of the store into errors that a user can act on."""
        _boto3()
        from botocore.exceptions import (
            BotoCoreError,
            ClientError,
            NoCredentialsError,
            PartialCredentialsError,
        )

        where = f"s3://{self._bucket}/{self._prefix}"
        try:
            yield
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise OpenDelgError(
                f"credentials must be given for {where}, got none; set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or what else boto3 reads"
            ) from error
        except ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            kind = UnavailableError if status >= 500 or status == 429 else OpenDelgError
            raise kind(f"S3 store must do what is asked, got {error} for {where}") from error
        except BotoCoreError as error:
            raise UnavailableError(
                f"S3 store must answer, got {error} for {where}; start it and run the command again"
            ) from error


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _boto3() -> tuple[Any, Any]:
    """The boto3 module, and how its clients behave."""
    try:
        import boto3
        from botocore.config import Config
    except ImportError as error:
        raise OpenDelgError(
            "boto3 must be installed for a collection on a cluster, got none; "
            "run pip install 'opendelg[cluster]'"
        ) from error
    return boto3, Config(
        connect_timeout=5,  # s
        read_timeout=30,  # s
        retries={"mode": "standard", "total_max_attempts": 3},
        max_pool_connections=MAX_CONNECTIONS,
    )
