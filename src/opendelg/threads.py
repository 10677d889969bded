"""How many threads there should be, and how many matrix products use beside Python threads."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

_lock = threading.Lock()
_holders = 0
_limit: Any = None  # in force while there are holders


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """NumPy's matrix products use one thread each while this is open.

    The number is one of the whole process: callers at the same time share one limit, and the last
    to leave restores what the first found.
    """
    global _holders, _limit
    with _lock:
        if _holders == 0:
            _limit = _controller().limit(limits=1, user_api="blas")
        _holders += 1
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if _holders == 0:
                _limit.restore_original_limits()
                _limit = None


def available_cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@lru_cache(maxsize=1)
def _controller() -> Any:
    """The BLAS libraries that are loaded; finding them takes 1 ms."""
    return ThreadpoolController()
