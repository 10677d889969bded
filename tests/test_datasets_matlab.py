import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

from opendelg.datasets.matlab import read_matlab
from opendelg.errors import FormatError


def written(folder: Path, values: dict[str, Any], compress: bool = True) -> Path:
    scipy.io.savemat(folder / "file.mat", values, do_compression=compress)
    return folder / "file.mat"


def header(order: bytes = b"IM") -> bytes:
    return b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01" + order


def element(kind: int, content: bytes, order: str = "<") -> bytes:
    return struct.pack(f"{order}II", kind, len(content)) + content.ljust(
        -(-len(content) // 8) * 8, b"\0"
    )


def number_matrix(order: str = "<", flags: int = 6) -> bytes:
    """The variable x = [1 2] in the bytes of the format."""
    return element(
        14,
        element(6, struct.pack(f"{order}II", flags, 0), order)
        + element(5, struct.pack(f"{order}ii", 1, 2), order)
        + element(1, b"x", order)
        + element(9, struct.pack(f"{order}dd", 1.0, 2.0), order),
        order,
    )


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("kind", ["f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"])
def test_numbers_are_read_as_scipy_wrote_them(tmp_path: Path, kind: str, compress: bool) -> None:
    array = np.arange(24).reshape(2, 3, 4).astype(kind)
    found = read_matlab(written(tmp_path, {"x": array}, compress))["x"]
    np.testing.assert_array_equal(np.asarray(found), array, strict=True)


def test_numbers_that_are_stored_narrower_than_their_class_are_widened(tmp_path: Path) -> None:
    content = (
        element(6, struct.pack("<II", 6, 0))
        + element(5, struct.pack("<ii", 1, 3))
        + element(1, b"x")
        + element(2, bytes([7, 8, 255]))
    )
    (tmp_path / "file.mat").write_bytes(header() + element(14, content))
    found = read_matlab(tmp_path / "file.mat")["x"]
    np.testing.assert_array_equal(np.asarray(found), [[7.0, 8.0, 255.0]])


@pytest.mark.parametrize("compress", [True, False])
def test_structs_cells_and_texts_become_plain_values(tmp_path: Path, compress: bool) -> None:
    cell = np.empty((1, 3), object)
    cell[0] = ["000/a_pitch1.jpg", "日本é.png", ""]
    values = {"names": cell, "set": "test", "inner": {"t": 25.0}}
    found = read_matlab(written(tmp_path, {"dbStruct": values}, compress))["dbStruct"]
    assert isinstance(found, dict)
    assert found["names"] == ["000/a_pitch1.jpg", "日本é.png", ""]
    assert found["set"] == "test"
    assert isinstance(found["inner"], dict)
    assert np.asarray(found["inner"]["t"]).tolist() == [[25.0]]


def test_texts_of_several_rows_are_lists(tmp_path: Path) -> None:
    path = written(tmp_path, {"x": np.array(["abc", "de "])})
    assert read_matlab(path)["x"] == ["abc", "de "]


@pytest.mark.parametrize(("mark", "order"), [(b"IM", "<"), (b"MI", ">")])
def test_both_byte_orders_are_read(tmp_path: Path, mark: bytes, order: str) -> None:
    (tmp_path / "file.mat").write_bytes(header(mark) + number_matrix(order))
    assert np.asarray(read_matlab(tmp_path / "file.mat")["x"]).tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "must be a MATLAB file of version 5 to 7", id="empty"),
        pytest.param(b"no matlab" * 40, "must be a MATLAB file of version 5", id="other"),
        pytest.param(b"MATLAB 7.3 MAT-file".ljust(200), "got 7.3; write it with", id="hdf5"),
        pytest.param(header() + b"\x0e\0\0\0\xff\0\0\0", "255 bytes with 0 left", id="cut"),
        pytest.param(header() + b"\x0e\0\0", "must be undamaged", id="tag"),
        pytest.param(header() + element(9, b"12345678"), "of type 9", id="not-a-matrix"),
        pytest.param(header() + number_matrix(flags=5), "got class 5", id="sparse"),
        pytest.param(header() + number_matrix(flags=0x806), "got class 6", id="complex"),
        pytest.param(header() + element(15, b"nozlib"), "must be undamaged", id="zlib"),
        pytest.param(
            header() + struct.pack("<II", 15, 6) + zlib.compress(b"")[:6], "an end", id="cut-zlib"
        ),
    ],
)
def test_other_files_are_an_error_that_names_them(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "file.mat").write_bytes(content)
    with pytest.raises(FormatError, match=rf"{message}.*file\.mat"):
        read_matlab(tmp_path / "file.mat")


@pytest.mark.parametrize("shape", [(1, 2), (2, 1)])
def test_arrays_of_structs_are_lists_of_dicts(tmp_path: Path, shape: tuple[int, int]) -> None:
    array = np.zeros(shape, dtype=[("name", object), ("hard", object)])
    array.ravel()[0] = ("a", np.array([1, 2]))
    array.ravel()[1] = ("b", np.array([3]))
    found: Any = read_matlab(written(tmp_path, {"x": array}))["x"]
    assert [row["name"] for row in found] == ["a", "b"]
    assert [row["hard"].tolist() for row in found] == [[[1, 2]], [[3]]]


def test_more_structs_than_the_file_has_values_for_are_damage(tmp_path: Path) -> None:
    array = np.zeros((1, 2), dtype=[("a", object)])
    path = written(tmp_path, {"x": array}, compress=False)
    data = path.read_bytes()
    shape = struct.pack("<ii", 1, 2)
    assert data.count(shape) == 1
    path.write_bytes(data.replace(shape, struct.pack("<ii", 1, 2**30)))
    with pytest.raises(FormatError, match="must be undamaged, got '2 values for 1073741824"):
        read_matlab(path)


@pytest.mark.parametrize("rows", [3, 2**20])
def test_more_rows_of_text_than_the_file_has_are_damage(tmp_path: Path, rows: int) -> None:
    path = written(tmp_path, {"x": np.array(["a", "b"])}, compress=False)
    data, shape = path.read_bytes(), struct.pack("<ii", 2, 1)
    assert data.count(shape) == 1
    path.write_bytes(data.replace(shape, struct.pack("<ii", rows, 1)))
    with pytest.raises(FormatError, match=f"must be undamaged, got '2 characters in {rows} rows"):
        read_matlab(path)


def test_endless_nesting_is_refused(tmp_path: Path) -> None:
    value: Any = {"a": 1.0}
    for _ in range(40):
        value = {"a": value}
    scipy.io.savemat(tmp_path / "file.mat", {"x": value}, do_compression=False)
    with pytest.raises(FormatError, match="nested at most"):
        read_matlab(tmp_path / "file.mat")


def test_damage_anywhere_is_an_error_or_harmless(tmp_path: Path) -> None:
    cell = np.empty((1, 2), object)
    cell[0] = ["a.jpg", "b.jpg"]
    path = written(tmp_path, {"s": {"n": cell, "u": np.eye(2)}}, compress=False)
    content = path.read_bytes()
    for start in range(len(content)):
        for value in (0x00, 0xFF):
            path.write_bytes(content[:start] + bytes([value]) + content[start + 1 :])
            try:
                read_matlab(path)
            except FormatError:
                continue
