"""Protobuf's wire format by hand, independent of the library: for the tests of feature files."""

import struct


def varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    data = bytearray()
    while number >= 0x80:
        data.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(data) + bytes([number])


def nested(number: int, payload: bytes) -> bytes:
    """A field of wire type 2: a message, text or packed numbers."""
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def fixed32(number: int, value: float) -> bytes:
    """A float field, wire type 5."""
    return varint(number << 3 | 5) + struct.pack("<f", value)


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def datum(shape: list[int], *values: float) -> bytes:
    """A DatumProto with a float list, packed."""
    packed = nested(1, floats(*values)) if values else b""
    return nested(1, nested(1, b"".join(map(varint, shape)))) + nested(2, packed)


def feature(
    descriptor: bytes, x: float, y: float, scale: float, orientation: float, strength: float
) -> bytes:
    """A DelfFeature as a field of DelfFeatures."""
    numbers = [x, y, scale, orientation, strength]
    fields = [fixed32(number, value) for number, value in enumerate(numbers, start=2)]
    return nested(1, nested(1, descriptor) + b"".join(fields))
