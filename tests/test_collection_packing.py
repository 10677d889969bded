import numpy as np
import pytest

from opendelg.collection import PRECISIONS, pack_local, unpack_local
from opendelg.errors import FormatError
from opendelg.features import LocalFeatures
from tests.collection_samples import local_features


@pytest.mark.parametrize("precision", PRECISIONS)
def test_everything_but_descriptors_comes_back_exactly(precision):
    local = local_features(1, num_keypoints=50)
    back = unpack_local(pack_local(local, precision))
    np.testing.assert_array_equal(back.keypoints, local.keypoints)
    np.testing.assert_array_equal(back.scores, local.scores)
    np.testing.assert_array_equal(back.scales, local.scales)


@pytest.mark.parametrize(
    ("precision", "error"), [pytest.param("int8", 4e-3), pytest.param("float16", 3e-4)]
)
def test_descriptors_come_back_nearly(precision, error):
    local = local_features(2, num_keypoints=200, num_columns=128)
    back = unpack_local(pack_local(local, precision))
    np.testing.assert_allclose(back.descriptors, local.descriptors, atol=error, rtol=0)


def test_int8_rows_keep_unit_length():
    local = local_features(3, num_keypoints=200, num_columns=128)
    lengths = np.linalg.norm(unpack_local(pack_local(local, "int8")).descriptors, axis=1)
    np.testing.assert_allclose(lengths, 1.0, atol=1e-6)


def test_int8_of_a_row_by_hand():
    row = np.array([[0.6, -0.8, 0.0]], np.float32)
    local = LocalFeatures(
        np.zeros((1, 2), np.float32), row, np.ones(1, np.float32), np.ones(1, np.float32)
    )
    quantised = np.array([95, -127, 0])  # 0.6 / 0.8 * 127 = 95.25
    expected = quantised / np.linalg.norm(quantised)
    actual = unpack_local(pack_local(local, "int8")).descriptors[0]
    np.testing.assert_allclose(actual, expected, atol=1e-7)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("num_keypoints", [0, 1])
def test_few_keypoints_keep_shapes_and_types(precision, num_keypoints):
    back = unpack_local(pack_local(local_features(4, num_keypoints), precision))
    assert back.keypoints.shape == (num_keypoints, 2)
    assert back.descriptors.shape == (num_keypoints, 8)
    assert {getattr(back, name).dtype for name in vars(back)} == {np.dtype(np.float32)}


def test_a_row_of_zeros_stays_zero():
    local = local_features(5, num_keypoints=2)
    local.descriptors[1] = 0
    assert not unpack_local(pack_local(local, "int8")).descriptors[1].any()


def test_packing_leaves_its_argument_alone():
    local, same = local_features(6), local_features(6)
    pack_local(local, "int8")
    np.testing.assert_array_equal(local.descriptors, same.descriptors)


@pytest.mark.parametrize("position", [0, 4, 9, 14, 17, 30, -1])
def test_any_changed_byte_is_noticed(position):
    record = bytearray(pack_local(local_features(7), "int8"))
    record[position] ^= 0x10
    with pytest.raises(FormatError):
        unpack_local(bytes(record))


@pytest.mark.parametrize("length", [0, 3, 19, 100])
def test_a_cut_record_is_noticed(length):
    with pytest.raises(FormatError):
        unpack_local(pack_local(local_features(8), "int8")[:length])


def test_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="precision must be one of"):
        pack_local(local_features(9), "int4")


@pytest.mark.parametrize("name", ["keypoints", "descriptors", "scores", "scales"])
def test_values_must_be_finite(name):
    local = local_features(10)
    getattr(local, name)[0] = np.nan
    with pytest.raises(ValueError, match=f"{name} must be finite"):
        pack_local(local, "int8")


def test_shapes_must_agree():
    local = local_features(11)
    broken = LocalFeatures(local.keypoints, local.descriptors, local.scores[:-1], local.scales)
    with pytest.raises(ValueError, match=r"scores must have shape \(5,\), got \(4,\)"):
        pack_local(broken, "int8")
