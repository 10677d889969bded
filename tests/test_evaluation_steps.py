from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from opendelg.evaluation.steps import Steps


@pytest.fixture
def make() -> Callable[[], dict[str, np.ndarray]]:
    """Gives another result each time that it is asked."""
    numbers = iter(range(9))
    return lambda: {"ids": np.array([next(numbers)])}


def test_a_step_is_made_once(tmp_path: Path, make: Callable) -> None:
    steps = Steps(tmp_path, {"model": "a"})
    assert steps.kept("first") is None
    assert steps.done("first", make)["ids"].tolist() == [0]
    assert Steps(tmp_path, {"model": "a"}).done("first", make)["ids"].tolist() == [0]
    assert steps.done("second", make)["ids"].tolist() == [1]


def test_what_depends_on_something_else_is_made_anew(tmp_path: Path, make: Callable) -> None:
    Steps(tmp_path, {"model": "a"}).done("first", make)
    assert Steps(tmp_path, {"model": "b"}).kept("first") is None
    assert Steps(tmp_path, {"model": "b"}).done("first", make)["ids"].tolist() == [1]
    assert Steps(tmp_path, {"model": "a"}).done("first", make)["ids"].tolist() == [0]


@pytest.mark.parametrize("left", [0, 1, 50, 200])
def test_a_damaged_step_is_made_anew(tmp_path: Path, make: Callable, left: int) -> None:
    steps = Steps(tmp_path, {})
    steps.done("first", make)
    (path,) = tmp_path.rglob("first.npz")
    path.write_bytes(path.read_bytes()[:left])
    assert steps.done("first", make)["ids"].tolist() == [1]
    assert steps.done("first", make)["ids"].tolist() == [1]


def test_what_a_killed_process_left_goes(tmp_path: Path, make: Callable) -> None:
    Steps(tmp_path, {}).done("first", make)
    (path,) = tmp_path.rglob("first.npz")
    path.with_name(".0123abcd.part").write_bytes(b"half")
    assert Steps(tmp_path, {}).kept("first") is not None
    assert list(path.parent.iterdir()) == [path]


def test_nothing_is_written_before_a_step_is_done(tmp_path: Path) -> None:
    def fails() -> dict[str, np.ndarray]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Steps(tmp_path / "steps", {}).done("first", fails)
    assert not (tmp_path / "steps").exists()
