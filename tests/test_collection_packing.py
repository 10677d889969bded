from functools import cache

import numpy as np
import pytest

from opendelg.collection import PRECISIONS, pack_local, unpack_local
from opendelg.collection.codebook import Codebook
from opendelg.errors import FormatError
from opendelg.features import LocalFeatures
from tests.collection_samples import local_features


@cache
def codebook(num_columns: int) -> Codebook:
    return Codebook.learn(local_features(0, 2000, num_columns).descriptors)


def there_and_back(local: LocalFeatures, precision: str) -> LocalFeatures:
    book = codebook(local.descriptors.shape[1])
    return unpack_local(pack_local(local, precision, book), book)


@pytest.mark.parametrize("precision", ["int8", "float16"])
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
    back = there_and_back(local_features(4, num_keypoints), precision)
    assert back.keypoints.shape == (num_keypoints, 2)
    assert back.descriptors.shape == (num_keypoints, 8)
    assert {getattr(back, name).dtype for name in vars(back)} == {np.dtype(np.float32)}


@pytest.mark.parametrize("precision", ["pq", "1bit"])
def test_coarse_records_keep_the_rest_in_small_steps(precision):
    local = local_features(12, num_keypoints=500)  # keypoints span 4000 px, scores 800
    back = there_and_back(local, precision)
    np.testing.assert_allclose(back.keypoints, local.keypoints, atol=0.031)
    np.testing.assert_allclose(back.scores, local.scores, atol=0.007)
    np.testing.assert_allclose(back.scales, local.scales, atol=2e-5)


def test_one_bit_keeps_signs_by_hand():
    row = np.array([[0.1, -0.9, 0.3, -0.2, 0.0, 0.1, 0.1, 0.1, -0.1]], np.float32)
    local = LocalFeatures(
        np.zeros((1, 2), np.float32), row, np.ones(1, np.float32), np.ones(1, np.float32)
    )
    signs = np.array([1, -1, 1, -1, -1, 1, 1, 1, -1])  # nothing is no more than nothing
    actual = unpack_local(pack_local(local, "1bit")).descriptors[0]
    np.testing.assert_allclose(actual, signs * np.sqrt(2 / np.pi) / 3, rtol=1e-6)


@pytest.mark.parametrize(
    ("precision", "error"), [pytest.param("pq", 0.12), pytest.param("1bit", 0.38)]
)
def test_coarse_rows_are_off_by_as_much_as_theory_says(precision, error):
    # Of normal columns: 1 - 2 / pi for signs; two bits each, in groups of four, a little below
    # the 0.1175 of single ones (Max, "Quantizing for minimum distortion", 1960).
    local = local_features(13, num_keypoints=2000, num_columns=128)
    back = there_and_back(local, precision)
    distortion = ((back.descriptors - local.descriptors) ** 2).sum(axis=1).mean()
    assert error / 2 < distortion < error


def test_pq_gives_the_nearest_entries():
    local = local_features(14, num_keypoints=20)
    back = there_and_back(local, "pq").descriptors
    parts = local.descriptors.reshape(20, 2, 1, 4)
    distances = ((parts - codebook(8).entries) ** 2).sum(axis=3)
    found = ((back - local.descriptors) ** 2).reshape(20, 2, 4).sum(axis=2)
    np.testing.assert_allclose(found, distances.min(axis=2), atol=1e-6)


def test_a_codebook_comes_back_from_bytes():
    again = Codebook.from_bytes(codebook(8).to_bytes())
    np.testing.assert_array_equal(again.entries, codebook(8).entries)


@pytest.mark.parametrize("content", [b"", b"DLPQ", b"else" * 10], ids=["none", "cut", "other"])
def test_what_is_no_codebook_is_noticed(content):
    with pytest.raises(FormatError, match="codebook must"):
        Codebook.from_bytes(content)


def test_a_changed_codebook_is_noticed():
    content = bytearray(codebook(8).to_bytes())
    content[100] ^= 1
    with pytest.raises(FormatError, match="codebook must be intact"):
        Codebook.from_bytes(bytes(content))


def test_pq_needs_a_codebook_that_fits():
    local = local_features(15)
    with pytest.raises(ValueError, match="codebook must be one of 8 columns, got none"):
        pack_local(local, "pq")
    record = pack_local(local, "pq", codebook(8))
    with pytest.raises(FormatError, match="codebook must be there for records of 8 columns"):
        unpack_local(record)
    with pytest.raises(FormatError, match="got 16"):
        unpack_local(record, codebook(16))


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
