"""TensorFlow's variables bundle, read without TensorFlow.

A bundle is a table file, ``variables.index``, and shards ``variables.data-00000-of-00001``.  The
table maps the name of each tensor to its type, shape, place in a shard and checksum; the name ""
holds the number of shards.  Tables have LevelDB's format: sorted names in blocks, each name
without the start it shares with the one before it, a masked crc32c behind every block, and a footer
that points to the block of blocks.

Everything is checked before memory is taken: a damaged or hostile bundle ends as one
``WeightsError``.  Sources: LevelDB, doc/table_format.md; TensorFlow,
core/protobuf/tensor_bundle.proto and core/lib/io/format.cc.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import google_crc32c
import ml_dtypes
import numpy as np

from opendelg.errors import WeightsError
from opendelg.weights.tensorflow_messages import parse_message

_MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
_FOOTER_BYTES = 48
_TRAILER_BYTES = 5  # behind each block: compression, checksum
_HANDLE_BYTES = 20  # two varints of at most 10 bytes
_MAX_INDEX_BYTES = 64 * 2**20  # 50,000 tensors take about 5 MiB
_MAX_TENSORS = 100_000
_MAX_NAME_BYTES = 4096
_MAX_NAMES_BYTES = 64 * 2**20  # all names together: shared starts make them longer than the file
_MAX_RANK = 8
_MAX_SHARDS = 10_000
_MAX_TEXT_BYTES = 32 * 2**20  # the objects of a ResNet-50 take 0.1 MiB
_TEXT = np.dtype("O")
# DataType of tensorflow/core/framework/types.proto.
_DTYPES = {
    1: np.dtype("<f4"),
    2: np.dtype("<f8"),
    3: np.dtype("<i4"),
    4: np.dtype("u1"),
    5: np.dtype("<i2"),
    6: np.dtype("i1"),
    7: _TEXT,
    9: np.dtype("<i8"),
    10: np.dtype("?"),
    14: np.dtype(ml_dtypes.bfloat16),
    17: np.dtype("<u2"),
    19: np.dtype("<f2"),
    22: np.dtype("<u4"),
    23: np.dtype("<u8"),
}


@dataclass(frozen=True)
class BundleTensor:
    """Where one tensor lies."""

    shape: tuple[int, ...]
    dtype: np.dtype
    shard: int
    offset: int  # bytes
    size: int  # bytes
    checksum: int  # masked crc32c of the bytes


@dataclass(frozen=True)
class Bundle:
    """The numeric tensors of a bundle by name, and the names of the others."""

    prefix: Path  # of the index and the shards
    num_shards: int
    tensors: dict[str, BundleTensor]
    texts: dict[str, BundleTensor]  # notes of the program that saved; sizes in bytes

    def read(self, name: str) -> np.ndarray:
        """One tensor, its checksum verified.

        Raises:
            WeightsError: If the shard cannot be read or the checksum differs.
        """
        tensor = self.tensors[name]
        data = self._bytes(tensor)
        if _masked_checksum(data) != tensor.checksum:
            raise WeightsError(
                f"tensor must have the checksum of the index, got other bytes for {name!r} in "
                f"{str(self.prefix)!r}; copy or download the model again"
            )
        return np.frombuffer(data, tensor.dtype).reshape(tensor.shape)

    def read_text(self, name: str) -> bytes:
        """One text: its length, a checksum of that, its bytes.

        Raises:
            WeightsError: If it cannot be read, is a list, or is longer than 32 MiB.
        """
        text = self.texts[name]
        where = repr(str(self.prefix))
        if text.shape != () or text.size > _MAX_TEXT_BYTES:
            raise WeightsError(
                f"{name!r} must be one text, got {text.shape}, {text.size} in {where}"
            )
        data = self._bytes(text)
        length, position = _read_varint(data, 0, where)
        if length != len(data) - position - 4:
            raise WeightsError(f"{name!r} must be as long as it says, got {length} in {where}")
        return data[position + 4 :]

    def _bytes(self, tensor: BundleTensor) -> bytes:
        path = _shard_path(self.prefix, tensor.shard, self.num_shards)
        try:
            with open(path, "rb") as file:
                file.seek(tensor.offset)
                data = file.read(tensor.size)
        except OSError as error:
            raise WeightsError(f"shard must be readable, got {str(path)!r} ({error})") from error
        if len(data) != tensor.size:
            raise WeightsError(f"shard must be whole, got {len(data)} bytes in {str(path)!r}")
        return data


def open_bundle(prefix: Path) -> Bundle:
    """Read and check the index of a bundle.

    Args:
        prefix: Path of the bundle without ``.index``, as ``model/variables/variables``.

    Raises:
        WeightsError: If the index or a shard is absent, damaged or of a kind that is not read.
    """
    path = prefix.with_name(prefix.name + ".index")
    data = _read_index(path)
    where = repr(str(path))
    tensors: dict[str, BundleTensor] = {}
    texts: dict[str, BundleTensor] = {}
    names = _table_entries(data, where)
    first, value = next(names, (None, b""))
    if first != b"":
        raise WeightsError(f"index must begin with the bundle's header, got {first!r} in {where}")
    header = parse_message("BundleHeader", value, where)
    if header.endianness != 0:
        raise WeightsError(f"bundle must be little-endian, got a big-endian one in {where}")
    if not 0 < header.num_shards <= _MAX_SHARDS:
        raise WeightsError(f"shards must be 1 to {_MAX_SHARDS}, got {header.num_shards} in {where}")
    for key, value in names:
        name = key.decode("utf-8", "backslashreplace")
        entry = _parse_entry(name, value, header.num_shards, where)
        (texts if entry.dtype == _TEXT else tensors)[name] = entry
    bundle = Bundle(prefix, header.num_shards, tensors, texts)
    _check_places(bundle)
    return bundle


def _read_index(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if not path.is_file() or size > _MAX_INDEX_BYTES:
            raise WeightsError(
                f"index must be a file of at most {_MAX_INDEX_BYTES} bytes, got {size} in "
                f"{str(path)!r}"
            )
        return path.read_bytes()
    except OSError as error:
        raise WeightsError(f"index must be readable, got {str(path)!r} ({error})") from error


def _parse_entry(name: str, value: bytes, num_shards: int, where: str) -> BundleTensor:
    """Where a tensor lies."""
    entry = parse_message("BundleEntry", value, where)
    if entry.slices:
        raise WeightsError(f"tensors must be whole, got slices of {name!r} in {where}")
    if entry.dtype not in _DTYPES:
        raise WeightsError(f"type of {name!r} must be known, got {entry.dtype} in {where}")
    dtype = _DTYPES[entry.dtype]
    shape = tuple(dim.size for dim in entry.shape.dim[: _MAX_RANK + 1])
    if entry.shape.unknown_rank or len(shape) > _MAX_RANK or min(shape, default=0) < 0:
        raise WeightsError(f"shape of {name!r} must be known, got {shape} in {where}")
    size = max(0, entry.size) if dtype == _TEXT else math.prod(shape) * dtype.itemsize
    if entry.size != size:
        raise WeightsError(
            f"size of {name!r} must be that of {shape} {dtype}, got {entry.size} bytes in {where}"
        )
    if not 0 <= entry.shard_id < num_shards or entry.offset < 0:
        raise WeightsError(
            f"place of {name!r} must be in a shard, got shard {entry.shard_id} of {num_shards}, "
            f"offset {entry.offset} in {where}"
        )
    return BundleTensor(shape, dtype, entry.shard_id, entry.offset, entry.size, entry.crc32c)


def _check_places(bundle: Bundle) -> None:
    """Refuse tensors that lie outside of their shards or over each other."""
    everything = bundle.tensors | bundle.texts
    shards = {tensor.shard for tensor in everything.values()}
    lengths = {}
    for shard in sorted(shards):
        path = _shard_path(bundle.prefix, shard, bundle.num_shards)
        if not path.is_file():
            raise WeightsError(f"shard must be a file, got none at {str(path)!r}")
        lengths[shard] = path.stat().st_size
    ends = dict.fromkeys(shards, 0)
    places = sorted(everything.items(), key=lambda item: (item[1].shard, item[1].offset))
    for name, tensor in places:
        end = tensor.offset + tensor.size
        if end > lengths[tensor.shard] or (tensor.size and tensor.offset < ends[tensor.shard]):
            raise WeightsError(
                f"tensors must lie one behind the other in their shard, got {name!r} at bytes "
                f"{tensor.offset} to {end} of {lengths[tensor.shard]} in {str(bundle.prefix)!r}; "
                "if the file was cut off, copy or download the model again"
            )
        ends[tensor.shard] = max(ends[tensor.shard], end)


def _shard_path(prefix: Path, shard: int, num_shards: int) -> Path:
    return prefix.with_name(f"{prefix.name}.data-{shard:05d}-of-{num_shards:05d}")


def _table_entries(data: bytes, where: str) -> Iterator[tuple[bytes, bytes]]:
    """Names and values of a table, in the order of the names."""
    if len(data) < _FOOTER_BYTES or data[-8:] != _MAGIC:
        raise WeightsError(f"index must be a whole table file, got another kind in {where}")
    footer = data[-_FOOTER_BYTES:-8]
    _, _, position = _read_handle(footer, 0, where)  # the block of statistics, unused
    offset, size, _ = _read_handle(footer, position, where)
    last, num_entries, num_bytes = None, 0, 0
    for _, handle in _block_entries(_read_block(data, offset, size, where), where):
        offset, size, _ = _read_handle(handle, 0, where)
        for key, value in _block_entries(_read_block(data, offset, size, where), where):
            if last is not None and key <= last:
                raise WeightsError(f"names must ascend, got {key!r} after {last!r} in {where}")
            num_entries, num_bytes, last = num_entries + 1, num_bytes + len(key), key
            if num_entries > _MAX_TENSORS or num_bytes > _MAX_NAMES_BYTES:
                raise WeightsError(f"index must have at most {_MAX_TENSORS} tensors, in {where}")
            yield key, value


def _read_block(data: bytes, offset: int, size: int, where: str) -> bytes:
    """The contents of a block, its checksum verified."""
    end = offset + size
    if end + _TRAILER_BYTES > len(data) - _FOOTER_BYTES:
        raise WeightsError(f"blocks must lie in the file, got bytes {offset} to {end} in {where}")
    block, checksum = data[offset : end + 1], data[end + 1 : end + _TRAILER_BYTES]
    if _masked_checksum(block) != int.from_bytes(checksum, "little"):
        raise WeightsError(
            f"blocks must have their checksum, got other bytes from {offset} to {end} in {where}; "
            "copy or download the model again"
        )
    if block[-1] != 0:
        raise WeightsError(f"blocks must not be compressed, got kind {block[-1]} in {where}")
    return block[:-1]


def _block_entries(block: bytes, where: str) -> Iterator[tuple[bytes, bytes]]:
    """Names and values of one block."""
    num_restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 - 4 * num_restarts
    if len(block) < 4 or end < 0:
        raise WeightsError(f"blocks must hold their restart points, got {num_restarts} in {where}")
    position, key = 0, b""
    while position < end:
        shared, position = _read_varint(block, position, where)
        fresh, position = _read_varint(block, position, where)
        length, position = _read_varint(block, position, where)
        name_end, value_end = position + fresh, position + fresh + length
        if shared > len(key) or value_end > end or shared + fresh > _MAX_NAME_BYTES:
            raise WeightsError(f"entries must lie in their block, got {shared, fresh} in {where}")
        key = key[:shared] + block[position:name_end]
        yield key, block[name_end:value_end]
        position = value_end


def _read_handle(data: bytes, position: int, where: str) -> tuple[int, int, int]:
    """Offset and size of a block, and the position behind them."""
    offset, position = _read_varint(data, position, where)
    size, position = _read_varint(data, position, where)
    return offset, size, position


def _read_varint(data: bytes, position: int, where: str) -> tuple[int, int]:
    """A number of 7 bits per byte, lowest first, and the position behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            break
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise WeightsError(f"numbers must end, got a cut-off one in {where}")


def _masked_checksum(data: bytes) -> int:
    """Crc32c, turned and shifted as LevelDB does lest it be taken over stored checksums."""
    crc = int(google_crc32c.value(data))
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
