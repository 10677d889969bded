from pathlib import Path

import numpy as np
import pytest

from opendelg.collection import Collection, FileStat, StoredImage, WriterBusyError
from opendelg.errors import FormatError, OpenDelgError
from tests.cluster_services import Services, needs_cluster
from tests.collection_samples import (
    RECIPE,
    add_image,
    file_stat,
    image_features,
    local_features,
    unit_rows,
)

pytestmark = [needs_cluster, pytest.mark.cluster]

ROOT = Path("/photos")
NAMES = ["a.jpg", "b/Zürich_100%.jpg", 'b/quo"ted\\.jpg', "b/x=41.jpg", "c d.jpg"]


@pytest.fixture(params=["embedded", "cluster", "file"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "embedded":
        return str(tmp_path / "c")
    if request.param == "file":
        return str(request.getfixturevalue("file_address"))
    return str(request.getfixturevalue("address"))


@pytest.fixture
def collection(location: str):
    with Collection.create(location, RECIPE) as made:
        with made.batch():
            for seed, name in enumerate(NAMES):
                add_image(made, ROOT, seed, name)
        yield made


def test_what_was_added_is_found_again(collection):
    assert len(collection) == 5
    assert collection.ids().tolist() == [1, 2, 3, 4, 5]
    assert [image.relative for image in collection.images([5, 2])] == [
        Path(NAMES[4]),
        Path(NAMES[1]),
    ]
    assert collection.image(3) == StoredImage(
        3, ROOT / NAMES[2], Path(NAMES[2]), image_features(2).size, 5
    )
    assert collection.find(ROOT / NAMES[3]) == 4
    assert collection.find(ROOT / "none.jpg") is None


def test_features_are_those_that_were_added(collection):
    assert np.array_equal(collection.global_descriptor(3), image_features(2).global_descriptor)
    ids, descriptors = collection.global_descriptors()
    assert ids.tolist() == [1, 2, 3, 4, 5]
    assert np.array_equal(descriptors[4], image_features(4).global_descriptor)
    (local,) = collection.local_features([4])
    assert np.array_equal(local.keypoints, local_features(3).keypoints)


def test_the_nearest_are_in_order(collection):
    query = image_features(1).global_descriptor
    ids, similarities = collection.nearest(query, 3)
    assert ids[0] == 2
    assert similarities[0] == pytest.approx(1)
    assert similarities.tolist() == sorted(similarities.tolist(), reverse=True)
    assert len(collection.nearest(query, 99)[0]) == 5


def test_a_reader_sees_what_was_committed(location, collection):
    with Collection.open(location, read_only=True) as reader:
        add_image(collection, ROOT, 9, "later.jpg")
        assert reader.nearest(image_features(9).global_descriptor, 1)[0].tolist() == [6]
        assert reader.image(6).path == ROOT / "later.jpg"


def test_nothing_of_a_failed_batch_is_there(location, collection):
    def change() -> None:
        with collection.batch():
            add_image(collection, ROOT, 9, "later.jpg")
            collection.remove([1])
            collection.remove([99])

    with pytest.raises(OpenDelgError, match="id 99"):
        change()
    with Collection.open(location, read_only=True) as reader:
        assert reader.ids().tolist() == [1, 2, 3, 4, 5]
    assert add_image(collection, ROOT, 9, "later.jpg") == 6


def test_an_image_at_the_same_path_is_replaced(collection):
    assert add_image(collection, ROOT, 7, NAMES[1]) == 2
    assert len(collection) == 5
    assert np.array_equal(collection.global_descriptor(2), image_features(7).global_descriptor)
    assert collection.images([2])[0].size == image_features(7).size


def test_removed_images_are_gone_and_their_ids_are_not_used_again(collection):
    assert collection.remove([2, ROOT / NAMES[4]]) == 2
    collection.update_index()
    assert collection.ids().tolist() == [1, 3, 4]
    assert add_image(collection, ROOT, 8, "new.jpg") == 6
    with pytest.raises(OpenDelgError, match="id 99; nothing was removed"):
        collection.remove([1, 99])
    assert collection.ids().tolist() == [1, 3, 4, 6]
    assert collection.verify() == []


def test_failures_take_the_place_of_images_and_go_with_the_next(collection):
    collection.add_failure(ROOT / NAMES[1], ROOT, file_stat(1), "bad")
    assert collection.ids().tolist() == [1, 3, 4, 5]
    assert [(f.path, f.reason) for f in collection.failures()] == [(ROOT / NAMES[1], "bad")]
    assert collection.known(ROOT)[Path(NAMES[1])].failure == "bad"
    assert add_image(collection, ROOT, 1, NAMES[1]) == 6
    assert collection.failures() == []


def test_files_are_known_by_folder(collection):
    collection.add_failure(ROOT / "b/bad.jpg", ROOT, FileStat(1, 2, None), "bad")
    known = collection.known(ROOT / "b")
    assert sorted(map(str, known)) == ["Zürich_100%.jpg", "bad.jpg", 'quo"ted\\.jpg', "x=41.jpg"]
    assert known[Path("bad.jpg")].id is None
    assert known[Path("x=41.jpg")].sha256 == file_stat(3).sha256


def test_a_touched_file_keeps_its_features(collection):
    collection.touch(2, FileStat(5, 6, "ab" * 32))
    stored = collection.known(ROOT)[Path(NAMES[1])]
    assert (stored.id, stored.size, stored.mtime_ns) == (2, 5, 6)
    assert np.array_equal(collection.global_descriptor(2), image_features(1).global_descriptor)
    assert collection.verify() == []


def test_images_are_listed_in_order_of_id(collection):
    assert [image.id for image in collection.images_after(2, 2)] == [3, 4]
    assert collection.images_after(5, 2) == []


def test_info_counts(collection):
    info = collection.info()
    assert (info.num_images, info.num_local, info.num_failures) == (5, 25, 0)
    assert (info.global_dimensions, info.local_dimensions) == (16, 8)
    assert info.num_bytes > 5 * (64 + 5 * 28)


def test_other_dimensions_are_refused(collection):
    with pytest.raises(FormatError, match="descriptors must have 16"):
        collection.add(ROOT / "x", ROOT, file_stat(0), image_features(0, num_dimensions=17))


def test_a_second_writer_is_refused_and_a_second_collection_too(location, collection):
    with pytest.raises(WriterBusyError, match="one writer at a time"):
        Collection.open(location)
    collection.close()
    with pytest.raises(FormatError, match="not hold a collection yet"):
        Collection.create(location, RECIPE)
    Collection.open(location).close()


def test_features_of_a_collection_on_another_milvus_are_left_alone(
    services: Services, tmp_path: Path
) -> None:
    """Of the same name and prefix: it would take them for its own, and its repair remove them."""
    here, there = (services.file_address(tmp_path / name, "photos") for name in ("a.db", "b.db"))
    with Collection.create(here, RECIPE) as made:
        add_image(made, ROOT, 1, "a.jpg")
    with pytest.raises(FormatError, match="features must go where none are yet"):
        Collection.create(there, RECIPE)
    with Collection.open(here) as opened:
        assert (len(opened), opened.verify()) == (1, [])


def test_an_image_is_added_anew_in_the_batch_that_removes_it(collection):
    with collection.batch():
        assert collection.remove([ROOT / NAMES[0]]) == 1
        add_image(collection, ROOT, 7, NAMES[0])
    assert collection.find(ROOT / NAMES[0]) == 6
    with collection.batch():
        add_image(collection, ROOT, 8, NAMES[0])
        collection.remove([6])
    assert collection.find(ROOT / NAMES[0]) is None


def test_an_empty_collection_has_nothing_near(location):
    with Collection.create(location, RECIPE) as made:
        assert made.nearest(unit_rows(np.random.default_rng(0), 1, 16)[0], 5)[0].tolist() == []
        assert (len(made), made.ids().tolist(), made.verify()) == (0, [], [])


def test_all_hold_the_same(tmp_path, address, file_address):
    digests = set()
    for location in (tmp_path / "c", address, file_address):
        with Collection.create(location, RECIPE) as made, made.batch():
            for seed, name in enumerate(NAMES):
                add_image(made, ROOT, seed, name)
            made.add_failure(ROOT / "bad.jpg", ROOT, file_stat(9), "bad")
        with Collection.open(location, read_only=True) as reader:
            digests.add(reader.digest())
    assert len(digests) == 1
