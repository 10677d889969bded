"""Nodes and tasks of a made-up Ray; `test_cluster_ray` has a real one."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from opendelg.extraction import profile
from opendelg.indexing_ray import _device_of_tasks, _ended, _Job, _num_at_once

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


def ray_of(nodes: list[dict[str, Any]]) -> SimpleNamespace:
    """Ray with these nodes, whose task ends at the second look."""
    answers = iter([([], ["task"]), (["task"], [])])
    return SimpleNamespace(
        wait=lambda *_, **__: next(answers),
        nodes=lambda: nodes,
        get=lambda task: [f"outcome of {task}"],
        exceptions=SimpleNamespace(RayTaskError=RuntimeError, RayError=RuntimeError),
    )


@pytest.mark.parametrize(
    ("nodes", "device", "is_told"),
    [
        ([node(CPU=0), node(CPU=2)], "cpu", True),
        ([node(alive=False, CPU=8)], "cpu", True),
        ([node(CPU=8)], "cuda", True),
        ([node(CPU=4)], "cpu", False),
    ],
    ids=["too small", "dead", "no GPU", "busy"],
)
def test_tasks_that_no_node_can_run_are_told(
    nodes: list[dict[str, Any]], device: Any, is_told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    running: dict[Any, Any] = {"task": []}
    ended = _ended(ray_of(nodes), running, replace(JOB, device=device))
    assert ended == ([], ["outcome of task"])
    assert (running, "Ray must have a node" in caplog.text) == ({}, is_told)
