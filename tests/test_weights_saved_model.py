"""Graphs are followed through functions, loops and conditions; hostile ones end in an error."""

import time

import numpy as np
import pytest

from opendelg.errors import WeightsError
from opendelg.weights.saved_model import constant, read_saved_model
from opendelg.weights.tensorflow_messages import message_class
from tests.official_samples import GraphBuilder


@pytest.fixture
def read(tmp_path):
    """Read a graph from its message or bytes."""

    def run(message):
        data = message if isinstance(message, bytes) else message.SerializeToString()
        (tmp_path / "saved_model.pb").write_bytes(data)
        return read_saved_model(tmp_path / "saved_model.pb")

    return run


def model_of(builder, functions=(), signature=None):
    model = message_class("SavedModel")()
    model.ParseFromString(builder.message())
    model.meta_graphs[0].graph.library.function.extend(functions)
    if signature is not None:
        model.meta_graphs[0].signatures["serving_default"].outputs["x"].name = signature
    return model


def function(name, inputs, outputs, builder):
    made = message_class("Function")(node=builder.nodes)
    made.signature.name = name
    for argument in inputs:
        made.signature.inputs.add(name=argument)
    for output, reference in outputs.items():
        made.signature.outputs.add(name=output)
        made.ret[output] = reference
    return made


def convolution_with(graph, weights, name="conv"):
    return graph.add("Conv2D", name, [graph.add("Placeholder", f"{name}_in", []), weights])


def test_reads_and_identities_are_looked_through(read):
    graph = GraphBuilder()
    weights = graph.add("Identity", "same", [graph.variable("w")])
    graph.add("Identity", "features", [convolution_with(graph, weights)])
    model = read(model_of(graph))
    (conv,) = model.of_kind("Conv2D")
    assert model.variable(conv, 1) == "w"


def test_a_loop_of_nodes_is_looked_through(read):
    graph = GraphBuilder()
    entered = graph.add("Enter", "enter", [graph.variable("w")])
    start = graph.add("Enter", "start", [graph.add("Placeholder", "input", [])])
    merged = graph.add("Merge", "merge", [start, "next"])
    switched = graph.add("Switch", "switch", [merged, "condition"])
    graph.add("LoopCond", "condition", [])
    conv = graph.add("Conv2D", "conv", [f"{switched}:1", entered])
    graph.add("NextIteration", "next", [conv])
    graph.add("Exit", "features", [switched])
    model = read(model_of(graph))
    (conv,) = model.of_kind("Conv2D")
    assert model.variable(conv, 1) == "w"
    assert [origin.name for origin in conv.inputs[0]] == ["input", "conv"]


def test_functions_loops_and_conditions_are_looked_through(read):
    inner = GraphBuilder()
    inner.add("Conv2D", "conv", ["maps", "kernel"])
    body = function("body", ["maps", "kernel"], {"a": "conv:output:0", "b": "kernel"}, inner)
    outer = GraphBuilder()
    outer.add("While", "loop", ["given", "weights"])
    outer.nodes[-1].attributes["body"].function.name = "body"
    call = function("call", ["given", "weights"], {"out": "loop:output:0"}, outer)
    graph = GraphBuilder()
    inputs = [graph.add("Placeholder", "input", []), graph.variable("w")]
    graph.add("StatefulPartitionedCall", "run", inputs)
    graph.nodes[-1].attributes["f"].function.name = "call"
    model = read(model_of(graph, [body, call], signature="run:0"))
    (conv,) = model.of_kind("Conv2D")
    assert model.variable(conv, 1) == "w"
    assert [origin.name for origin in conv.inputs[0]] == ["input"]


def test_a_condition_gives_both_its_branches(read):
    branches = []
    for name in ("yes", "no"):
        inner = GraphBuilder()
        inner.add("Relu", f"relu_{name}", ["x"])
        branches.append(function(name, ["x"], {"out": f"relu_{name}:0"}, inner))
    graph = GraphBuilder()
    graph.add("If", "if", [graph.add("Placeholder", "p", []), graph.add("Softplus", "s", ["p"])])
    graph.nodes[-1].attributes["then_branch"].function.name = "yes"
    graph.nodes[-1].attributes["else_branch"].function.name = "no"
    graph.add("Neg", "features", ["if:0"])
    model = read(model_of(graph, branches))
    (features,) = model.of_kind("Neg")
    assert [origin.name for origin in features.inputs[0]] == ["relu_yes", "relu_no"]
    assert [origin.inputs[0][0].name for origin in features.inputs[0]] == ["s", "s"]


def test_the_saver_tells_the_names_in_the_bundle(read):
    graph = GraphBuilder()
    graph.add("Neg", "features", [graph.variable("inner")])
    names = graph.add("Const", "names", [])
    graph.nodes[-1].attributes["value"].tensor.dtype = 7
    graph.nodes[-1].attributes["value"].tensor.string_val.append(b"outer/.ATTRIBUTES/V")
    graph.add("SaveV2", "save", [names, names, names, graph.variable("inner")])
    model = read(model_of(graph))
    assert list(model.variable_names.values()) == ["outer/.ATTRIBUTES/V"]


def test_what_outputs_do_not_need_is_left_out(read):
    graph = GraphBuilder()
    convolution_with(graph, graph.variable("training"), "unused")
    graph.add("Neg", "features", [graph.add("Placeholder", "p", [])])
    assert not [*read(model_of(graph)).of_kind("Conv2D")]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"dtype": 1, "float_val": [2.5]}, [2.5]),
        ({"dtype": 3, "content": np.array([1, 2], "<i4").tobytes()}, [1, 2]),
        ({"dtype": 9, "int64_val": [7]}, [7]),
        ({"dtype": 3}, [0]),
        ({"dtype": 7}, None),
        ({"dtype": 1, "content": b"abc"}, None),
    ],
)
def test_constants_are_read_in_each_form(read, fields, expected):
    graph = GraphBuilder()
    graph.add("Neg", "features", [graph.add("Const", "c", [])])
    graph.nodes[0].attributes["value"].tensor.MergeFrom(message_class("Tensor")(**fields))
    (features,) = read(model_of(graph)).of_kind("Neg")
    value = constant(features.inputs[0])
    assert expected == (None if value is None else value.tolist())


def test_endless_loops_end(read):
    graph = GraphBuilder()
    graph.add("Identity", "a", ["b"])
    graph.add("Identity", "b", ["a"])
    graph.add("Neg", "features", ["a"])
    (features,) = read(model_of(graph)).of_kind("Neg")
    assert features.inputs == [()]


def test_a_function_that_calls_itself_ends(read):
    inner = GraphBuilder()
    inner.add("PartitionedCall", "again", ["x"])
    inner.nodes[-1].attributes["f"].function.name = "f"
    graph = GraphBuilder()
    graph.add("PartitionedCall", "run", [graph.add("Placeholder", "p", [])])
    graph.nodes[-1].attributes["f"].function.name = "f"
    graph.add("Neg", "features", ["run"])
    model = read(model_of(graph, [function("f", ["x"], {"out": "again:0"}, inner)]))
    assert [o.op for o in model.operations] == ["Neg"]


def test_a_tangle_is_refused_in_seconds(read):
    """Each merge reads all before it: two thousand nodes, millions of ways."""
    graph = GraphBuilder()
    names = [graph.add("Placeholder", "p", [])]
    for number in range(2500):
        names.append(graph.add("Merge", f"m{number}", names[-800:]))
        graph.add("Neg", f"n{number}", [names[-1]])
    graph.add("AddN", "features", [f"n{number}" for number in range(2500)])
    start = time.monotonic()
    with pytest.raises(WeightsError, match="graph must be of a network's size"):
        read(model_of(graph))
    assert time.monotonic() - start < 60


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "saved model must hold a graph"),
        (b"\xff\xff", "SavedModel must be a whole message"),
        (b"\x12\x00", "saved model must have an output named"),
        (b"\x12\x7f", "SavedModel must be a whole message"),
    ],
)
def test_other_files_are_refused(read, data, message):
    with pytest.raises(WeightsError, match=message):
        read(data)


def test_an_input_that_is_nowhere_is_told(read):
    graph = GraphBuilder()
    graph.add("Neg", "features", ["nowhere"])
    with pytest.raises(WeightsError, match="graph must hold its inputs, got no 'nowhere'"):
        read(model_of(graph))


def test_a_large_file_is_not_read(tmp_path):
    with open(tmp_path / "saved_model.pb", "wb") as file:
        file.truncate(33 * 2**20)
    with pytest.raises(WeightsError, match="graph must be a file of at most"):
        read_saved_model(tmp_path / "saved_model.pb")


def test_deep_nesting_is_refused(read):
    """A message in a message, 100,000 times: the parser has a limit, and it is an error of ours."""
    data = b""
    for _ in range(3000):
        length = len(data)
        size = []
        while length > 0x7F:
            size.append(length & 0x7F | 0x80)
            length >>= 7
        data = b"\x12" + bytes([*size, length]) + data
    with pytest.raises(WeightsError, match="must"):
        read(data)
