import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opendelg.errors import FormatError, OpenDelgError
from opendelg.feature_files import (
    decode_datum,
    decode_features,
    encode_datum,
    encode_features,
    read_datum,
    read_datum_pair,
    read_delg_global,
    read_delg_local,
    write_datum,
    write_datum_pair,
    write_delg_global,
    write_delg_local,
)
from opendelg.features import LocalFeatures
from tests.wire import datum, feature, fixed32, floats, nested, varint

SCALES = np.array([0.25, 0.35355338, 0.5, 0.70710677, 1.0, 1.4142135, 2.0], np.float32)


def make_local(num: int, num_dimensions: int = 128) -> LocalFeatures:
    random = np.random.default_rng(3)
    return LocalFeatures(
        keypoints=random.uniform(0, 4000, (num, 2)).astype(np.float32),
        descriptors=random.standard_normal((num, num_dimensions)).astype(np.float32),
        scores=random.uniform(0, 500, num).astype(np.float32),
        scales=random.choice(SCALES, num),
    )


def assert_same(actual: LocalFeatures, expected: LocalFeatures) -> None:
    for name, array in vars(expected).items():
        found = getattr(actual, name)
        assert (found.dtype, found.shape) == (array.dtype, array.shape), name
        np.testing.assert_array_equal(found, array, err_msg=name)


def test_a_datum_has_the_bytes_of_the_official_message() -> None:
    # shape { dim: 2 dim: 3 } float_list { value: 1 ... }: the packed lists have wire type 2.
    expected = bytes.fromhex("0a040a020203 121a 0a18") + floats(1, 2, 3, 4, 5, 0.5)
    array = np.array([[1, 2, 3], [4, 5, 0.5]], np.float32)
    assert encode_datum(array) == expected == datum([2, 3], 1, 2, 3, 4, 5, 0.5)


def test_unsigned_integers_have_a_list_of_their_own() -> None:
    data = encode_datum(np.array([1, 300], np.uint16))
    assert data == bytes.fromhex("0a030a0102 1a05 0a03 01 ac02")
    assert decode_datum(data, "x").dtype == np.uint32
    assert decode_datum(data, "x").tolist() == [1, 300]


def test_a_feature_has_the_bytes_of_the_official_message() -> None:
    local = LocalFeatures(
        keypoints=np.array([[96.0, 32.5]], np.float32),
        descriptors=np.array([[0.6, -0.8]], np.float32),
        scores=np.array([175.5], np.float32),
        scales=np.array([0.25], np.float32),
    )
    expected = bytes.fromhex(
        "0a2c"  # a DelfFeature of 44 bytes
        "0a11 0a03 0a01 02 120a 0a08 9a99193f cdcc4cbf"  # descriptor: [2], 0.6, -0.8
        "150000c042"  # x 96
        "1d00000242"  # y 32.5
        "2500008040"  # scale 4
        "2d00000000"  # orientation
        "3500802f43"  # strength 175.5
    )
    assert encode_features(local) == expected
    assert feature(datum([2], 0.6, -0.8), 96, 32.5, 4, 0, 175.5) == expected


def test_bytes_of_another_encoder_are_read() -> None:
    first = feature(datum([2], 3, 4), x=10, y=20, scale=2, orientation=1, strength=7)
    second = feature(datum([2], 5, 6), x=30, y=40, scale=0.5, orientation=0, strength=6)
    local = decode_features(first + second, "x")
    assert local.keypoints.tolist() == [[10, 20], [30, 40]]
    assert local.descriptors.tolist() == [[3, 4], [5, 6]]
    assert (local.scores.tolist(), local.scales.tolist()) == ([7, 6], [0.5, 2])


def test_unpacked_and_split_lists_are_read() -> None:
    shape = nested(1, varint(1 << 3) + varint(2) + varint(1 << 3) + varint(2))
    values = fixed32(1, 1) + nested(1, floats(2, 3)) + fixed32(1, 4)
    assert decode_datum(shape + nested(2, values), "x").tolist() == [[1, 2], [3, 4]]


def test_unknown_fields_are_skipped() -> None:
    extended = datum([1], 9) + nested(15, b"of a later version") + fixed32(14, 1)
    assert decode_datum(extended, "x").tolist() == [9]


@pytest.mark.parametrize("num", [0, 1, 1000])
def test_local_features_come_back_as_they_were(tmp_path: Path, num: int) -> None:
    write_delg_local(tmp_path / "new" / "a.delg_local", make_local(num))
    assert_same(read_delg_local(tmp_path / "new" / "a.delg_local"), make_local(num))


def test_an_empty_file_has_no_features(tmp_path: Path) -> None:
    (tmp_path / "a.delf").write_bytes(b"")
    assert_same(read_delg_local(tmp_path / "a.delf", 40), LocalFeatures.empty(40))
    assert (tmp_path / "a.delf").read_bytes() == encode_features(LocalFeatures.empty(40))


def test_a_global_descriptor_comes_back_as_it_was(tmp_path: Path) -> None:
    descriptor = make_local(1, 2048).descriptors[0]
    write_delg_global(tmp_path / "a.delg_global", descriptor)
    read = read_delg_global(tmp_path / "a.delg_global")
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, descriptor)
    data = (tmp_path / "a.delg_global").read_bytes()
    assert data == datum([2048], *descriptor.tolist())


def test_an_empty_global_descriptor_is_legal(tmp_path: Path) -> None:
    (tmp_path / "a.delg_global").write_bytes(b"")
    assert read_delg_global(tmp_path / "a.delg_global").shape == (0,)
    assert decode_datum(datum([0]), "x").shape == (0,)


@pytest.mark.parametrize("shape", [(), (0,), (3,), (0, 5), (2, 3, 4)])
def test_arrays_of_any_shape_come_back(tmp_path: Path, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).standard_normal(shape).astype(np.float32).reshape(shape)
    write_datum(tmp_path / "a.datum", array)
    read = read_datum(tmp_path / "a.datum")
    assert (read.shape, read.dtype) == (shape, np.float32)
    np.testing.assert_array_equal(read, array)


def test_a_pair_of_arrays_comes_back(tmp_path: Path) -> None:
    first, second = np.array([1.5, 2.5], np.float32), np.array([[7]], np.uint32)
    write_datum_pair(tmp_path / "a.datum", first, second)
    expected = nested(1, datum([2], 1.5, 2.5)) + nested(2, bytes.fromhex("0a040a020101 1a030a0107"))
    assert (tmp_path / "a.datum").read_bytes() == expected
    read = read_datum_pair(tmp_path / "a.datum")
    np.testing.assert_array_equal(read[0], first)
    np.testing.assert_array_equal(read[1], second)


GOOD = datum([2], 1, 2)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(feature(GOOD, 1, 2, 1, 0, 3)[:-2], "must be a DelfFeatures", id="truncated"),
        pytest.param(b"\xff" * 20, "must be a DelfFeatures", id="no protobuf"),
        pytest.param(nested(1, b""), r"must be \(D,\) float32, got \(0,\)", id="no descriptor"),
        pytest.param(feature(GOOD, 1, 2, 0, 0, 3), "scale must be positive, got 0", id="scale 0"),
        pytest.param(feature(GOOD, 1, 2, -1, 0, 3), "scale must be positive", id="scale below 0"),
        pytest.param(feature(GOOD, 1, 2, float("nan"), 0, 3), "positive, got nan", id="scale NaN"),
        pytest.param(feature(GOOD, 1, 2, 1e-45, 0, 3), "scales must be finite", id="tiny scale"),
        pytest.param(feature(GOOD, float("nan"), 2, 1, 0, 3), "keypoints must be", id="NaN"),
        pytest.param(feature(GOOD, 1, 2, 1, 0, float("inf")), "scores must be", id="inf"),
        pytest.param(
            feature(datum([2], 1, float("nan")), 1, 2, 1, 0, 3),
            "datum must be finite, got other numbers in 'x, feature 0'",
            id="NaN in a descriptor",
        ),
        pytest.param(
            feature(GOOD, 1, 2, 1, 0, 3) + feature(datum([3], 1, 2, 3), 1, 2, 1, 0, 3),
            r"got \(2,\) and \(3,\) of feature 1",
            id="mixed sizes",
        ),
        pytest.param(
            feature(datum([1, 2], 1, 2), 1, 2, 1, 0, 3), r"got \(1, 2\)", id="two dimensions"
        ),
        pytest.param(
            feature(nested(1, nested(1, b"\1")) + nested(3, nested(1, b"\7")), 1, 2, 1, 0, 3),
            "got .* uint32",
            id="integers",
        ),
    ],
)
def test_features_that_are_wrong_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        decode_features(data, "x")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(datum([3], 1, 2), r"fit its 2 values, got \(3,\) in 'x'", id="shape"),
        pytest.param(datum([-1, -2], 1, 2), "fit its 2 values", id="negative"),
        pytest.param(datum([1 << 62, 1 << 62], 1), "fit its 1 values", id="huge"),
        pytest.param(datum([1 << 62, 4]), "fit its 0 values", id="overflow to 0"),
        pytest.param(datum([1] * 9, 1), "at most 8 dimensions, got 9", id="many dimensions"),
        pytest.param(datum([1], 1)[:-1], "must be a DatumProto", id="truncated"),
    ],
)
def test_datums_that_are_wrong_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        decode_datum(data, "x")


def test_a_field_of_another_wire_type_counts_as_absent() -> None:
    float_for_a_dimension = nested(1, fixed32(1, 2))
    with pytest.raises(FormatError, match=r"fit its 2 values, got \(\)"):
        decode_datum(float_for_a_dimension + nested(2, nested(1, floats(1, 2))), "x")


def test_files_of_excessive_size_are_not_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opendelg.feature_files.delg.MAX_FEATURE_BYTES", 100)
    write_delg_local(tmp_path / "a.delg_local", make_local(1))
    with pytest.raises(FormatError, match="must have at most 100 bytes, got more in"):
        read_delg_local(tmp_path / "a.delg_local")


@pytest.mark.parametrize(
    "array", [np.array([np.nan]), np.array([1e300]), np.array([-1]), np.array(["a"])]
)
def test_what_a_datum_cannot_hold_is_the_callers_mistake(array: np.ndarray) -> None:
    with pytest.raises(ValueError, match="array must be"):
        encode_datum(array)


def test_a_full_place_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(OpenDelgError, match="feature file must be writable"):
        write_delg_local(tmp_path / "a" / "b.delg_local", make_local(1))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_thousand_features_take_milliseconds() -> None:
    local = make_local(1000)

    def seconds(work: Callable[[], object]) -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    data = encode_features(local)
    # 8 ms each where it was measured; ten times that still tells a loop over numbers.
    assert min(seconds(lambda: encode_features(local)) for _ in range(3)) < 0.1
    assert min(seconds(lambda: decode_features(data, "x")) for _ in range(3)) < 0.1


VALID = encode_features(make_local(3, 4))


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A valid file with bytes replaced, inserted, repeated or cut."""
    data = bytearray(VALID)
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, len(data)))
        stop = draw(st.integers(start, min(len(data), start + 40)))
        data[start:stop] = draw(st.one_of(st.binary(max_size=12), st.just(bytes(data[start:]))))
    return bytes(data[:100_000])


@settings(max_examples=300, deadline=None)
@given(st.one_of(damaged(), st.binary(max_size=300)))
def test_damaged_files_give_features_or_a_format_error(data: bytes) -> None:
    for decode in (decode_features, decode_datum):
        try:
            decoded = decode(data, "x")
        except FormatError:
            continue
        arrays = vars(decoded).values() if isinstance(decoded, LocalFeatures) else [decoded]
        assert all(np.isfinite(array).all() for array in arrays)
