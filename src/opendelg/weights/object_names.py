"""Names of Keras' variables by the attributes that hold them.

A bundle names a variable by one of the ways to it from the saved object, and newer exporters take
ways like ``_model/attention/variables/0``.  The tree of objects, stored as text in the bundle,
has the way by attributes too: ``_model/attention/conv1/kernel``.  Source: TensorFlow,
core/protobuf/trackable_object_graph.proto.
"""

import re
from collections import deque

from opendelg.weights.tensorflow_messages import parse_message

OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"

# Lists that Keras keeps beside the attributes.
_LISTS = re.compile(
    r"(trainable_|non_trainable_)?variables|regularization_losses|layers|keras_api|signatures"
    r"|layer(_with_weights)?-\d+"
)
_MAX_PATH = 1000  # characters


def attribute_names(data: bytes, where: str) -> dict[str, str]:
    """Name by attributes of each variable, by its name in the bundle.

    Raises:
        WeightsError: If the tree is damaged.
    """
    nodes = parse_message("ObjectGraph", data, where).nodes
    paths = {0: ""} if nodes else {}
    waiting = deque(paths)
    while waiting:
        parent = waiting.popleft()
        for child in nodes[parent].children:
            path = f"{paths[parent]}{child.local_name}/"
            is_known = child.node_id in paths or not 0 < child.node_id < len(nodes)
            if not is_known and not _LISTS.fullmatch(child.local_name) and len(path) <= _MAX_PATH:
                paths[child.node_id] = path
                waiting.append(child.node_id)
    return {
        attribute.checkpoint_key: f"{path}.ATTRIBUTES/{attribute.name}"
        for place, path in paths.items()
        for attribute in nodes[place].attributes
    }
