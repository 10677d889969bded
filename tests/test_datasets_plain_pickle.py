import os
import pickle
import struct
import time
import tracemalloc
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from opendelg.datasets.plain_pickle import MAX_BYTES, read_plain_pickle
from opendelg.errors import FormatError

VALUES: dict[str, Any] = {
    "imlist": ["paris_1", "日本"],
    "gnd": [{"bbx": [1, 2.5, -(2**40), 4], "easy": (), "junk": None, "ok": (True, False)}],
    "bytes": b"\x00\xff",
    "three": ((1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
}


def written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "gnd.pkl"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_come_back_whatever_the_protocol(tmp_path: Path, protocol: int) -> None:
    assert read_plain_pickle(written(tmp_path, pickle.dumps(VALUES, protocol))) == VALUES


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", ["?", "u1", "<i8", ">i4", "<f4", "<f8"])
def test_arrays_come_back_whatever_the_protocol(tmp_path: Path, protocol: int, kind: str) -> None:
    array = np.arange(6).reshape(2, 3).astype(kind)
    values = [array, np.asfortranarray(array), array[:0], array[0]]
    found = read_plain_pickle(written(tmp_path, pickle.dumps(values, protocol)))
    for one, expected in zip(found, values, strict=True):
        np.testing.assert_array_equal(one, expected, strict=True)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_single_numbers_of_numpy_come_back(tmp_path: Path, protocol: int) -> None:
    data = pickle.dumps([np.int64(7), np.float32(0.5)], protocol)
    assert read_plain_pickle(written(tmp_path, data)) == [7, 0.5]


def test_shared_values_are_shared_again(tmp_path: Path) -> None:
    array = np.arange(3)
    first, second = read_plain_pickle(written(tmp_path, pickle.dumps([array, array])))
    assert first is second


def test_pickles_of_python_2_are_read(tmp_path: Path) -> None:
    data = b"(dp0\nS'imlist'\np1\n(lp2\nS'a'\np3\naVb\np4\nas."
    assert read_plain_pickle(written(tmp_path, data)) == {"imlist": ["a", "b"]}


class Calls:
    """Pickled as a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_command_is_refused_by_its_name_and_not_run(tmp_path: Path, protocol: int) -> None:
    ran = tmp_path / "ran"
    data = pickle.dumps({"imlist": Calls(os.system, f"touch {ran}")}, protocol)
    with pytest.raises(
        FormatError, match=r"plain containers and arrays, got '\w+\.system' in .*gnd"
    ):
        read_plain_pickle(written(tmp_path, data))
    assert not ran.exists()


@pytest.mark.parametrize(
    ("value", "name"),
    [
        pytest.param(Calls(eval, "1"), r"\w+\.eval", id="eval"),
        pytest.param(Calls(np.fromfile, "/etc/passwd"), r"numpy.*fromfile", id="numpy"),
        pytest.param(Calls(getattr, "", "join"), r"\w+\.getattr", id="getattr"),
        pytest.param(OrderedDict(a=1), r"collections\.OrderedDict", id="subclass"),
        pytest.param({1}, r"\w+\.set", id="set"),
        pytest.param(1j, r"\w+\.complex", id="complex"),
    ],
)
def test_whatever_else_is_named_is_refused(tmp_path: Path, value: Any, name: str) -> None:
    with pytest.raises(FormatError, match=f"got '{name}'"):
        read_plain_pickle(written(tmp_path, pickle.dumps(value, 2)))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"cnumpy\nload\n(S'x'\ntR.", id="global"),
        pytest.param(b"(S'ls'\nios\nsystem\n.", id="inst"),
        pytest.param(b"(cos\nsystem\nS'ls'\no.", id="obj"),
        pytest.param(b"P1\n.", id="persistent"),
        pytest.param(b"\x80\x02\x82\x01.", id="extension"),
        pytest.param(b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02ls\x85R.", id="stack-global"),
        pytest.param(b"\x80\x02cnumpy\nndarray\n)\x81.", id="newobj"),
    ],
)
def test_other_instructions_are_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(FormatError, match="must hold plain containers and arrays, got"):
        read_plain_pickle(written(tmp_path, data))


def test_a_known_function_is_no_value_to_call_methods_of(tmp_path: Path) -> None:
    data = b"\x80\x02cnumpy\nndarray\n)R."
    with pytest.raises(FormatError, match="something that is no function"):
        read_plain_pickle(written(tmp_path, data))


def test_arrays_of_objects_are_refused(tmp_path: Path) -> None:
    data = pickle.dumps(np.array([{}, []], object), 2)
    with pytest.raises(FormatError, match="arrays of numbers, got dtype 'O8'"):
        read_plain_pickle(written(tmp_path, data))


def test_deep_nesting_costs_its_bytes_only(tmp_path: Path) -> None:
    depth = 1_000_000
    found = read_plain_pickle(written(tmp_path, b"]" * depth + b"a" * (depth - 1) + b"."))
    assert (type(found), len(found)) == (list, 1)


def test_doubling_through_the_memo_costs_its_bytes_only(tmp_path: Path) -> None:
    doubled = b"".join(b"(h%ch%clq%c0" % (n, n, n + 1) for n in range(200))
    path = written(tmp_path, b"\x80\x02]q\x000" + doubled + b"h\xc8.")
    tracemalloc.start()
    found = read_plain_pickle(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found[0] is found[1]
    assert peak < MAX_BYTES + 1_000_000  # of which the first is the buffer that files are read into


def encode_again(text: bytes, times: int) -> bytes:
    """A pickle that remembers a text once and has it made into bytes many times."""
    start = b"\x80\x02]X" + struct.pack("<I", len(text)) + text + b"q\x000"
    once = b"c_codecs\nencode\nh\x00X\x06\0\0\0latin1\x86Ra"
    return start + once * times + b"."


def test_bytes_are_not_multiplied_through_the_memo(tmp_path: Path) -> None:
    path = written(tmp_path, encode_again(b"x" * 2_000_000, 10_000))
    tracemalloc.start()
    with pytest.raises(FormatError, match="more bytes than the file has"):
        read_plain_pickle(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30_000_000


def test_a_few_texts_are_made_into_bytes(tmp_path: Path) -> None:
    path = written(tmp_path, encode_again(b"xy", 3))
    assert read_plain_pickle(path) == [b"xy"] * 3


@pytest.mark.parametrize("shape", [(2**40,), (2**31, 2**31), (-1,), (3,), (2**70,), (1,) * 100])
def test_a_shape_that_the_bytes_do_not_fill_is_refused(tmp_path: Path, shape: Any) -> None:
    data = pickle.dumps(np.zeros(2), 2)
    place = data.index(b"K\x02\x85")  # the shape (2,)
    data = data[:place] + without_memo(pickle.dumps(shape, 2)[2:-1]) + data[place + 3 :]
    started = time.monotonic()
    with pytest.raises(FormatError, match="pickle must be intact"):
        read_plain_pickle(written(tmp_path, data))
    assert time.monotonic() - started < 1


def without_memo(data: bytes) -> bytes:
    """A pickled value without the instruction that remembers it."""
    return data.rpartition(b"q")[0]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x80\x04\x8d" + struct.pack("<Q", 2**60) + b"x.", id="text"),
        pytest.param(b"\x80\x05\x96" + struct.pack("<Q", 2**60) + b"x.", id="bytes"),
        pytest.param(b"\x80\x02\x8b" + struct.pack("<i", 2**30) + b"x.", id="number"),
        pytest.param(b"L" + b"9" * 1_000_000 + b"L\n.", id="digits"),
    ],
)
def test_promised_sizes_take_no_memory(tmp_path: Path, data: bytes) -> None:
    path = written(tmp_path, data)
    tracemalloc.start()
    with pytest.raises(FormatError, match="pickle must be intact"):
        read_plain_pickle(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12_000_000


def test_files_larger_than_any_ground_truth_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=f"at most {MAX_BYTES} bytes, got more in"):
        read_plain_pickle(written(tmp_path, bytes(MAX_BYTES + 1)))


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b".", b"N", b"NN.", b"(.", b"a.", b"]N", b"h\x05.", b"]K\x01e.", b"K\x01K\x02a."),
        *(b"(NNd.", b"(K\x01d.", b"}]Ns.", b"not a pickle", b"\x80\x02R.", b"\x80\x02Nb."),
        *(b"((l.", b"0.", b"(0.", b"\x80\x02cnumpy\ndtype\n(tR."),
    ],
)
def test_malformed_pickles_are_an_error_that_names_the_file(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(FormatError, match=r"^pickle must be intact, got .* in '.*gnd\.pkl'"):
        read_plain_pickle(written(tmp_path, data))


def test_damage_anywhere_is_an_error_or_harmless(tmp_path: Path) -> None:
    data = pickle.dumps({"a": [1, 2.5, "x"], "b": np.arange(3)}, 2)
    outcomes = []
    for place in range(len(data)):
        for value in (0, 0x28, 0x2E, 0x52, 0x62, 0x71, 0xFF):
            changed = data[:place] + bytes([value]) + data[place + 1 :]
            try:
                read_plain_pickle(written(tmp_path, changed))
                outcomes.append("read")
            except FormatError:
                outcomes.append("refused")
    assert set(outcomes) == {"read", "refused"}
