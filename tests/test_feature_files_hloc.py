import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from opendelg.errors import FormatError, OpenDelgError
from opendelg.feature_files import (
    hloc_images,
    read_hloc_global,
    read_hloc_local,
    write_hloc_global,
    write_hloc_local,
)
from opendelg.features import ImageFeatures, LocalFeatures
from tests.test_feature_files_delg import assert_same, make_local


def make_features(num: int = 5) -> ImageFeatures:
    return ImageFeatures((640, 480), np.array([0.6, 0.8], np.float32), make_local(num, 8))


@pytest.mark.parametrize("num", [0, 1, 5])
def test_local_features_come_back_as_they_were(tmp_path: Path, num: int) -> None:
    path = tmp_path / "new" / "features.h5"
    write_hloc_local(path, [("day/a.jpg", make_features(num))])
    local, size = read_hloc_local(path, "day/a.jpg")
    assert_same(local, make_features(num).local)
    assert size == (640, 480)


def test_the_layout_is_that_of_hloc(tmp_path: Path) -> None:
    features = make_features()
    write_hloc_local(tmp_path / "f.h5", [("day/a.jpg", features)])
    with h5py.File(tmp_path / "f.h5") as file:
        group = file["day/a.jpg"]
        np.testing.assert_array_equal(group["keypoints"], features.local.keypoints)
        np.testing.assert_array_equal(group["descriptors"], features.local.descriptors.T)
        np.testing.assert_array_equal(group["scores"], features.local.scores)
        assert group["image_size"][()].tolist() == [640, 480]


def test_global_descriptors_come_back_as_they_were(tmp_path: Path) -> None:
    write_hloc_global(tmp_path / "g.h5", [("a.jpg", make_features())])
    descriptor = read_hloc_global(tmp_path / "g.h5", "a.jpg")
    assert (descriptor.dtype, descriptor.tolist()) == (
        np.float32,
        [np.float32(0.6), np.float32(0.8)],
    )


def test_a_file_of_hloc_is_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w", libver="latest") as file:
        group = file.create_group("db/1.jpg")
        group["keypoints"] = np.array([[3.5, 0], [1, 2]], np.float16)
        group["keypoints"].attrs["uncertainty"] = 1.5
        group["descriptors"] = np.eye(4, 2, dtype=np.float16)
        group["scores"] = np.array([0.5, 0.25], np.float16)
        group["image_size"] = np.array([640, 480])
    local, size = read_hloc_local(tmp_path / "f.h5", "db/1.jpg")
    assert (local.keypoints.tolist(), size) == ([[3.5, 0], [1, 2]], (640, 480))
    assert local.descriptors.tolist() == [[1, 0, 0, 0], [0, 1, 0, 0]]
    assert local.scales.tolist() == [1, 1]
    assert hloc_images(tmp_path / "f.h5") == {"db/1.jpg": None}


def test_images_are_added_to_a_file_and_replaced_in_it(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    write_hloc_local(path, [("a", make_features(1)), ("b", make_features(2))], {"a": 7, "b": 8})
    write_hloc_local(path, [("b", make_features(3)), ("c", make_features(4))])
    assert hloc_images(path) == {"a": 7, "b": None, "c": None}
    assert [len(read_hloc_local(path, name)[0]) for name in "abc"] == [1, 3, 4]


def test_descriptors_can_be_halved_and_keypoints_are_not(tmp_path: Path) -> None:
    write_hloc_local(tmp_path / "f.h5", [("a", make_features())], half=True)
    with h5py.File(tmp_path / "f.h5") as file:
        assert file["a/descriptors"].dtype == np.float16
        assert file["a/keypoints"].dtype == np.float32


def test_a_file_stays_as_it_was_when_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    write_hloc_local(path, [("a", make_features())])
    before = path.read_bytes()
    broken = ImageFeatures((1, 1), np.ones(1), LocalFeatures.empty(2))
    with pytest.raises(AttributeError):
        write_hloc_local(path, [("b", broken), ("c", None)])  # type: ignore[list-item]
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def change(name: str, value: object) -> dict[str, object]:
    """The data sets of an image, one of them changed, or taken out."""
    good = {
        "keypoints": np.ones((2, 2), np.float32),
        "descriptors": np.ones((4, 2), np.float32),
        "scores": np.ones(2, np.float32),
        "image_size": np.array([9, 9]),
    }
    return {key: item for key, item in {**good, name: value}.items() if item is not None}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        pytest.param("keypoints", np.ones((2, 3)), r"keypoints must be \(N, 2\)", id="columns"),
        pytest.param("keypoints", np.full((2, 2), np.nan), "keypoints must be finite", id="NaN"),
        pytest.param("descriptors", np.ones((2, 4)), r"must be \(2, D\), got \(4, 2\)", id="rows"),
        pytest.param("scores", np.ones(3), r"scores must be \(2,\)", id="scores"),
        pytest.param("scores", None, "image must have scores", id="absent"),
        pytest.param("scores", "text", "scores must be numbers", id="text"),
        pytest.param("scores", h5py.Empty("f4"), "scores must be numbers", id="null"),
        pytest.param("scales", np.array([1, 0]), "scales must be positive", id="scale 0"),
        pytest.param("scales", np.array([1, np.nan]), "scales must be positive", id="scale NaN"),
        pytest.param("scales", np.ones((2, 2)), r"scales must be \(2,\)", id="scales"),
        pytest.param("image_size", np.array([1, 2, 3]), "image_size must be", id="size"),
        pytest.param("image_size", np.array([1, np.nan]), "image_size must be", id="size NaN"),
    ],
)
def test_images_that_are_wrong_are_refused(
    tmp_path: Path, name: str, value: object, message: str
) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        for key, item in change(name, value).items():
            file[f"a/{key}"] = item
    with pytest.raises(FormatError, match=message):
        read_hloc_local(tmp_path / "f.h5", "a")


def test_an_array_larger_than_its_file_is_not_allocated(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file.create_dataset("a/global_descriptor", (1 << 40,), "f4", chunks=(1 << 20,))
    with pytest.raises(FormatError, match="global_descriptor must be numbers, at most"):
        read_hloc_global(tmp_path / "f.h5", "a")


@pytest.mark.parametrize("name", ["b", "", "a/scores", "."])
def test_an_absent_image_is_named(tmp_path: Path, name: str) -> None:
    write_hloc_local(tmp_path / "f.h5", [("a", make_features())])
    with pytest.raises(FormatError, match="image must"):
        read_hloc_local(tmp_path / "f.h5", name)


def test_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    write_hloc_local(path, [("a", make_features())])
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(FormatError, match="feature file must be HDF5 as hloc writes it"):
        hloc_images(path)
    path.write_bytes(b"no HDF5")
    with pytest.raises(FormatError, match="feature file must be HDF5 as hloc writes it"):
        read_hloc_local(path, "a")


def test_without_h5py_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(OpenDelgError, match=r"h5py must be installed.*opendelg\[h5\]"):
        write_hloc_local(tmp_path / "f.h5", [])
