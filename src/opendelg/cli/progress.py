"""Progress on stderr: a bar with rate and time left, or a line now and then in a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LOG_SECONDS = 30.0  # between lines where stderr is no terminal


@contextmanager
def progress(what: str, total: int, is_shown: bool = True) -> Iterator[Callable[[object], None]]:
    """Yield a function to call once per thing done; its argument is ignored."""
    if not is_shown or total == 0:
        yield lambda _done: None
    elif sys.stderr.isatty():
        with _bar(what, total) as advance:
            yield advance
    else:
        yield _lines(what, total)


@contextmanager
def _bar(what: str, total: int) -> Iterator[Callable[[object], None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:.1f}/s")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    # The estimate looks at the last minute: photos differ in size.
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=60) as bar:
        task = bar.add_task(what, total=total)
        yield lambda _done: bar.advance(task)


def _lines(what: str, total: int) -> Callable[[object], None]:
    started = time.monotonic()
    done, told = 0, started

    def advance(_done: object) -> None:
        nonlocal done, told
        done += 1
        now = time.monotonic()
        if now - told >= LOG_SECONDS or done == total:
            told = now
            rate = done / max(now - started, 1e-9)
            left = (total - done) / rate
            print(f"{what}: {done} of {total}, {rate:.1f}/s, {left:.0f} s left", file=sys.stderr)

    return advance
