"""The computation in a ``saved_model.pb``, followed from its outputs back to its variables.

TensorFlow spreads one computation over a graph and functions: a loop's body is a function (or, in
older exports, nodes between ``Enter`` and ``Exit``), and a variable reaches a convolution through
reads, function arguments and loop inputs.  Here all of that is looked through, so that an
operation's input is the operation that computes it, or the variable it is read from.

Only what the outputs need is kept.  Source: TensorFlow, core/framework/graph.proto, node_def.proto.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from opendelg.errors import WeightsError
from opendelg.weights.tensorflow_messages import parse_message

_MAX_FILE_BYTES = 16 * 2**20  # a ResNet-101 takes about 3 MiB; parsing up to 40 times as much
_MAX_GRAPHS = 100  # one file may hold several, for training and for serving
_MAX_NODES = 50_000  # a ResNet-101 has about 8,000
_MAX_STEPS = 5_000_000  # from inputs to what computes them, all together
_OUTPUTS = ("boxes", "features", "scales", "scores", "global_descriptors", "global_descriptor")
_VARIABLES = frozenset({"VarHandleOp", "VariableV2", "Variable"})
_PASSING = frozenset(
    {
        *("Identity", "ReadVariableOp", "StopGradient", "CheckNumerics", "Snapshot"),
        *("Enter", "RefEnter", "Exit", "RefExit", "Switch", "RefSwitch"),
        *("NextIteration", "RefNextIteration", "Merge", "RefMerge", "PlaceholderWithDefault"),
    }
)
_CALLS = {  # operation -> attributes that name the functions whose results it has
    "PartitionedCall": ("f",),
    "StatefulPartitionedCall": ("f",),
    "While": ("body",),
    "StatelessWhile": ("body",),
    "If": ("then_branch", "else_branch"),
    "StatelessIf": ("then_branch", "else_branch"),
}


@dataclass(eq=False)
class Operation:
    """An operation that computes something; reads, loops and calls are none."""

    name: str
    op: str
    attributes: Any
    # What computes each input: several where a loop or condition has several origins.
    inputs: list[tuple["Operation", ...]] = field(default_factory=list)
    users: list["Operation"] = field(default_factory=list)

    def attribute(self, name: str) -> Any:
        """An attribute by name; the default of its type where it is absent."""
        return self.attributes[name]

    @property
    def strides(self) -> tuple[int, int]:
        """Vertical and horizontal stride of a convolution or pool of (B, H, W, C)."""
        steps = [*self.attribute("strides").list.i]
        return (steps[1], steps[2]) if len(steps) == 4 else (1, 1)

    @property
    def padding(self) -> str:
        """SAME, VALID or EXPLICIT."""
        return str(self.attribute("padding").s.decode("ascii", "replace"))


@dataclass(frozen=True)
class SavedModel:
    """The operations that the outputs of a saved model need."""

    operations: list[Operation]
    variable_names: dict[Operation, str]  # their names in the bundle
    tensorflow_version: str

    def renamed(self, names: Mapping[str, str]) -> "SavedModel":
        """The same with other names for the variables; those that have none keep theirs."""
        renamed = {o: names.get(name, name) for o, name in self.variable_names.items()}
        return replace(self, variable_names=renamed)

    def of_kind(self, *kinds: str) -> Iterator[Operation]:
        """The operations of these kinds, in the order of the file."""
        return (operation for operation in self.operations if operation.op in kinds)

    def variable(self, operation: Operation, index: int) -> str | None:
        """The name of the variable that an input is, if it is one."""
        if index >= len(operation.inputs):
            return None
        names = (self.variable_names.get(origin) for origin in operation.inputs[index])
        return next((name for name in names if name is not None), None)


def read_saved_model(path: Path) -> SavedModel:
    """Read a ``saved_model.pb``.

    Raises:
        WeightsError: If it is no such file, too large, or without the outputs of a DELG model.
    """
    where = repr(str(path))
    try:
        size = path.stat().st_size
        if size > _MAX_FILE_BYTES:
            raise WeightsError(
                f"graph must be a file of at most {_MAX_FILE_BYTES} bytes, got {size} in {where}"
            )
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"graph must be readable, got {where} ({error})") from error
    message = parse_message("SavedModel", data, where)
    if not message.meta_graphs:
        raise WeightsError(f"saved model must hold a graph, got none in {where}")
    graphs = message.meta_graphs[:_MAX_GRAPHS]
    meta = next((graph for graph in graphs if "serve" in graph.info.tags), graphs[0])
    tracer = _Tracer(meta.graph, where)
    outputs = [name for name in _OUTPUTS if name in tracer.nodes[""]]
    outputs += [info.name for sign in meta.signatures.values() for info in sign.outputs.values()]
    operations = tracer.trace(outputs)
    if not operations:
        raise WeightsError(
            f"saved model must have an output named {', '.join(_OUTPUTS)} or a signature, "
            f"got none in {where}"
        )
    return SavedModel(operations, tracer.variable_names(), meta.info.tensorflow_version)


def constant(operations: Iterable[Operation]) -> np.ndarray | None:
    """The small constant that an input is, flat, or None."""
    for operation in operations:
        if operation.op != "Const":
            continue
        tensor = operation.attribute("value").tensor
        dtype = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8"}.get(tensor.dtype)
        if dtype is None:
            continue
        if tensor.content:
            itemsize = np.dtype(dtype).itemsize
            if len(tensor.content) % itemsize == 0:
                return np.frombuffer(tensor.content, dtype)
            continue
        values = tensor.float_val or tensor.double_val or tensor.int_val or tensor.int64_val
        # A run of equal numbers is stored once, zeros not at all.
        return np.array([*values] or [0], dtype)
    return None


class _Tracer:
    """Looks through a graph and its functions; a place is (function, node), "" being the graph."""

    def __init__(self, graph: Any, where: str) -> None:
        self.where = where
        self.steps = 0
        self.functions = {f.signature.name: f for f in graph.library.function if f.signature.name}
        scopes = {"": graph.node} | {name: f.node for name, f in self.functions.items()}
        if sum(len(nodes) for nodes in scopes.values()) > _MAX_NODES:
            raise WeightsError(f"graph must have at most {_MAX_NODES} nodes, in {where}")
        self.nodes = {scope: {node.name: node for node in nodes} for scope, nodes in scopes.items()}
        self.arguments = {
            name: {argument.name: place for place, argument in enumerate(f.signature.inputs)}
            for name, f in self.functions.items()
        }
        self.callers: dict[str, list[tuple[str, Any]]] = defaultdict(list)
        for scope, named in self.nodes.items():
            for node in named.values():
                for attribute in _CALLS.get(node.op, ()):
                    self.callers[node.attributes[attribute].function.name].append((scope, node))
        self.operations: dict[tuple[str, str], Operation] = {}

    def trace(self, outputs: Iterable[str]) -> list[Operation]:
        """The operations that these tensors of the graph need, in the order of the file."""
        waiting = deque(place for name in outputs for place in self.origins("", name))
        found: set[tuple[str, str]] = set()
        while waiting:
            scope, name = place = waiting.popleft()
            if place in found:
                continue
            found.add(place)
            operation = self._operation(place)
            for reference in self.nodes[scope][name].inputs:
                if not reference.startswith("^"):
                    origins = self.origins(scope, reference)
                    operation.inputs.append(tuple(self._operation(origin) for origin in origins))
                    waiting += origins
        ordered = [
            self.operations[scope, name]
            for scope, named in self.nodes.items()
            for name in named
            if (scope, name) in found
        ]
        for operation in ordered:
            for computed in {origin for origins in operation.inputs for origin in origins}:
                computed.users.append(operation)
        return ordered

    def variable_names(self) -> dict[Operation, str]:
        """What the bundle calls the variables: the saver says so, else their own names."""
        names = {}
        for (scope, name), operation in self.operations.items():
            if operation.op in _VARIABLES:
                shared = operation.attribute("shared_name").s.decode("utf-8", "replace")
                names[operation] = name if scope == "" and not shared else shared
        for scope, named in self.nodes.items():
            for node in named.values():
                if node.op == "SaveV2":
                    names |= self._saved_names(scope, node)
        return names

    def _saved_names(self, scope: str, saver: Any) -> dict[Operation, str]:
        """Name by variable, from the operation that saves them: prefix, names, slices, tensors."""
        names: dict[Operation, str] = {}
        if len(saver.inputs) < 4:
            return names
        listed: list[bytes] = []
        for place in self.origins(scope, saver.inputs[1]):
            listed = [*self._operation(place).attribute("value").tensor.string_val]
        for name, reference in zip(listed, saver.inputs[3:], strict=False):
            for place in self.origins(scope, reference):
                operation = self.operations.get(place)
                if operation is not None and operation.op in _VARIABLES:
                    names[operation] = name.decode("utf-8", "backslashreplace")
        return names

    def origins(self, scope: str, reference: str) -> list[tuple[str, str]]:
        """The operations that compute what ``reference`` names in ``scope``."""
        found = []
        waiting, seen = [(scope, reference)], {(scope, reference)}
        while waiting:
            if self.steps > _MAX_STEPS:
                raise WeightsError(f"graph must be of a network's size, got more in {self.where}")
            scope, reference = waiting.pop()
            name = reference.partition(":")[0]
            if name in self.arguments.get(scope, ()):
                follow = self._passed(scope, self.arguments[scope][name])
            elif name not in self.nodes[scope]:
                raise WeightsError(f"graph must hold its inputs, got no {name!r} in {self.where}")
            else:
                node = self.nodes[scope][name]
                if node.op in _PASSING:
                    used = node.inputs if node.op.endswith("Merge") else node.inputs[:1]
                    follow = [(scope, origin) for origin in used if not origin.startswith("^")]
                elif node.op in _CALLS:
                    follow = self._returned(node, reference)
                else:
                    found.append((scope, name))
                    continue
            self.steps += len(follow)
            for step in reversed(follow):
                if step not in seen:
                    seen.add(step)
                    waiting.append(step)
        return found

    def _passed(self, function: str, place: int) -> list[tuple[str, str]]:
        """What the callers of a function give for one argument."""
        passed = []
        for scope, node in self.callers[function]:
            # A condition's first input chooses the function and is not passed on.
            at = place + (node.op in ("If", "StatelessIf"))
            if at < len(node.inputs) and not node.inputs[at].startswith("^"):
                passed.append((scope, node.inputs[at]))
        return passed

    def _returned(self, call: Any, reference: str) -> list[tuple[str, str]]:
        """The results in the called functions that one output of a call is."""
        _, colon, last = reference.rpartition(":")
        output = int(last) if colon and last.isdecimal() and len(last) < 7 else 0
        returned = []
        for attribute in _CALLS[call.op]:
            name = call.attributes[attribute].function.name
            function = self.functions.get(name)
            if function is None or output >= len(function.signature.outputs):
                raise WeightsError(
                    f"graph must hold its functions, got no {name!r} in {self.where}"
                )
            result = function.ret[function.signature.outputs[output].name]
            returned.append((name, result))
        return returned

    def _operation(self, place: tuple[str, str]) -> Operation:
        if place not in self.operations:
            node = self.nodes[place[0]][place[1]]
            self.operations[place] = Operation(node.name, node.op, node.attributes)
        return self.operations[place]
