"""Services that are away for a while: what was asked of them is asked again."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from opendelg.errors import UnavailableError

T = TypeVar("T")

_log = logging.getLogger(__name__)

PATIENCE_SECONDS = 300.0  # a service that is down longer ends a run


def patiently(ask: Callable[[], T]) -> T:
    """What a function returns that may be called again where a service did not answer.

    Raises:
        UnavailableError: If it fails still after `PATIENCE_SECONDS`.
    """
    end = time.monotonic() + PATIENCE_SECONDS
    pause = 1.0  # s
    while True:
        try:
            return ask()
        except UnavailableError as error:
            if time.monotonic() + pause > end:
                raise
            _log.warning("%s; trying again in %.0f s", error, pause)
        time.sleep(pause)
        pause = min(2 * pause, 30.0)
