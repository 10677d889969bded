"""Addresses need no service: these tests run everywhere."""

from pathlib import Path

import pytest

from opendelg.collection.cluster.address import is_cluster, parse_address
from opendelg.errors import OpenDelgError

FEATURES = "features=s3://bucket/some/prefix"


def test_the_parts_of_an_address() -> None:
    address = parse_address(
        f"milvus://host:1234/photos?{FEATURES}&endpoint=http://store:9000&index=HNSW"
        "&consistency=bounded"
    )
    assert (address.server, address.is_file, address.name) == ("host:1234", False, "photos")
    assert (address.bucket, address.prefix) == ("bucket", "some/prefix")
    assert (address.endpoint, address.index) == ("http://store:9000", "HNSW")
    assert address.consistency == "bounded"
    assert address.features == "s3://bucket/some/prefix"


def test_what_is_not_given() -> None:
    address = parse_address(f"milvus://host/photos?{FEATURES}")
    assert (address.server, address.endpoint) == ("host:19530", None)
    assert (address.index, address.consistency) == ("FLAT", "strong")


@pytest.mark.parametrize(
    ("place", "server"),
    [
        ("milvus://host/a", "host:19530"),
        ("milvus://host.db/a", "host.db:19530"),
        ("milvus://host/a/", "host:19530"),
        ("milvus://[::1]:5/a", "[::1]:5"),
        ("milvus:///folder/file.db/a", "/folder/file.db"),
        ("milvus:////folder/file.db/a", "/folder/file.db"),
        ("milvus:///file.db/a", "/file.db"),
        ("milvus:///a%20folder%3F/file.db/a", "/a folder?/file.db"),
    ],
)
def test_servers_and_files(place: str, server: str) -> None:
    address = parse_address(f"{place}?{FEATURES}")
    assert (address.server, address.is_file) == (server, server.startswith("/"))
    assert address.name == "a"


@pytest.mark.parametrize("place", ["milvus://host:5/a", "milvus:///folder/file.db/a"])
def test_a_path_made_of_an_address_is_one(place: str) -> None:
    text = f"{place}?{FEATURES}"
    assert is_cluster(Path(text))
    assert parse_address(str(Path(text))).server == parse_address(text).server
    assert parse_address(str(Path(text))).prefix == "some/prefix"


def test_folders_are_no_addresses() -> None:
    assert not is_cluster("photos.delg")
    assert not is_cluster(Path("/a/milvus.delg"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("milvus://host/photos", "features=''"),
        ("milvus://host/photos?features=s3://bucket", "features='s3://bucket'"),
        (f"milvus://host/?{FEATURES}", "no host"),
        (f"milvus://host/1a?{FEATURES}", "letters, digits"),
        (f"milvus://host/a-b?{FEATURES}", "letters, digits"),
        (f"milvus://host:port/a?{FEATURES}", "a host or port"),
        (f"milvus://me:secret@host/a?{FEATURES}", "MILVUS_TOKEN"),
        (f"milvus:///a?{FEATURES}", "no host"),
        (f"milvus:///folder/file/a?{FEATURES}", "folders in 'folder/file'"),
        (f"milvus://host:19530/default/a?{FEATURES}", "folders in 'host:19530/default'"),
        (f"milvus://host/a?{FEATURES}&endpoint=minio:9000", "endpoint='minio:9000'"),
        (f"milvus://host/a?{FEATURES}&endpoint=", "endpoint=''"),
        (f"milvus://host/a?{FEATURES}&endpoint=http://minio:port", "endpoint='http://minio:port'"),
        (f"milvus://host/a?{FEATURES}&kind=FLAT", "kind"),
        (f"milvus://host/a?{FEATURES}&index=IVF", "index=IVF"),
        (f"milvus://host/a?{FEATURES}&consistency=weak", "consistency=weak"),
        (f"milvus:///f/f.db/a?{FEATURES}&index=DISKANN", "Milvus Lite has not"),
    ],
)
def test_what_is_wrong_with_an_address_is_said(text: str, reason: str) -> None:
    with pytest.raises(OpenDelgError, match="address must have the form milvus://") as refused:
        parse_address(text)
    assert reason in str(refused.value)
