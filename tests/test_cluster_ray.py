"""Extraction by Ray tasks on two nodes, one of which may die."""

import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from opendelg import indexing_ray
from opendelg.collection import Collection
from opendelg.extraction import Extractor
from opendelg.indexing import IndexReport, index_photos, plan_indexing
from opendelg.recipes import make_extractor, recipe_of
from opendelg.weights import Weights
from tests.cluster_services import RayNodes, Services, eventually, needs_cluster
from tests.conftest import draw_image

pytestmark = [
    needs_cluster,
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore"),  # of Ray itself
]

Run = Callable[..., SimpleNamespace]
NUM_PHOTOS = 60


@pytest.fixture(scope="module")
def extractor(tiny_weights: Weights) -> Extractor:
    return make_extractor(str(tiny_weights.path), device="cpu", threads=1)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos in a folder, the last ten of them in a tar."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(NUM_PHOTOS):
        path = folder / f"{number:02}.png"
        Image.fromarray(draw_image((96, 64), number).pixels).save(path)
    with tarfile.open(folder / "more.tar", "w") as tar:
        for path in sorted(folder.glob("5?.png")):
            tar.add(path, path.name)
            path.unlink()
    (folder / "bad.jpg").write_bytes(b"no photo")
    return folder


@pytest.fixture(scope="module")
def nodes() -> Iterator[RayNodes]:
    """A Ray cluster of two nodes."""
    started = RayNodes(2)
    yield started
    started.stop()


def index(address: str, nodes: RayNodes, photos: Path, extractor: Extractor, **options: Any) -> Any:
    if Collection.exists(address):
        collection = Collection.open(address)
    else:
        collection = Collection.create(address, recipe_of(extractor))
    with collection:
        plan = plan_indexing(collection, [photos])
        return indexing_ray.index_on_ray(collection, extractor, plan, nodes.address, **options)


def digest(location: Any, photos: Path, extractor: Extractor) -> str:
    """What the plain command makes."""
    with Collection.create(location, recipe_of(extractor)) as made:
        index_photos(made, extractor, plan_indexing(made, [photos]))
        return made.digest()


def test_tasks_make_what_the_plain_command_makes(
    nodes: RayNodes, delg: Run, address: str, photos: Path, extractor: Extractor, tmp_path: Path
) -> None:
    command = ["index", photos, "-c", address, "--model", extractor.weights.path, "--json"]
    answer = delg(*command, "--ray", nodes.address)
    assert (answer.code, answer.json["added"], len(answer.json["failures"])) == (3, NUM_PHOTOS, 1)
    again = delg(*command, "--ray", nodes.address).json
    assert (again["added"], again["unchanged"]) == (0, NUM_PHOTOS)
    with Collection.open(address, read_only=True) as collection:
        assert collection.digest() == digest(tmp_path / "c", photos, extractor)
        unread = 51  # the place of bad.jpg
        ids = [number for number in range(1, NUM_PHOTOS + 2) if number != unread]
        assert collection.ids().tolist() == ids
        assert collection.verify() == []


def test_ray_needs_a_collection_on_a_cluster(
    nodes: RayNodes, delg: Run, photos: Path, extractor: Extractor, tmp_path: Path
) -> None:
    command = ["index", photos, "-c", tmp_path / "c", "--model", extractor.weights.path]
    refused = delg(*command, "--ray", nodes.address)
    assert refused.code == 1
    assert "collection must be on a cluster" in refused.err


def test_a_ray_cluster_that_does_not_answer_is_named(
    delg: Run, photos: Path, extractor: Extractor, tmp_path: Path
) -> None:
    command = ["index", photos, "-c", tmp_path / "c", "--model", extractor.weights.path]
    refused = delg(*command, "--ray", "127.0.0.1:1")
    assert (refused.code, "Ray must answer" in refused.err) == (1, True)


@pytest.mark.parametrize("victim", ["milvus", "store", "node"])
def test_nothing_is_lost_or_doubled_when_something_dies(
    victim: str,
    nodes: RayNodes,
    services: Services,
    address: str,
    photos: Path,
    extractor: Extractor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(indexing_ray, "TASK_IMAGES", 5)
    done: list[Path] = []

    def kill(path: Path) -> None:
        done.append(path)
        if len(done) != 20:
            return
        if victim == "node":
            nodes.kill_one()
        else:
            getattr(services, victim).kill()
            getattr(services, victim).start()

    report: IndexReport = index(address, nodes, photos, extractor, progress=kill)
    assert (report.num_added, len(report.failures)) == (NUM_PHOTOS, 1)
    # A Milvus that was started again has not loaded its tables yet.
    with eventually(lambda: Collection.open(address, read_only=True)) as collection:
        assert len(set(collection.ids().tolist())) == NUM_PHOTOS
        assert collection.digest() == digest(tmp_path / "c", photos, extractor)
        assert collection.verify() == []
