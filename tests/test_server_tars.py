"""The service on photos in a tar."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from opendelg.client import Client
from opendelg.collection import Collection
from opendelg.image import read_file
from opendelg.indexing import index_photos, plan_indexing
from opendelg.recipes import make_extractor, recipe_of
from opendelg.server.photos import photo_file
from opendelg.server.problems import Problem
from opendelg.weights import Weights
from tests.service_samples import serving
from tests.tar_samples import write_files


@pytest.fixture(scope="module")
def tar(tmp_path_factory: pytest.TempPathFactory, served: Path, tiny_weights: Weights) -> Path:
    """A tar of the photos of `served`, beside its collection `c`."""
    folder = tmp_path_factory.mktemp("tar")
    photos = {path.name: path.read_bytes() for path in sorted(served.glob("*.png"))}
    tar = write_files(folder / "x.tar", photos)
    extractor = make_extractor(str(tiny_weights.path), device="cpu", threads=1)
    with Collection.create(folder / "c", recipe_of(extractor)) as made:
        index_photos(made, extractor, plan_indexing(made, [tar]))
    return tar


@pytest.fixture(scope="module")
def client(tar: Path) -> Iterator[Client]:
    with serving(tar.parent / "c") as url, Client(url) as client:
        yield client


@pytest.fixture(scope="module")
def plain(served: Path) -> Iterator[Client]:
    """The same photos in a folder."""
    with serving(served / "c") as url, Client(url) as client:
        yield client


def test_photos_of_a_tar_are_sent_as_they_are(client: Client, served: Path) -> None:
    assert client.photo(4) == (served / "3.png").read_bytes()


@pytest.mark.parametrize("size", [64, 320])
def test_jpegs_of_photos_of_a_tar_are_those_of_the_photos(
    client: Client, plain: Client, size: int
) -> None:
    assert client.thumbnail(4, size) == plain.thumbnail(4, size)
    assert client.photo(4, "jpeg") == plain.photo(4, "jpeg")


def test_evidence_shows_photos_of_a_tar(client: Client, plain: Client, tar: Path) -> None:
    found, expected = client.search(id=4), plain.search(id=4)
    assert found.results[0].path == str(tar / Path(expected.results[0].path).name)
    address = f"/v1/evidence/{found.query.token}/{found.results[0].id}?format=png"
    assert client._request("GET", address) == plain._request("GET", address)
    assert b"no longer there" not in client.evidence_page(found.query.token)


def test_a_part_of_a_photo_of_a_tar_is_searched(client: Client, plain: Client) -> None:
    found, expected = (c.search(id=4, box=(20, 10, 150, 100)) for c in (client, plain))
    assert [(r.id, r.num_inliers) for r in found.results] == [
        (r.id, r.num_inliers) for r in expected.results
    ]


def test_a_photo_of_a_replaced_tar_is_told_apart(tar: Path, tmp_path: Path) -> None:
    photos = {f"{number}.png": data for number, data in enumerate(drawn_bytes(tar))}
    copied = write_files(tmp_path / "x.tar", photos)
    before = photo_file(copied / "0.png")
    write_files(copied, {"0.png": photos["1.png"]})
    assert photo_file(copied / "0.png").etag != before.etag
    copied.unlink()
    with pytest.raises(Problem, match="photo must be on disk"):
        photo_file(copied / "0.png")


def drawn_bytes(tar: Path) -> list[bytes]:
    return [read_file(tar / f"{number}.png") for number in range(2)]


def test_what_is_no_image_in_a_tar_is_not_sent(tmp_path: Path) -> None:
    tar = write_files(tmp_path / "x.tar", {"a.jpg": b"secret", "b.jpg": b""})
    for name in ("a.jpg", "b.jpg"):
        with pytest.raises(Problem, match="photo must still be an image"):
            photo_file(tar / name)
