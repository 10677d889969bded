"""Which of Ray's nodes run tasks, told from what Ray says of them; no Ray is needed."""

from dataclasses import replace
from typing import Any

import pytest

from opendelg.extraction import profile
from opendelg.indexing_ray import _device_of_tasks, _Job, _num_at_once

JOB = _Job("milvus://host/a", "int8", "starter", "0" * 64, profile("fast"), "cpu", 4)


def node(alive: bool = True, **resources: float) -> dict[str, Any]:
    return {"Alive": alive, "Resources": resources}


@pytest.mark.parametrize(
    ("nodes", "device"),
    [
        ([], "cpu"),
        ([node(CPU=8)], "cpu"),
        ([node(CPU=8), node(CPU=8, GPU=1)], "cuda"),
        ([node(CPU=8), node(alive=False, CPU=8, GPU=1)], "cpu"),
    ],
)
def test_tasks_take_a_gpu_where_there_is_one(nodes: list[dict[str, Any]], device: str) -> None:
    assert _device_of_tasks(nodes) == device


@pytest.mark.parametrize(
    ("device", "count"),
    [
        ("cpu", 2 + 0 + 1 + 4),  # by whole tasks of four threads on each node
        ("cuda", 1 + 2),  # the node of three CPUs cannot feed its GPU
    ],
)
def test_as_many_tasks_at_once_as_nodes_have_room_for(device: Any, count: int) -> None:
    nodes = [
        node(CPU=8),
        node(CPU=3, GPU=1),
        node(CPU=7, GPU=1),
        node(CPU=16, GPU=2),
        node(alive=False, CPU=64, GPU=8),
        node(),
    ]
    assert _num_at_once(nodes, replace(JOB, device=device)) == count
