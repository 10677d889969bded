"""The protobuf messages of DELF and DELG, declared here instead of compiled from .proto files.

Names, numbers, packing and defaults are those of the official code (SPEC 3.5 and 6.1), so what
is serialised has the same bytes.  The messages live in a pool of their own: a process may also
load the official ones.

Source: tensorflow/models, research/delf/delf/protos: datum, feature and delf_config.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # type: ignore[import-untyped]

_PACKAGE = "delf.protos"
_KIND_ONEOF = "kind_oneof"  # DatumProto holds one of its two lists

# (name, number, type, then what is special: "repeated", "packed", "oneof" or default=...)
_MESSAGES: dict[str, list[tuple[Any, ...]]] = {
    "DatumShape": [("dim", 1, "int64", "packed")],
    "FloatList": [("value", 1, "float", "packed")],
    "Uint32List": [("value", 1, "uint32", "packed")],
    "DatumProto": [
        ("shape", 1, "DatumShape"),
        ("float_list", 2, "FloatList", "oneof"),
        ("uint32_list", 3, "Uint32List", "oneof"),
    ],
    "DatumPairProto": [("first", 1, "DatumProto"), ("second", 2, "DatumProto")],
    "DelfFeature": [
        ("descriptor", 1, "DatumProto"),
        ("x", 2, "float"),
        ("y", 3, "float"),
        ("scale", 4, "float"),
        ("orientation", 5, "float"),
        ("strength", 6, "float"),
    ],
    "DelfFeatures": [("feature", 1, "DelfFeature", "repeated")],
    "DelfPcaParameters": [
        ("mean_path", 1, "string"),
        ("projection_matrix_path", 2, "string"),
        ("pca_dim", 3, "int32"),
        ("use_whitening", 4, "bool", "default=false"),
        ("pca_variances_path", 5, "string"),
    ],
    "DelfLocalFeatureConfig": [
        ("use_pca", 1, "bool", "default=true"),
        ("layer_name", 2, "string"),
        ("iou_threshold", 3, "float", "default=1"),
        ("max_feature_num", 4, "int32", "default=1000"),
        ("score_threshold", 5, "float", "default=100"),
        ("pca_parameters", 6, "DelfPcaParameters"),
        ("use_resized_coordinates", 7, "bool", "default=false"),
    ],
    "DelfGlobalFeatureConfig": [
        ("use_pca", 1, "bool", "default=true"),
        ("pca_parameters", 2, "DelfPcaParameters"),
        ("image_scales_ind", 3, "int32", "repeated"),
    ],
    "DelfConfig": [
        ("model_path", 1, "string"),
        ("image_scales", 2, "float", "repeated"),
        ("delf_local_config", 3, "DelfLocalFeatureConfig"),
        ("max_image_size", 4, "int32", "default=-1"),
        ("min_image_size", 5, "int32", "default=-1"),
        ("use_square_images", 6, "bool", "default=false"),
        ("use_local_features", 7, "bool", "default=true"),
        ("use_global_features", 8, "bool", "default=false"),
        ("delf_global_config", 9, "DelfGlobalFeatureConfig"),
        ("is_tf2_exported", 10, "bool", "default=false"),
    ],
}


def new_message(name: str) -> Any:
    """An empty message by its official name, such as ``DelfFeatures``."""
    return _CLASSES[name]()


def field_names() -> set[str]:
    """The names of all fields of all messages."""
    return {field[0] for fields in _MESSAGES.values() for field in fields}


def _declare() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="opendelg/delf_messages.proto", package=_PACKAGE, syntax="proto2"
    )
    for message_name, fields in _MESSAGES.items():
        message = file.message_type.add(name=message_name)
        for name, number, kind, *special in fields:
            field = message.field.add(name=name, number=number)
            is_repeated = bool({"repeated", "packed"} & set(special))
            field.label = field.LABEL_REPEATED if is_repeated else field.LABEL_OPTIONAL
            if kind in _MESSAGES:
                field.type, field.type_name = field.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
            else:
                field.type = getattr(field, f"TYPE_{kind.upper()}")
            if "packed" in special:
                field.options.packed = True
            if "oneof" in special:
                if not message.oneof_decl:
                    message.oneof_decl.add(name=_KIND_ONEOF)
                field.oneof_index = 0
            for word in special:
                if word.startswith("default="):
                    field.default_value = word.removeprefix("default=")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in _MESSAGES
    }


_CLASSES = _declare()
