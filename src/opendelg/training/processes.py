"""The processes of a run: started by torchrun on each machine, or here, one per device."""

import logging
import multiprocessing
import os
import socket
from collections.abc import Callable
from typing import Any

import torch
from torch.multiprocessing.spawn import ProcessRaisedException, spawn

from opendelg.errors import OpenDelgError


def is_started_by_torchrun() -> bool:
    """Whether this process is one of several, with torchrun's variables in its environment."""
    return torch.distributed.is_torchelastic_launched()


def process_number() -> int:
    """Number of this process among those of all machines."""
    return int(os.environ["RANK"]) if is_started_by_torchrun() else 0


def num_processes() -> int:
    """Processes of the run on all machines."""
    return int(os.environ["WORLD_SIZE"]) if is_started_by_torchrun() else 1


def num_processes_here() -> int:
    """Processes of the run on this machine."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if is_started_by_torchrun() else 1


def run_in_processes(count: int, task: Callable[..., None], *arguments: Any) -> None:
    """Call a function of a module in ``count`` new processes, as torchrun would.

    Raises:
        OpenDelgError: If one of them raised it; the others are ended.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    failures = multiprocessing.get_context("spawn").SimpleQueue()
    level = logging.getLogger().level
    try:
        spawn(  # type: ignore[no-untyped-call]
            _run_one, (count, port, level, failures, task, arguments), nprocs=count
        )
    except ProcessRaisedException:
        if failures.empty():
            raise
        raise OpenDelgError(failures.get()) from None


def _run_one(
    number: int,
    count: int,
    port: int,
    level: int,
    failures: Any,
    task: Callable[..., None],
    arguments: tuple[Any, ...],
) -> None:
    os.environ |= {
        "TORCHELASTIC_RUN_ID": "delg",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "RANK": str(number),
        "LOCAL_RANK": str(number),
        "GROUP_RANK": "0",
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
    }
    os.dup2(2, 1)  # stdout is kept for the result
    logging.basicConfig(level=level if number == 0 else logging.ERROR)
    if not torch.cuda.is_available():
        # Else each takes all cores, and they wait for each other.
        torch.set_num_threads(max(1, torch.get_num_threads() // count))
    try:
        task(*arguments)
    except OpenDelgError as error:
        failures.put(str(error))
        raise
