"""Processes die and services fail: images are whole or absent, and the next run completes."""

import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from PIL import Image

from opendelg import indexing
from opendelg.collection import Collection
from opendelg.collection.cluster import tables as cluster_tables
from opendelg.errors import FormatError, UnavailableError
from opendelg.extraction import Extractor
from opendelg.indexing import index_photos, plan_indexing
from opendelg.recipes import make_extractor, recipe_of
from opendelg.search import Searcher
from opendelg.weights import Weights
from tests.cluster_services import Milvus, Services, Store, eventually, needs_cluster
from tests.conftest import draw_image
from tests.service_samples import serving_with

pytestmark = [needs_cluster, pytest.mark.cluster]

NUM_PHOTOS = 12
Kill = Callable[[Path], None]


@pytest.fixture(scope="module")
def extractor(tiny_weights: Weights) -> Extractor:
    return make_extractor(str(tiny_weights.path), device="cpu", threads=1)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(NUM_PHOTOS):
        path = folder / f"{number:02}.png"
        Image.fromarray(draw_image((96, 64), number).pixels).save(path)
    return folder


@pytest.fixture(scope="module")
def digest(photos: Path, extractor: Extractor, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a run without faults makes."""
    with Collection.create(tmp_path_factory.mktemp("c") / "c", recipe_of(extractor)) as made:
        index_photos(made, extractor, plan_indexing(made, [photos]))
        return made.digest()


@pytest.fixture(params=["milvus", "store"])
def service(request: pytest.FixtureRequest, services: Services) -> Milvus | Store:
    """The one that will be killed; it runs again afterwards."""
    return getattr(services, request.param)


@pytest.fixture
def filled(address: str, photos: Path, extractor: Extractor) -> str:
    run(address, photos, extractor)
    return address


@pytest.fixture(autouse=True)
def small_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "COMMIT_IMAGES", 3)
    monkeypatch.setattr(cluster_tables, "TIMEOUT", 15.0)


def run(
    address: str, photos: Path, extractor: Extractor, progress: Kill | None = None, limit: int = 999
) -> None:
    """What `delg index` does."""
    if Collection.exists(address):
        collection = Collection.open(address)
    else:
        collection = Collection.create(address, recipe_of(extractor))
    with collection:
        plan = plan_indexing(collection, [photos])
        del plan.new[limit:]
        index_photos(collection, extractor, plan, progress=progress)


def test_indexing_completes_after_a_service_was_killed(
    service: Milvus | Store, address: str, photos: Path, extractor: Extractor, digest: str
) -> None:
    def kill(path: Path) -> None:
        if path.name == "07.png":
            service.kill()

    try:
        with pytest.raises(UnavailableError, match=r"must answer, got .* run the command again"):
            run(address, photos, extractor, kill)
    finally:
        service.start()
    eventually(lambda: run(address, photos, extractor))
    with Collection.open(address, read_only=True) as collection:
        assert collection.digest() == digest
        assert len(set(collection.ids().tolist())) == NUM_PHOTOS
        lost = [problem for problem in collection.verify() if "are of no image" not in problem]
        assert lost == []


def test_a_service_that_is_down_is_named_and_searches_recover(
    service: Milvus | Store, filled: str, extractor: Extractor
) -> None:
    query = extractor.extract(draw_image((96, 64), 3))
    with Collection.open(filled, read_only=True) as collection:
        searcher = Searcher(collection, extractor)
        service.kill()
        try:
            started = time.monotonic()
            with pytest.raises(UnavailableError, match="must answer"):
                searcher.search_features(query)
            assert time.monotonic() - started < 60  # it does not hang
        finally:
            service.start()
        answer = eventually(lambda: searcher.search_features(query))
        assert answer.results[0].image.path.name == "03.png"


def test_a_server_says_503_while_a_service_is_down_and_recovers(
    services: Services, filled: str, extractor: Extractor
) -> None:
    opened = Collection.open(filled, read_only=True)
    with serving_with(opened, extractor) as url:
        search = Request(f"{url}/v1/search", b"id=3")
        services.milvus.kill()
        try:
            with pytest.raises(HTTPError, match="503") as refused:
                urlopen(search)
            assert b"Milvus must answer" in refused.value.read()
        finally:
            services.milvus.start()
        end = time.monotonic() + 90
        while (status := status_of(search)) == 503 and time.monotonic() < end:
            time.sleep(1)
        assert status == 200


def status_of(request: Request) -> int:
    try:
        with urlopen(request) as answer:
            return int(answer.status)
    except HTTPError as error:
        error.close()
        return error.code


def killed_at(address: str, photos: Path, weights: Path, step: str) -> None:
    """Index in this process and die at a step of a commit, as kill -9 does."""
    import os

    from opendelg.collection.cluster import catalogue, rows

    def die(*_: object) -> None:
        os._exit(9)

    indexing.COMMIT_IMAGES = 3
    if step == "before rows":
        cluster_tables.Tables.put_images = die
    elif step == "between features":
        rows.FeaturePacks.write = die
    else:
        catalogue.ClusterCatalogue._remember = die
    run(address, photos, make_extractor(str(weights), device="cpu", threads=1))


@pytest.mark.parametrize("step", ["between features", "before rows", "after all"])
def test_a_killed_writer_leaves_images_whole_or_absent(
    step: str,
    address: str,
    photos: Path,
    extractor: Extractor,
    tiny_weights: Weights,
    digest: str,
) -> None:
    run(address, photos, extractor, limit=3)
    fresh = multiprocessing.get_context("spawn")
    process = fresh.Process(target=killed_at, args=(address, photos, tiny_weights.path, step))
    process.start()
    process.join()
    assert process.exitcode == 9
    with Collection.open(address, read_only=True) as collection:
        faults = collection.verify()
        assert len(collection) == (6 if step == "after all" else 3)
        assert [fault for fault in faults if "are of no image" not in fault] == []
        assert len(faults) == (1 if step == "before rows" else 0)
        collection.local_features(collection.ids())
    run(address, photos, extractor)  # waits until the dead writer's right has ended
    with Collection.open(address) as collection:
        collection.repair()
        assert collection.verify() == []
        assert collection.digest() == digest


def packs(services: Services, address: str) -> list[str]:
    name = address.partition("?")[0].rpartition("/")[2]
    found = services.client().list_objects_v2(Bucket="delg", Prefix=f"{name}/packs/")
    return [entry["Key"] for entry in found.get("Contents", [])]


def test_missing_and_damaged_features_are_found_and_made_again(
    services: Services, filled: str, photos: Path, extractor: Extractor, digest: str
) -> None:
    lost, damaged = packs(services, filled)[:2]
    client = services.client()
    client.delete_object(Bucket="delg", Key=lost)
    content = client.get_object(Bucket="delg", Key=damaged)["Body"].read()
    client.put_object(Bucket="delg", Key=damaged, Body=content[:-40] + bytes(40))
    client.put_object(Bucket="delg", Key=lost[:-67] + "00/" + "0" * 64, Body=b"x")
    with Collection.open(filled) as collection:
        faults = collection.verify()
        assert sum("local features are missing" in fault for fault in faults) == 3
        assert sum("local features are damaged" in fault for fault in faults) == 1
        assert sum("are of no image" in fault for fault in faults) == 1
        with pytest.raises(FormatError, match="delg verify"):
            collection.local_features(collection.ids())
        assert len(collection.repair()) == len(faults)
        assert collection.verify() == []
        assert len(collection) == NUM_PHOTOS - 4
    run(filled, photos, extractor)
    with Collection.open(filled, read_only=True) as collection:
        assert collection.digest() == digest


def test_features_of_another_collection_are_refused(services: Services, filled: str) -> None:
    other = filled.replace("?", "x?", 1)
    with pytest.raises(FormatError, match="choose another prefix"):
        Collection.create(other, Collection.open(filled, read_only=True).recipe)
    with pytest.raises(FormatError, match="where the collection was made"):
        Collection.open(filled.replace("features=s3://delg/", "features=s3://delg/x"), True)
