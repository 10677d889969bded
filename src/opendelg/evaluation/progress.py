"""Who is told how far long work has come."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

# Opened with what is done and how many times; then called with each thing that is done.
Progress = Callable[[str, int], AbstractContextManager[Callable[[object], None]]]
# Opened with what is done; then called with the bytes so far and all of them.
ByteProgress = Callable[[str], AbstractContextManager[Callable[[int, int | None], None]]]


@contextmanager
def silent(_what: str, _total: int) -> Iterator[Callable[[object], None]]:
    """Tells nobody."""
    yield lambda _done: None


@contextmanager
def silent_bytes(_what: str) -> Iterator[Callable[[int, int | None], None]]:
    """Tells nobody."""
    yield lambda _done, _total: None
