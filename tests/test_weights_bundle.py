"""The reader of variables bundles: whole ones are read, damaged and hostile ones refused."""

import numpy as np
import pytest

from opendelg.errors import WeightsError
from opendelg.weights.bundle import open_bundle
from opendelg.weights.tensorflow_messages import message_class
from tests.official_samples import (
    append_block,
    masked_checksum,
    shard_path,
    table_block,
    table_file,
    varint,
    write_bundle,
)

TENSORS = {
    "a/weights": np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4),
    "a/weights_half": np.array([1.5, -2], np.float16),
    "b/scalar": np.array(45.25, np.float32),
    "b/step": np.array(2**40),
    "c/empty": np.zeros((0, 3), np.float32),
    "c/int": np.array([1, -2], np.int32),
    "d": np.array([1e300]),
}


@pytest.fixture
def prefix(tmp_path):
    return tmp_path / "variables"


@pytest.mark.parametrize("num_shards", [1, 3])
@pytest.mark.parametrize("block_entries", [1, 3, 100])
def test_what_was_written_is_read(prefix, num_shards, block_entries):
    write_bundle(
        prefix,
        TENSORS,
        num_shards=num_shards,
        block_entries=block_entries,
        texts={"b/text": b"some text"},
    )
    bundle = open_bundle(prefix)
    assert bundle.read_text("b/text") == b"some text"
    assert list(bundle.tensors) == sorted(TENSORS)
    for name, array in TENSORS.items():
        read = bundle.read(name)
        assert (read.dtype, read.shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(read, array)


def test_bfloat16_is_read(prefix):
    def as_bfloat16(name, entry):
        entry.dtype = 14

    raw = np.array([0x3F80, 0xC000], np.uint16).view(np.float16)
    write_bundle(prefix, {"x": raw}, change=as_bfloat16)
    assert open_bundle(prefix).read("x").astype(np.float32).tolist() == [1.0, -2.0]


def test_a_changed_tensor_is_refused(prefix):
    write_bundle(prefix, TENSORS)
    shard = shard_path(prefix)
    data = bytearray(shard.read_bytes())
    data[5] ^= 4
    shard.write_bytes(data)
    bundle = open_bundle(prefix)
    with pytest.raises(WeightsError, match=r"checksum of the index, got other bytes for 'a/weig"):
        bundle.read("a/weights")


def test_every_changed_byte_of_the_index_is_told(prefix):
    write_bundle(prefix, {"x": np.ones(2, np.float32), "xy": np.ones(3, np.float32)})
    index = prefix.with_name("variables.index")
    data = index.read_bytes()
    # The footer's handle of the unused block of statistics and its padding carry no checksum.
    used = [*range(len(data) - 48), *range(len(data) - 8, len(data))]
    for place in used:
        changed = bytearray(data)
        changed[place] ^= 0x10
        index.write_bytes(changed)
        try:
            names = list(open_bundle(prefix).tensors)
        except WeightsError:
            continue
        assert names == ["x", "xy"], place  # the statistics block is not read


@pytest.mark.parametrize(
    ("values", "message"),
    [({"size": 0}, "cut-off"), ({"size": 5}, "as long as"), ({"rank": 1}, "must be one text")],
)
def test_a_text_that_does_not_fit_is_refused(prefix, values, message):
    def damage(name, entry):
        entry.size = values.get("size", entry.size)
        for _ in range(values.get("rank", 0)):
            entry.shape.dim.add(size=1)

    write_bundle(prefix, {}, texts={"t": b"some text"}, change=damage)
    with pytest.raises(WeightsError, match=message):
        open_bundle(prefix).read_text("t")


@pytest.mark.parametrize("kept", [0, 7, 47, 60, -1])
def test_a_cut_off_index_is_refused(prefix, kept):
    write_bundle(prefix, TENSORS)
    index = prefix.with_name("variables.index")
    index.write_bytes(index.read_bytes()[:kept])
    with pytest.raises(WeightsError, match="index must be a whole table file"):
        open_bundle(prefix)


def test_a_cut_off_shard_is_refused(prefix):
    write_bundle(prefix, TENSORS)
    shard = shard_path(prefix)
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(WeightsError, match="if the file was cut off, copy or download"):
        open_bundle(prefix)


def test_absent_files_are_told(prefix):
    with pytest.raises(WeightsError, match="index must be readable"):
        open_bundle(prefix)
    write_bundle(prefix, TENSORS)
    shard_path(prefix).unlink()
    with pytest.raises(WeightsError, match="shard must be a file, got none"):
        open_bundle(prefix)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param({"offset": -1}, "place of 'x' must be in a shard", id="negative-offset"),
        pytest.param({"offset": 2**62}, "tensors must lie one behind the other", id="far"),
        pytest.param({"offset": 0}, "tensors must lie one behind the other", id="overlap"),
        pytest.param({"size": -8}, "size of 'x' must be", id="negative-size"),
        pytest.param({"size": 2**62}, "size of 'x' must be", id="huge-size"),
        pytest.param({"shard_id": 1}, "place of 'x' must be in a shard", id="shard"),
        pytest.param({"shard_id": -1}, "place of 'x' must be in a shard", id="negative-shard"),
        pytest.param({"dtype": 8}, "type of 'x' must be known", id="complex"),
        pytest.param({"dtype": 0}, "type of 'x' must be known", id="no-type"),
        pytest.param({"dims": [2**40, 2**40]}, "size of 'x' must be", id="huge-shape"),
        pytest.param({"dims": [-1]}, "shape of 'x' must be known", id="negative-shape"),
        pytest.param({"dims": [1] * 1000}, "shape of 'x' must be known", id="rank"),
        pytest.param({"slices": 1}, "tensors must be whole, got slices of 'x'", id="slices"),
        pytest.param({"crc32c": 1}, None, id="checksum"),
    ],
)
def test_hostile_entries_are_refused(prefix, values, message):
    def damage(name, entry):
        for key, value in values.items() if name == "x" else ():
            if key == "dims":
                del entry.shape.dim[:]
                for size in value:
                    entry.shape.dim.add(size=size)
            elif key == "slices":
                entry.slices.add()
            else:
                setattr(entry, key, value)

    write_bundle(prefix, {"w": np.ones(4, np.float32), "x": np.ones(2, np.float32)}, change=damage)
    with pytest.raises(WeightsError, match=message):
        open_bundle(prefix).read("x")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        pytest.param([], "index must begin with the bundle's header", id="empty"),
        pytest.param([(b"x", b"")], "index must begin with the bundle's header", id="no-header"),
        pytest.param([(b"", b"\x08\x00")], "shards must be 1 to", id="no-shards"),
        pytest.param([(b"", b"\x08\xff\xff\xff\xff\x07")], "shards must be 1 to", id="many"),
        pytest.param([(b"", b"\x08\x01\x10\x01")], "bundle must be little-endian", id="endian"),
        pytest.param([(b"", b"\xff")], "BundleHeader must be a whole message", id="message"),
        pytest.param([(b"", b"\x08\x01")] * 2, "names must ascend", id="twice"),
        pytest.param(
            [(b"", b"\x08\x01"), (b"y", b""), (b"x", b"")], "type of 'y'|ascend", id="order"
        ),
        pytest.param([(b"", b"\x08\x01"), (b"x" * 5000, b"")], "lie in their block", id="name"),
    ],
)
def test_hostile_tables_are_refused(prefix, entries, message):
    prefix.with_name("variables.index").write_bytes(table_file(entries))
    with pytest.raises(WeightsError, match=message):
        open_bundle(prefix)


def test_a_compressed_block_is_refused(prefix, monkeypatch):
    write_bundle(prefix, {"x": np.ones(1, np.float32)})
    index = prefix.with_name("variables.index")
    block = table_block([(b"", b"\x08\x01")])
    data = index.read_bytes()
    stored = block + b"\1"
    blob = stored + masked_checksum(stored).to_bytes(4, "little")
    handle = varint(0) + varint(len(block))
    footer = (handle + handle).ljust(40, b"\0") + data[-8:]
    index.write_bytes(blob + footer)
    with pytest.raises(WeightsError, match="blocks must not be compressed, got kind 1"):
        open_bundle(prefix)


def test_many_long_names_do_not_fill_the_memory(prefix):
    """A few bytes per entry, each name 4,000 bytes long by what it shares with the last."""
    header = varint(0) + varint(0) + varint(2) + b"\x08\x01"
    first = varint(0) + varint(4000) + varint(0) + b"a" * 4000
    entries = [
        varint(3990 - 1) + varint(3) + varint(2) + number.to_bytes(3, "big") + b"\x08\x07"
        for number in range(0x626262, 0x626262 + 90_000)
    ]
    block = header + first + b"".join(entries) + bytes(4) + (1).to_bytes(4, "little")
    data = bytearray()
    handle = append_block(data, block)
    index_handle = append_block(data, table_block([(b"z", handle)]))
    footer = (index_handle * 2).ljust(40, b"\0") + (0xDB4775248B80FB57).to_bytes(8, "little")
    prefix.with_name("variables.index").write_bytes(bytes(data) + footer)
    with pytest.raises(WeightsError, match=r"type of|at most 100000 tensors"):
        open_bundle(prefix)


def test_messages_do_not_nest_without_end():
    deep = b""
    for _ in range(200):
        deep = b"\x42" + varint(len(deep)) + deep  # not a field of an entry: skipped
    assert message_class("BundleEntry").FromString(deep) is not None
