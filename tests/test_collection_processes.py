"""Several processes on one collection, and processes that are killed."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from opendelg.collection import Collection
from opendelg.errors import OpenDelgError
from tests.collection_samples import RECIPE, add_image, image_features, small_collection

NUM_IMAGES = 60
INDEXER = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from tests.collection_samples import RECIPE, add_image
from opendelg.collection import Collection

folder, root = Path(sys.argv[1]), Path(sys.argv[1]).parent
print("started", flush=True)
exists = Collection.exists(folder)
with (Collection.open(folder) if exists else Collection.create(folder, RECIPE)) as collection:
    known = collection.known(root)
    for start in range(0, {NUM_IMAGES}, 3):
        with collection.batch():
            for seed in range(start, start + 3):
                if Path(f"photo {{seed:03}}.jpg") not in known:
                    add_image(collection, root, seed)
print("done", flush=True)
"""


def start_indexer(folder):
    command = [sys.executable, "-c", INDEXER, str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"started\n"
    return process


@pytest.fixture
def collection(tmp_path):
    with small_collection(tmp_path / "collection", tmp_path) as collection:
        yield collection


def test_a_killed_and_resumed_indexing_equals_an_uninterrupted_one(tmp_path):
    rng = random.Random(0)
    folder = tmp_path / "killed"
    num_found = []
    for _ in range(4):
        with start_indexer(folder) as process:
            time.sleep(rng.uniform(0.0, 0.12))
            process.send_signal(signal.SIGKILL)
        if Collection.exists(folder):
            with Collection.open(folder, read_only=True) as collection:
                assert collection.verify() == []
                num_found.append(len(collection))
    with start_indexer(folder) as process:
        assert process.stdout.read() == b"done\n"
    assert num_found == sorted(num_found)
    assert all(count % 3 == 0 for count in num_found)

    with small_collection(tmp_path / "whole", tmp_path, NUM_IMAGES) as whole:
        expected = whole.digest()
        places = {path: file.id for path, file in whole.known(tmp_path).items()}
    with Collection.open(folder) as collection:
        assert collection.digest() == expected
        assert {path: file.id for path, file in collection.known(tmp_path).items()} == places
        assert collection.verify() == []


def test_a_second_writer_is_refused(collection):
    with pytest.raises(OpenDelgError, match="one writer at a time"):
        Collection.open(collection.folder)


def test_a_second_process_that_writes_is_refused(collection):
    command = [sys.executable, "-c", INDEXER, str(collection.folder)]
    result = subprocess.run(command, capture_output=True, check=False)
    assert b"collection must have one writer at a time" in result.stderr


def test_closing_lets_the_next_writer_in(collection):
    collection.close()
    collection.close()
    Collection.open(collection.folder).close()


def test_a_failed_opening_does_not_keep_the_lock(tmp_path, collection):
    collection.close()
    (collection.folder / "catalogue.sqlite").rename(tmp_path / "kept")
    (collection.folder / "catalogue.sqlite").write_bytes(b"nonsense" * 999)
    with pytest.raises(OpenDelgError):
        Collection.open(collection.folder)
    (tmp_path / "kept").rename(collection.folder / "catalogue.sqlite")
    Collection.open(collection.folder).close()


def test_a_reader_sees_what_is_committed(collection, tmp_path):
    with Collection.open(collection.folder, read_only=True) as reader:
        query = image_features(7).global_descriptor
        assert reader.nearest(query, 9)[0].shape == (3,)
        with collection.batch():
            add_image(collection, tmp_path, 7)
            assert reader.nearest(query, 9)[0].shape == (3,)
        assert reader.nearest(query, 9)[0][0] == 4
        collection.remove([4])
        assert 4 not in reader.nearest(query, 9)[0]


def test_a_reader_sees_new_roots(collection, tmp_path):
    with Collection.open(collection.folder, read_only=True) as reader:
        assert len(reader.known(tmp_path)) == 3
        add_image(collection, tmp_path / "more", 7)
        assert reader.image(4).path == tmp_path / "more/photo 007.jpg"


def test_a_snapshot_stays_while_another_writes(collection, tmp_path):
    with Collection.open(collection.folder, read_only=True) as reader:
        with reader.snapshot():
            ids, _ = reader.nearest(image_features(0).global_descriptor, 9)
            collection.remove([1])
            add_image(collection, tmp_path, 8)
            assert len(reader.local_features(ids)) == 3
            np.testing.assert_array_equal(reader.ids(), [1, 2, 3])
        np.testing.assert_array_equal(reader.ids(), [2, 3, 4])


def test_a_snapshot_older_than_the_saved_index_ignores_it(collection, tmp_path):
    with Collection.open(collection.folder, read_only=True) as reader, reader.snapshot():
        add_image(collection, tmp_path, 8)
        collection.update_index()
        ids, _ = reader.nearest(image_features(8).global_descriptor, 9)
        np.testing.assert_array_equal(np.sort(ids), [1, 2, 3])


def test_changes_inside_a_snapshot_are_a_mistake(collection, tmp_path):
    with collection.snapshot(), pytest.raises(RuntimeError, match="inside a snapshot"):
        add_image(collection, tmp_path, 8)


def test_searching_while_another_process_indexes(tmp_path):
    folder = tmp_path / "collection"
    small_collection(folder, tmp_path).close()
    with start_indexer(folder) as process, Collection.open(folder, read_only=True) as reader:
        counts = []
        while process.poll() is None:
            ids, similarities = reader.nearest(image_features(1).global_descriptor, NUM_IMAGES)
            assert ids[0] == 2
            assert np.all(np.diff(similarities) <= 0)
            counts.append(len(ids))
        assert counts == sorted(counts)
        assert len(reader.nearest(image_features(1).global_descriptor, 200)[0]) == NUM_IMAGES


def test_a_growing_collection_extends_the_saved_index(collection, tmp_path):
    collection.update_index()
    before = (collection.folder / "nearest.faiss").stat()
    add_image(collection, tmp_path, 7)
    collection.nearest(image_features(7).global_descriptor, 1)
    after = (collection.folder / "nearest.faiss").stat()
    assert before == after  # one row is not worth a new file
    collection.update_index()
    with Collection.open(collection.folder, read_only=True) as reader:
        assert reader.nearest(image_features(7).global_descriptor, 1)[0] == [4]
        assert reader.verify() == []


def test_a_search_saves_an_index_that_saves_time(tmp_path):
    with Collection.create(tmp_path / "c", RECIPE) as collection:
        with collection.batch():
            for seed in range(300):
                add_image(collection, tmp_path, seed)
        collection.nearest(image_features(7).global_descriptor, 1)
        assert (tmp_path / "c" / "nearest.faiss").exists()
        assert collection.verify() == []
