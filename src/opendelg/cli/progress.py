"""Progress on stderr: a bar with rate and time left, or a line now and then in a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import TaskID

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


@contextmanager
def byte_progress(what: str) -> Iterator[Callable[[int, int | None], None]]:
    """Yield a function to call with the bytes so far, and all of them or None if not known."""
    if not sys.stderr.isatty():
        yield _byte_lines(what)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        # Made at the first call: bytes of an earlier run must not count into the rate.
        tasks: list[TaskID] = []

        def show(done: int, total: int | None) -> None:
            if not tasks:
                tasks.append(bar.add_task(what, total=total, completed=done))
            bar.update(tasks[0], completed=done, total=total)

        yield show


def _byte_lines(what: str) -> Callable[[int, int | None], None]:
    started = told = time.monotonic()
    first: int | None = None

    def show(done: int, total: int | None) -> None:
        nonlocal first, told
        first = done if first is None else first
        now = time.monotonic()
        if now - told < LOG_SECONDS and done != total:
            return
        told = now
        rate = max(done - first, 0) / max(now - started, 1e-9)
        text = f"{what}: {done / 1e6:.1f} MB"
        if total is not None:
            text += f" of {total / 1e6:.1f} MB"
        text += f", {rate / 1e6:.1f} MB/s"
        if total is not None and rate > 0:
            text += f", {(total - done) / rate:.0f} s left"
        print(text, file=sys.stderr)

    return show
