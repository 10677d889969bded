"""The few protocol-buffer messages of TensorFlow that its saved models are read with.

Only the fields that are read are declared; the parser skips all others.  The messages live in a
pool of their own, so that an installed TensorFlow, which declares the complete ones, is not
disturbed.  Field numbers: tensorflow/core/protobuf and tensorflow/core/framework.
"""

from typing import Any

from google.protobuf import (  # type: ignore[import-untyped]
    descriptor_pb2,
    descriptor_pool,
    message_factory,
)
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from opendelg.errors import WeightsError

_PACKAGE = "opendelg.tensorflow"
_SCALARS = {
    "bool": descriptor_pb2.FieldDescriptorProto.TYPE_BOOL,
    "bytes": descriptor_pb2.FieldDescriptorProto.TYPE_BYTES,
    "fixed32": descriptor_pb2.FieldDescriptorProto.TYPE_FIXED32,
    "float": descriptor_pb2.FieldDescriptorProto.TYPE_FLOAT,
    "double": descriptor_pb2.FieldDescriptorProto.TYPE_DOUBLE,
    "int32": descriptor_pb2.FieldDescriptorProto.TYPE_INT32,
    "int64": descriptor_pb2.FieldDescriptorProto.TYPE_INT64,
    "string": descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
}
# Message -> field -> (number, type); "repeated X" is a list, "map X" maps strings to X.
_MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "BundleHeader": {"num_shards": (1, "int32"), "endianness": (2, "int32")},
    "BundleEntry": {
        "dtype": (1, "int32"),
        "shape": (2, "Shape"),
        "shard_id": (3, "int32"),
        "offset": (4, "int64"),
        "size": (5, "int64"),
        "crc32c": (6, "fixed32"),
        "slices": (7, "repeated Slice"),
    },
    "Slice": {},
    "ObjectGraph": {"nodes": (1, "repeated Object")},
    "Object": {"children": (1, "repeated Child"), "attributes": (2, "repeated StoredAttribute")},
    "Child": {"node_id": (1, "int32"), "local_name": (2, "string")},
    "StoredAttribute": {"name": (1, "string"), "checkpoint_key": (3, "string")},
    "Shape": {"dim": (2, "repeated Dim"), "unknown_rank": (3, "bool")},
    "Dim": {"size": (1, "int64")},
    "SavedModel": {"meta_graphs": (2, "repeated MetaGraph")},
    "MetaGraph": {
        "info": (1, "MetaInfo"),
        "graph": (2, "Graph"),
        "signatures": (5, "map Signature"),
    },
    "MetaInfo": {"tags": (4, "repeated string"), "tensorflow_version": (5, "string")},
    "Signature": {"outputs": (2, "map TensorInfo")},
    "TensorInfo": {"name": (1, "string")},
    "Graph": {"node": (1, "repeated Node"), "library": (2, "Library")},
    "Library": {"function": (1, "repeated Function")},
    "Function": {
        "signature": (1, "FunctionSignature"),
        "node": (3, "repeated Node"),
        "ret": (4, "map string"),
    },
    "FunctionSignature": {
        "name": (1, "string"),
        "inputs": (2, "repeated Argument"),
        "outputs": (3, "repeated Argument"),
    },
    "Argument": {"name": (1, "string")},
    "Node": {
        "name": (1, "string"),
        "op": (2, "string"),
        "inputs": (3, "repeated string"),
        "attributes": (5, "map Attribute"),
    },
    "Attribute": {
        "list": (1, "AttributeList"),
        "s": (2, "bytes"),
        "i": (3, "int64"),
        "f": (4, "float"),
        "b": (5, "bool"),
        "tensor": (8, "Tensor"),
        "function": (10, "NamedFunction"),
    },
    "AttributeList": {"i": (3, "repeated int64")},
    "NamedFunction": {"name": (1, "string")},
    "Tensor": {
        "dtype": (1, "int32"),
        "shape": (2, "Shape"),
        "content": (4, "bytes"),
        "float_val": (5, "repeated float"),
        "double_val": (6, "repeated double"),
        "int_val": (7, "repeated int32"),
        "string_val": (8, "repeated bytes"),
        "int64_val": (10, "repeated int64"),
    },
}


def parse_message(kind: str, data: bytes, where: str) -> Any:
    """The message ``kind`` in ``data``.

    Raises:
        WeightsError: If the bytes are no such message, or one nested too deeply.
    """
    try:
        return message_class(kind).FromString(data)
    except (DecodeError, RecursionError) as error:
        raise WeightsError(f"{kind} must be a whole message, got other bytes in {where}") from error


def message_class(kind: str) -> Any:
    """The class of the message ``kind``."""
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{_PACKAGE}.{kind}"))


def _make_pool() -> Any:
    file = descriptor_pb2.FileDescriptorProto(
        name="opendelg/tensorflow.proto", package=_PACKAGE, syntax="proto3"
    )
    for kind, fields in _MESSAGES.items():
        message = file.message_type.add(name=kind)
        for name, (number, type_name) in fields.items():
            shape, _, element = type_name.rpartition(" ")
            if shape == "map":
                entry = name.title().replace("_", "") + "Entry"
                nested = message.nested_type.add(name=entry)
                nested.options.map_entry = True
                _add_field(nested, "key", 1, "string")
                _add_field(nested, "value", 2, element)
                shape, element = "repeated", f"{kind}.{entry}"
            _add_field(message, name, number, element, repeated=shape == "repeated")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return pool


def _add_field(
    message: Any, name: str, number: int, type_name: str, *, repeated: bool = False
) -> None:
    kind = descriptor_pb2.FieldDescriptorProto
    field = message.field.add(
        name=name,
        number=number,
        label=kind.LABEL_REPEATED if repeated else kind.LABEL_OPTIONAL,
        type=_SCALARS.get(type_name, kind.TYPE_MESSAGE),
    )
    if type_name not in _SCALARS:
        field.type_name = f".{_PACKAGE}.{type_name}"


_POOL = _make_pool()
