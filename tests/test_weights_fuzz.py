"""Any bytes end as a model or as a WeightsError, soon and in bounded memory.

OPENDELG_FUZZ_EXAMPLES=100000 pytest tests/test_weights_fuzz.py
"""

import gzip
import io
import os
import tarfile
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opendelg.errors import WeightsError
from opendelg.weights.archive import unpack_model
from opendelg.weights.bundle import open_bundle
from opendelg.weights.network_graph import read_network_graph
from opendelg.weights.object_names import attribute_names
from opendelg.weights.saved_model import read_saved_model
from opendelg.weights.tensorflow import import_weights
from opendelg.weights.tensorflow_messages import message_class
from tests.official_samples import (
    SLIM,
    append_block,
    object_graph,
    shard_path,
    slim_graph,
    table_block,
    table_file,
    write_bundle,
    write_slim_model,
)

fuzzed = settings(
    max_examples=int(os.environ.get("OPENDELG_FUZZ_EXAMPLES", "40")),
    deadline=10_000,  # ms: a hang is a failure
    suppress_health_check=list(HealthCheck),
    database=None,
    derandomize="OPENDELG_FUZZ_EXAMPLES" not in os.environ,
)


def whole_bundle() -> tuple[bytes, bytes]:
    """Index and shard of a small bundle."""
    with TemporaryDirectory() as folder:
        prefix = Path(folder) / "v"
        tensors = {"a/b": np.ones((2, 3), np.float32), "a/c": np.array(3), "d": np.ones(4)}
        write_bundle(prefix, tensors, texts={"t": b"text"})
        return (Path(folder) / "v.index").read_bytes(), shard_path(prefix).read_bytes()


INDEX, SHARD = whole_bundle()
GRAPH = slim_graph(SLIM).message()
edits = st.lists(
    st.tuples(
        st.sampled_from(["change", "insert", "remove", "repeat", "cut"]),
        st.floats(0, 1, exclude_max=True),
        st.binary(min_size=1, max_size=12),
    ),
    min_size=1,
    max_size=6,
)


def edited(data: bytes, changes: list[tuple[str, float, bytes]]) -> bytes:
    for kind, share, text in changes:
        place = int(share * len(data))
        match kind:
            case "change":
                data = data[:place] + text + data[place + len(text) :]
            case "insert":
                data = data[:place] + text + data[place:]
            case "remove":
                data = data[:place] + data[place + len(text) :]
            case "repeat":
                data = data[:place] + data[place : place + 50] * len(text) + data[place:]
            case "cut":
                data = data[: max(place, 1)]
    return data


def read_all(index: bytes) -> None:
    with TemporaryDirectory() as folder:
        prefix = Path(folder) / "v"
        prefix.with_name("v.index").write_bytes(index)
        shard_path(prefix).write_bytes(SHARD)
        try:
            bundle = open_bundle(prefix)
            arrays = [bundle.read(name) for name in bundle.tensors]
            for name in bundle.texts:
                bundle.read_text(name)
        except WeightsError:
            return
        assert sum(array.nbytes for array in arrays) <= len(SHARD)


@fuzzed
@given(edits)
def test_edited_indexes(changes):
    read_all(edited(INDEX, changes))


@fuzzed
@given(st.binary(max_size=400))
def test_blocks_of_any_bytes_with_valid_checksums(block):
    data = table_file([(b"", b"\x08\x01")])
    stored = bytearray()
    handle = append_block(stored, block)
    index = append_block(stored, table_block([(b"z", handle)]))
    read_all(bytes(stored) + (index * 2).ljust(40, b"\0") + data[-8:])


@fuzzed
@given(edits, st.integers(0, 3))
def test_edited_entries_with_valid_checksums(changes, place):
    entries = [(b"", b"\x08\x01")]
    for number, name in enumerate((b"a/b", b"a/c", b"d")):
        entry = message_class("BundleEntry")(dtype=1, size=24, offset=24 * number)
        entry.shape.dim.add(size=2)
        entry.shape.dim.add(size=3)
        entries.append((name, entry.SerializeToString()))
    name, value = entries[place]
    entries[place] = name, edited(value, changes)
    read_all(table_file(entries))


OBJECTS = object_graph({f"a{place}/b/c{place}": f"k{place}" for place in range(5)})


@fuzzed
@given(edits)
def test_edited_object_graphs(changes):
    with suppress(WeightsError):
        attribute_names(edited(OBJECTS, changes), "here")


@fuzzed
@given(edits)
def test_edited_graphs(changes):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "saved_model.pb"
        path.write_bytes(edited(GRAPH, changes))
        try:
            model = read_saved_model(path)
        except WeightsError:
            return
        backbone = [name for name in model.variable_names.values() if "resnet" in name]
        read_network_graph(model, backbone)


operations = st.sampled_from(
    [
        *("Conv2D", "MatMul", "BiasAdd", "AddV2", "Relu", "Softplus", "Mean", "Pow", "Maximum"),
        *("FusedBatchNormV3", "Rsqrt", "Mul", "Sub", "ResizeBilinear", "MaxPool", "Pad", "Const"),
        *("Merge", "Switch", "Identity", "While", "If", "PartitionedCall", "VarHandleOp", "SaveV2"),
    ]
)
nodes = st.lists(
    st.tuples(operations, st.lists(st.integers(0, 25), max_size=5), st.booleans()), max_size=25
)


@fuzzed
@given(nodes, nodes)
def test_graphs_of_any_operations(in_graph, in_function):
    """Nodes named 0, 1, ... that read each other; calls reach a function of the same kind."""
    model = message_class("SavedModel")()
    graph = model.meta_graphs.add().graph
    made = graph.library.function.add()
    made.signature.name = "f"
    for place in range(3):
        made.signature.inputs.add(name=f"a{place}")
        made.signature.outputs.add(name=f"o{place}")
        made.ret[f"o{place}"] = f"{place}:0"
    for into, listed in ((graph.node, in_graph), (made.node, in_function)):
        for place in range(26):
            op, inputs, flag = listed[place] if place < len(listed) else ("Neg", [], False)
            node = into.add(name=str(place), op=op, inputs=[str(i) for i in inputs])
            for attribute in ("body", "f", "then_branch", "else_branch"):
                node.attributes[attribute].function.name = "f"
            node.attributes["is_training"].b = flag
            node.attributes["strides"].list.i.extend([1, 2, 2, 1] if flag else [3])
            node.attributes["value"].tensor.dtype = 1 if flag else 3
            node.attributes["value"].tensor.content = b"\0\0\x80\x3f"
    model.meta_graphs[0].signatures["s"].outputs["o"].name = "0:0"
    with TemporaryDirectory() as folder:
        path = Path(folder) / "saved_model.pb"
        path.write_bytes(model.SerializeToString())
        with suppress(WeightsError):
            read = read_saved_model(path)
            read_network_graph(read, list(read.variable_names.values())[:2])


def whole_archive() -> bytes:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        for name in ("m/saved_model.pb", "m/variables/variables.index", "m/" + "long" * 60):
            member = tarfile.TarInfo(name)
            member.size = 700
            tar.addfile(member, io.BytesIO(bytes(700)))
    return plain.getvalue()


ARCHIVE = whole_archive()


@fuzzed
@given(edits, st.booleans())
def test_edited_archives(changes, inside):
    data = (
        gzip.compress(edited(ARCHIVE, changes))
        if inside
        else edited(gzip.compress(ARCHIVE), changes)
    )
    with TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        out.mkdir()
        (Path(folder) / "x.tar.gz").write_bytes(data)
        with suppress(WeightsError):
            unpack_model(Path(folder) / "x.tar.gz", out)
        assert sorted(path.name for path in Path(folder).iterdir()) == ["out", "x.tar.gz"]
        assert sum(path.stat().st_size for path in out.rglob("*")) < 2**20


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    write_slim_model(folder)
    return folder


@fuzzed
@given(edits, st.sampled_from(["saved_model.pb", "variables/variables.index"]))
def test_edited_models(model, changes, part):
    whole = (model / part).read_bytes()
    (model / part).write_bytes(edited(whole, changes))
    with suppress(WeightsError):
        import_weights(model, model / "out.safetensors")
    (model / part).write_bytes(whole)
