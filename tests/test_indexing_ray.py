"""Waiting for Ray tasks, with a made-up Ray; `test_cluster_ray` has the real one."""

from types import SimpleNamespace

import pytest

from opendelg.indexing_ray import _ended


def ray_of(*nodes: tuple[bool, dict[str, float]]) -> SimpleNamespace:
    """Ray with these nodes, whose task ends at the second look."""
    answers = iter([([], ["task"]), (["task"], [])])
    return SimpleNamespace(
        wait=lambda *_, **__: next(answers),
        nodes=lambda: [{"Alive": alive, "Resources": has} for alive, has in nodes],
        get=lambda task: [f"outcome of {task}"],
        exceptions=SimpleNamespace(RayTaskError=RuntimeError, RayError=RuntimeError),
    )


@pytest.mark.parametrize(
    ("nodes", "needs", "is_told"),
    [
        ([(True, {"CPU": 0}), (True, {"CPU": 2})], {"CPU": 4, "GPU": 0}, True),
        ([(False, {"CPU": 8})], {"CPU": 1, "GPU": 0}, True),
        ([(True, {"CPU": 8})], {"CPU": 1, "GPU": 1}, True),
        ([(True, {"CPU": 8})], {"CPU": 8, "GPU": 0}, False),
    ],
    ids=["too small", "dead", "no GPU", "busy"],
)
def test_tasks_that_no_node_can_run_are_told(nodes, needs, is_told, caplog) -> None:
    running = {"task": []}
    assert _ended(ray_of(*nodes), running, needs) == ([], ["outcome of task"])
    assert (running, "Ray must have a node" in caplog.text) == ({}, is_told)
