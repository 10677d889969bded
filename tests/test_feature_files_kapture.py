from pathlib import Path

import numpy as np
import pytest

from opendelg.errors import FormatError
from opendelg.feature_files import (
    read_kapture_global,
    read_kapture_local,
    write_kapture_global,
    write_kapture_local,
)
from opendelg.features import LocalFeatures
from tests.test_feature_files_delg import assert_same, make_local

IMAGE = "day/a.jpg"


def at_quarter_pixels(num: int) -> LocalFeatures:
    """Features whose keypoints lose nothing when half a pixel is added."""
    local = make_local(num, 8)
    return LocalFeatures(
        np.round(local.keypoints * 4) / 4, local.descriptors, local.scores, local.scales
    )


@pytest.mark.parametrize("num", [0, 1, 5])
def test_local_features_come_back_as_they_were(tmp_path: Path, num: int) -> None:
    write_kapture_local(tmp_path, IMAGE, at_quarter_pixels(num))
    assert_same(read_kapture_local(tmp_path, IMAGE), at_quarter_pixels(num))


def test_a_global_descriptor_comes_back_as_it_was(tmp_path: Path) -> None:
    write_kapture_global(tmp_path, IMAGE, np.array([0.6, 0.8], np.float32))
    read = read_kapture_global(tmp_path, IMAGE)
    assert (read.dtype, read.tolist()) == (np.float32, [np.float32(0.6), np.float32(0.8)])


def test_the_layout_is_that_of_kapture(tmp_path: Path) -> None:
    local = LocalFeatures(
        keypoints=np.array([[0, 2]], np.float32),
        descriptors=np.array([[0.5, 1, 2]], np.float32),
        scores=np.array([9], np.float32),
        scales=np.array([0.25], np.float32),
    )
    write_kapture_local(tmp_path, IMAGE, local)
    folder = tmp_path / "reconstruction"
    keypoints, descriptors = folder / "keypoints" / "delg", folder / "descriptors" / "delg"
    assert (keypoints / "keypoints.txt").read_text() == (
        "# kapture format: 1.1\n# name, dtype, dsize\ndelg, float32, 5\n"
    )
    assert (descriptors / "descriptors.txt").read_text() == (
        "# kapture format: 1.1\n# name, dtype, dsize, keypoints_type, metric_type\n"
        "delg, float32, 3, delg, L2\n"
    )
    # The centre of the first pixel is (0.5, 0.5): x, y, 1 / scale, orientation, score.
    rows = np.array([0.5, 2.5, 4, 0, 9], "<f4").tobytes()
    assert (keypoints / "day" / "a.jpg.kpt").read_bytes() == rows
    rows = np.array([0.5, 1, 2], "<f4").tobytes()
    assert (descriptors / "day" / "a.jpg.desc").read_bytes() == rows


def put(root: Path, kind: str, description: str, suffix: str, data: bytes) -> None:
    folder = root / "reconstruction" / kind / "sift"
    (folder / "day").mkdir(parents=True, exist_ok=True)
    (folder / f"{kind}.txt").write_text(description)
    (folder / "day" / f"a.jpg{suffix}").write_bytes(data)


def test_features_of_another_detector_are_read(tmp_path: Path) -> None:
    data = np.array([[1, 2, 30, 40]], "<f8").tobytes()
    put(tmp_path, "keypoints", "# kapture format: 1.1\n\nSIFT, float64, 4\n", ".kpt", data)
    put(tmp_path, "descriptors", "SIFT,uint8 , 3, sift, L2", ".desc", bytes([7, 8, 9]))
    local = read_kapture_local(tmp_path, IMAGE, "sift")
    assert local.keypoints.tolist() == [[0.5, 1.5]]
    assert local.descriptors.tolist() == [[7, 8, 9]]
    assert (local.scales.tolist(), local.scores.tolist()) == ([1], [1])


@pytest.mark.parametrize(
    ("description", "data", "message"),
    [
        pytest.param("a, float32", b"", "must be 'name, dtype, dsize'", id="short"),
        pytest.param("a, float32, 2\nb, float32, 2", b"", "must be 'name", id="two lines"),
        pytest.param("", b"", "must be 'name, dtype, dsize'", id="empty"),
        pytest.param("a, object, 2", b"", "dtype must be of numbers", id="dtype"),
        pytest.param("a, float7, 2", b"", "float7", id="no dtype"),
        pytest.param("a, float32, 0", b"", "dsize must be from 1 to 65536", id="dsize 0"),
        pytest.param("a, float32, 99999999999", b"", "dsize must be from", id="dsize huge"),
        pytest.param("a, float32, two", b"", "invalid literal", id="dsize text"),
        pytest.param("a, float32, 1", bytes(4), "must begin with x and y", id="dsize 1"),
        pytest.param("a, float32, 2", bytes(9), "whole rows of 8 bytes", id="truncated"),
        pytest.param("a, float32, 2", bytes(16), r"descriptors must be \(2, D\)", id="rows"),
        pytest.param("a, uint32, 2", b"\xff" * 8, r"descriptors", id="fewer"),
        pytest.param(
            "a, float32, 2", np.full(2, np.nan, "<f4").tobytes(), "keypoints must be", id="NaN"
        ),
        pytest.param("delg, float32, 5", bytes(20), "scales must be positive", id="scale 0"),
    ],
)
def test_keypoints_that_are_wrong_are_refused(
    tmp_path: Path, description: str, data: bytes, message: str
) -> None:
    put(tmp_path, "keypoints", description, ".kpt", data)
    descriptors = b"" if message == "descriptors" else bytes(3)
    put(tmp_path, "descriptors", "SIFT, uint8, 3, sift, L2", ".desc", descriptors)
    with pytest.raises(FormatError, match=message):
        read_kapture_local(tmp_path, IMAGE, "sift")


def test_a_global_feature_has_one_row(tmp_path: Path) -> None:
    put(tmp_path, "global_features", "a, float32, 2, L2", ".gfeat", bytes(16))
    with pytest.raises(FormatError, match="global feature must be one row, got 2"):
        read_kapture_global(tmp_path, IMAGE, "sift")


def test_features_of_another_shape_are_not_mixed(tmp_path: Path) -> None:
    write_kapture_global(tmp_path, IMAGE, np.ones(4, np.float32))
    with pytest.raises(FormatError, match="float32, 5 as these are, got delg, float32, 4"):
        write_kapture_global(tmp_path, IMAGE, np.ones(5, np.float32))
