from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from opendelg.collection import (
    Collection,
    Failure,
    FileStat,
    StoredFile,
    StoredImage,
    pack_local,
    unpack_local,
)
from opendelg.errors import FormatError, OpenDelgError
from opendelg.features import ImageFeatures, LocalFeatures
from tests.collection_samples import (
    RECIPE,
    add_image,
    file_stat,
    image_features,
    local_features,
    small_collection,
)


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "photos"
    root.mkdir()
    return root


@pytest.fixture
def collection(tmp_path, root):
    with small_collection(tmp_path / "collection", root) as collection:
        yield collection


def test_ids_count_up_in_order_of_adding(collection):
    np.testing.assert_array_equal(collection.ids(), [1, 2, 3])
    assert len(collection) == 3


def test_an_image_comes_back(collection, root):
    assert collection.image(2) == StoredImage(
        id=2,
        path=root / "photo 001.jpg",
        relative=Path("photo 001.jpg"),
        size=(641, 480),
        num_local=5,
    )


def test_images_come_in_the_order_asked_for(collection):
    assert [image.id for image in collection.images(np.array([3, 1, 3]))] == [3, 1, 3]


def test_global_descriptors_come_back_exactly(collection):
    ids, descriptors = collection.global_descriptors()
    np.testing.assert_array_equal(ids, [1, 2, 3])
    expected = np.stack([image_features(seed).global_descriptor for seed in range(3)])
    np.testing.assert_array_equal(descriptors, expected)


@pytest.mark.parametrize("precision", ["int8", "float16"])
def test_local_features_come_in_the_order_asked_for(tmp_path, root, precision):
    with Collection.create(tmp_path / "c", RECIPE, precision) as collection:
        for seed in range(3):
            add_image(collection, root, seed)
        found = collection.local_features([3, 1])
    for seed, actual in zip([2, 0], found, strict=True):
        expected = unpack_local(pack_local(local_features(seed), precision))
        np.testing.assert_array_equal(actual.descriptors, expected.descriptors)
        np.testing.assert_array_equal(actual.keypoints, expected.keypoints)


def test_an_image_without_keypoints_is_legal(collection, root):
    features = ImageFeatures((5, 5), image_features(9).global_descriptor, LocalFeatures.empty(8))
    image_id = collection.add(root / "blank.jpg", root, file_stat(9), features)
    assert collection.local_features([image_id])[0].descriptors.shape == (0, 8)
    assert collection.verify() == []


def test_nothing_asked_for_gives_nothing(collection):
    assert collection.local_features([]) == []
    assert collection.images([]) == []


def test_an_empty_collection_answers_everything(tmp_path):
    with Collection.create(tmp_path / "c", RECIPE) as collection:
        assert len(collection) == 0
        assert collection.ids().shape == (0,)
        assert collection.global_descriptors()[1].shape == (0, 0)
        assert collection.nearest(np.ones(4, np.float32), 5)[0].shape == (0,)
        assert collection.known(tmp_path) == {}
        assert collection.verify() == []
        collection.update_index()


def test_a_path_added_again_keeps_its_id(collection, root):
    assert collection.add(root / "photo 001.jpg", root, file_stat(8), image_features(8)) == 2
    assert len(collection) == 3
    assert collection.image(2).size == (648, 480)
    assert collection.known(root)[Path("photo 001.jpg")].size == 1008
    assert collection.nearest(image_features(8).global_descriptor, 1)[0] == [2]
    assert collection.verify() == []


def test_ids_are_never_used_again(collection, root):
    collection.remove([3])
    assert add_image(collection, root, 7) == 4


def test_known_lists_images_and_failures(collection, root):
    stat = FileStat(size=5, mtime_ns=6, sha256=None)
    collection.add_failure(root / "sub" / "bad.jpg", root, stat, "truncated")
    known = collection.known(root)
    assert known[Path("photo 000.jpg")] == StoredFile(
        id=1, size=1000, mtime_ns=file_stat(0).mtime_ns, sha256=f"{0:064x}", failure=None
    )
    assert known[Path("sub/bad.jpg")] == StoredFile(None, 5, 6, None, "truncated")
    assert len(known) == 4


def test_a_failure_replaces_the_image_and_the_image_the_failure(collection, root):
    path = root / "photo 000.jpg"
    collection.add_failure(path, root, file_stat(1), "truncated")
    assert collection.failures() == [Failure(path, "truncated")]
    np.testing.assert_array_equal(collection.ids(), [2, 3])
    assert add_image(collection, root, 0) == 4
    assert collection.failures() == []


def test_touch_replaces_the_file_facts_alone(collection, root):
    before = collection.digest()
    collection.touch(1, FileStat(size=1000, mtime_ns=77, sha256=f"{0:064x}"))
    assert collection.known(root)[Path("photo 000.jpg")].mtime_ns == 77
    assert collection.digest() == before


def test_find_gives_the_id_of_a_path(collection, root, monkeypatch):
    assert collection.find(root / "photo 002.jpg") == 3
    assert collection.find(root / "photo 003.jpg") is None
    assert collection.find(Path("/elsewhere/photo 002.jpg")) is None
    monkeypatch.chdir(root)
    assert collection.find(Path("photo 002.jpg")) == 3


def test_find_follows_links_to_folders(collection, root, tmp_path):
    (tmp_path / "link").symlink_to(root)
    assert collection.find(tmp_path / "link" / "photo 002.jpg") == 3


def test_removed_images_leave_nothing_behind(collection, root):
    collection.add_failure(root / "bad.jpg", root, file_stat(1), "truncated")
    assert collection.remove([1, root / "photo 002.jpg", root / "bad.jpg"]) == 3
    np.testing.assert_array_equal(collection.ids(), [2])
    assert collection.failures() == []
    assert collection.global_descriptors()[0] == [2]
    with pytest.raises(OpenDelgError, match="got id 1"):
        collection.local_features([1])
    assert collection.verify() == []


def test_removal_of_an_unknown_image_removes_nothing(collection, root):
    with pytest.raises(OpenDelgError, match=r"got '.*none.jpg'; nothing was removed"):
        collection.remove([1, root / "none.jpg"])
    assert len(collection) == 3


@pytest.mark.parametrize("method", ["image", "local_features", "touch"])
def test_unknown_ids_are_named(collection, method):
    arguments = {"image": (9,), "local_features": ([1, 9],), "touch": (9, file_stat(1))}
    with pytest.raises(OpenDelgError, match="image must be in the collection, got id 9"):
        getattr(collection, method)(*arguments[method])


def test_nearest_is_exact(collection):
    query = image_features(5).global_descriptor
    ids, descriptors = collection.global_descriptors()
    order = np.argsort(-(descriptors @ query))
    found, similarities = collection.nearest(query, 2)
    np.testing.assert_array_equal(found, ids[order][:2])
    np.testing.assert_allclose(similarities, (descriptors @ query)[order][:2], atol=1e-6)


def test_nearest_sees_every_change(collection, root):
    query = image_features(3).global_descriptor
    assert 4 not in collection.nearest(query, 10)[0]
    add_image(collection, root, 3)
    assert collection.nearest(query, 10)[0][0] == 4
    collection.remove([4])
    assert 4 not in collection.nearest(query, 10)[0]


def test_nearest_refuses_wrong_queries(collection):
    with pytest.raises(ValueError, match=r"query_descriptor must have shape \(16,\), got \(3,\)"):
        collection.nearest(np.ones(3, np.float32), 1)
    with pytest.raises(ValueError, match="query_descriptor must be finite"):
        collection.nearest(np.full(16, np.nan, np.float32), 1)
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        collection.nearest(np.ones(16, np.float32), 0)


def test_a_batch_is_committed_as_a_whole_or_not_at_all(collection, root):
    before = collection.digest()

    def fail_after_two():
        with collection.batch():
            add_image(collection, root, 7)
            add_image(collection, root, 8)
            assert len(collection.nearest(image_features(7).global_descriptor, 9)[0]) == 5
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_after_two()
    assert collection.digest() == before
    assert len(collection.nearest(image_features(7).global_descriptor, 9)[0]) == 3
    assert add_image(collection, root, 9) == 4


def test_a_refused_image_leaves_the_rest_of_its_batch(collection, root):
    with collection.batch():
        add_image(collection, root, 7)
        with pytest.raises(FormatError, match=r"must have 16 \(global\) and 8 \(local\) columns"):
            collection.add(root / "x.jpg", root, file_stat(1), image_features(1, 20))
    assert len(collection) == 4
    assert collection.verify() == []


def test_malformed_features_are_refused(collection, root):
    features = replace(image_features(1), global_descriptor=np.full(16, np.inf, np.float32))
    with pytest.raises(ValueError, match="global_descriptor must be a finite vector"):
        collection.add(root / "x.jpg", root, file_stat(1), features)


def test_a_path_outside_its_root_is_refused(collection, root):
    with pytest.raises(ValueError, match="path must lie below the root"):
        collection.add(root.parent / "x.jpg", root, file_stat(1), image_features(1))


def test_the_recipe_is_kept(tmp_path, collection):
    collection.close()
    with Collection.open(tmp_path / "collection", read_only=True) as reopened:
        assert reopened.recipe.to_json() == RECIPE.to_json()
        assert reopened.precision == "int8"
        reopened.require_recipe(RECIPE)


def test_another_recipe_is_refused_by_naming_both(collection):
    other = replace(RECIPE, weights_name="big", weights_sha256="cd", extraction={"max_size": 1024})
    with pytest.raises(FormatError, match=r"'big' .*instead of 'tiny' .*extraction.scales"):
        collection.require_recipe(other)


def test_info_counts_everything(collection, root):
    collection.add_failure(root / "bad.jpg", root, file_stat(1), "truncated")
    info = collection.info()
    assert (info.num_images, info.num_failures, info.num_local) == (3, 1, 15)
    assert (info.global_dimensions, info.local_dimensions) == (16, 8)
    assert (info.weights_name, info.roots, info.revision) == ("tiny", (root,), 4)
    assert info.num_bytes > 10_000


def test_the_digest_ignores_places_times_and_ids(tmp_path, collection):
    other_root = tmp_path / "elsewhere"
    with Collection.create(tmp_path / "other", RECIPE) as other:
        for seed in reversed(range(3)):
            stat = replace(file_stat(seed), mtime_ns=1)
            name = f"photo {seed:03}.jpg"
            other.add(other_root / name, other_root, stat, image_features(seed))
        assert other.digest() == collection.digest()


def test_the_digest_notices_each_change(collection, root):
    digests = {collection.digest()}
    collection.add_failure(root / "bad.jpg", root, file_stat(1), "truncated")
    digests.add(collection.digest())
    add_image(collection, root, 5)
    digests.add(collection.digest())
    collection.remove([1])
    digests.add(collection.digest())
    assert len(digests) == 4


@pytest.mark.parametrize(
    "name",
    [
        "with space.jpg",
        "grün 東京 é.jpg",
        "e\u0301 decomposed.jpg",
        "bytes \udcff\udc80.jpg",
        "100%?#&'\".jpg",
        "sub/folder/deep.jpg",
    ],
)
def test_any_file_name_survives(tmp_path, collection, root, name):
    image_id = add_image(collection, root, 9, name)
    collection.add_failure(root / ("x" + name), root, file_stat(1), f"cannot read {name}")
    collection.close()
    with Collection.open(tmp_path / "collection") as reopened:
        assert reopened.image(image_id).path == root / name
        assert reopened.find(root / name) == image_id
        assert Path(name) in reopened.known(root)
        assert reopened.verify() == []
        assert reopened.remove([root / name, root / ("x" + name)]) == 2


def test_any_folder_name_works(tmp_path, root):
    folder = tmp_path / "100% ? ü \udcff #1"
    with small_collection(folder, root) as collection:
        collection.update_index()
    with Collection.open(folder, read_only=True) as reopened:
        assert reopened.nearest(image_features(1).global_descriptor, 1)[0] == [2]
        assert reopened.verify() == []


def test_threads_may_share_a_collection(collection):
    from concurrent.futures import ThreadPoolExecutor

    queries = [image_features(seed % 3).global_descriptor for seed in range(40)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda query: collection.nearest(query, 1)[0][0], queries))
    assert found == [seed % 3 + 1 for seed in range(40)]


def test_importing_collections_does_not_import_faiss():
    import subprocess
    import sys

    code = "import sys, opendelg.collection; print('faiss' in sys.modules, 'torch' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    assert printed.split() == [b"False", b"False"]
