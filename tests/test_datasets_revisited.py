import copy
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

from opendelg.datasets.revisited import find_revisited_photos, read_revisited, require_photos
from opendelg.errors import FormatError, OpenDelgError
from tests.revisited_samples import (
    DATABASE,
    GROUND_TRUTH,
    QUERIES,
    matlab_truth,
    photo,
    write_dataset,
)

PARIS = Path(os.environ.get("OPENDELG_DATA", "nowhere")) / "eval" / "paris6k_sub"


def changed(place: list[Any], value: Any) -> dict[str, Any]:
    """The ground truth with one value replaced."""
    truth = copy.deepcopy(GROUND_TRUTH)
    inner: Any = truth
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return truth


def contents(dataset: Any) -> list[Any]:
    lists = [[ids.tolist() for ids in of] for of in (dataset.easy, dataset.hard, dataset.junk)]
    return [dataset.names, dataset.query_names, dataset.boxes.tolist(), *lists]


EXPECTED = [
    DATABASE,
    QUERIES,
    [[16.0, 8.0, 144.0, 120.0], [20.0, 4.0, 170.0, 110.0]],
    [[0, 2], [3]],
    [[1], [4, 5]],
    [[6], []],
]


def test_the_published_layout_is_read(tmp_path: Path) -> None:
    dataset = read_revisited(write_dataset(tmp_path / "d"), "roxford5k")
    assert contents(dataset) == EXPECTED
    assert not dataset.is_official


def test_arrays_in_place_of_lists_are_read(tmp_path: Path) -> None:
    truth = changed(["gnd", 0, "easy"], np.array([2, 0], np.uint16))
    assert contents(read_revisited(write_dataset(tmp_path / "d", truth), "roxford5k")) == EXPECTED


def test_matlab_files_hold_the_same(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "gnd_roxford5k.mat", matlab_truth(GROUND_TRUTH))
    assert contents(read_revisited(tmp_path, "roxford5k")) == EXPECTED


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_a_missing_ground_truth_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"dataset must (be an existing folder|have a file)"
    ):
        read_revisited(tmp_path / name, "rparis6k")


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        pytest.param(["a"], "must be a dict of imlist, qimlist and gnd", id="no-dict"),
        pytest.param(changed(["imlist"], []), "imlist must name distinct photos", id="empty"),
        pytest.param(
            changed(["imlist", 0], "db_1"), "distinct photos, got 7 of 8", id="listed-twice"
        ),
        pytest.param(changed(["imlist", 0], "../x"), "names of photos, got '../x'", id="outside"),
        pytest.param(changed(["imlist", 0], 3), "names of photos, got int", id="number"),
        pytest.param(changed(["qimlist", 0], "db_1"), "got 'db_1' in both", id="both"),
        pytest.param(changed(["gnd"], []), "one entry per query, got 0 for 2", id="entries"),
        pytest.param(changed(["gnd", 1], {}), "got none: 'keble_2'", id="no-lists"),
        pytest.param(
            changed(["gnd", 0, "bbx"], [5, 5, 5, 9]), "must be x1 < x2, y1 < y2", id="flat-box"
        ),
        pytest.param(changed(["gnd", 0, "bbx"], [1, 2, 3]), "must be x1 < x2", id="short-box"),
        pytest.param(
            changed(["gnd", 0, "bbx"], [0, 0, 1, float("nan")]), "must be numbers", id="nan"
        ),
        pytest.param(changed(["gnd", 0, "easy"], [8]), "images from 0 to 7, got others", id="high"),
        pytest.param(changed(["gnd", 0, "easy"], [-1]), "images from 0 to 7", id="negative"),
        pytest.param(changed(["gnd", 0, "easy"], [0.5]), "images from 0 to 7", id="fraction"),
        pytest.param(changed(["gnd", 0, "easy"], ["a"]), "must be numbers below", id="text"),
        pytest.param(
            changed(["gnd", 0, "easy"], np.zeros((2, 2), int)), "got an array of shape", id="table"
        ),
        pytest.param(changed(["gnd", 0, "junk"], [1]), "once, got 1 more often", id="two-lists"),
        pytest.param(changed(["gnd", 0, "hard"], [1, 1]), "once, got 1 more often", id="twice"),
    ],
)
def test_a_ground_truth_that_contradicts_itself_is_refused(
    tmp_path: Path, truth: Any, message: str
) -> None:
    (tmp_path / "gnd_roxford5k.pkl").write_bytes(pickle.dumps(truth, 2))
    with pytest.raises(FormatError, match=rf"{message}.*gnd_roxford5k\.pkl"):
        read_revisited(tmp_path, "roxford5k")


def test_photos_are_found_in_jpg_first_then_anywhere(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "d")
    (folder / "other").mkdir()
    (folder / "other" / "db_1.jpg").write_bytes(photo(1))
    (folder / "jpg" / "db_2.jpg").rename(folder / "other" / "db_2.jpg")
    found = find_revisited_photos(read_revisited(folder, "roxford5k"), folder)
    assert list(found.queries) == [0, 1]
    assert list(found.database) == list(range(8))
    assert found.database[1] == folder / "jpg" / "db_1.jpg"
    assert found.database[2] == folder / "other" / "db_2.jpg"


def test_two_photos_of_one_name_are_an_error(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "d")
    for place in ("a", "b"):
        (folder / place).mkdir()
        (folder / place / "db_2.jpg").write_bytes(photo(1))
    (folder / "jpg" / "db_2.jpg").unlink()
    with pytest.raises(FormatError, match=r"photo must be there once, got .*a/db_2.*b/db_2"):
        find_revisited_photos(read_revisited(folder, "roxford5k"), folder)


def test_missing_photos_are_refused_unless_a_subset_is_wanted(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "d")
    (folder / "jpg" / "db_2.jpg").unlink()
    dataset = read_revisited(folder, "roxford5k")
    photos = find_revisited_photos(dataset, folder)
    with pytest.raises(OpenDelgError, match=r"got 1 missing beside .*: db_2.jpg; with --subset"):
        require_photos(dataset, photos, is_subset_allowed=False)
    require_photos(dataset, photos, is_subset_allowed=True)


def test_a_subset_without_queries_is_refused(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "d")
    for name in QUERIES:
        (folder / "jpg" / f"{name}.jpg").unlink()
    dataset = read_revisited(folder, "roxford5k")
    with pytest.raises(OpenDelgError, match="queries and of the database, got 0 and 8"):
        require_photos(dataset, find_revisited_photos(dataset, folder), is_subset_allowed=True)


@pytest.mark.data
@pytest.mark.skipif(not PARIS.is_dir(), reason="needs eval/paris6k_sub in $OPENDELG_DATA")
def test_the_published_ground_truth_is_read() -> None:
    dataset = read_revisited(PARIS, "rparis6k")
    assert dataset.is_official
    assert (dataset.names[0][:6], dataset.query_names[0]) == ("paris_", "paris_defense_000605")
    assert dataset.boxes[0].tolist() == [130, 17, 843, 732]
    photos = find_revisited_photos(dataset, PARIS)
    assert (len(photos.queries), len(photos.database)) == (12, 238)
