"""Progress of long work that is no training: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

PLAIN_INTERVAL_S = 5.0

T = TypeVar("T")


class Progress:
    """Shows on stderr how much is done; short work elsewhere than on a terminal shows nothing.

    Args:
        what: a few words, e.g. "tokenizing".
        total: how many `unit` there are in all.
    """

    def __init__(self, what: str, total: int, unit: str) -> None:
        self.what, self.total, self.unit = what, total, unit
        self.done = 0
        self._began = self._last_line = time.monotonic()
        console = Console(file=sys.stderr)
        self._bar: Bar | None = None
        if console.is_terminal:
            columns = (BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
            self._bar = Bar(TextColumn("{task.description}"), *columns, console=console)
            self._task = self._bar.add_task(what, total=total)

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def along(self, items: Iterable[T], size: Callable[[T], int]) -> Iterator[T]:
        """Pass `items` on; when the next one is asked for, `size` of the last is done."""
        for item in items:
            yield item
            self.advance(size(item))

    def advance(self, count: int) -> None:
        """`count` more are done."""
        self.done += count
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done)
            return
        now = time.monotonic()
        if now - self._last_line >= PLAIN_INTERVAL_S:
            self._last_line = now
            left = (now - self._began) * (self.total - self.done) / max(self.done, 1)
            print(
                f"{self.what}: {self.done} of {self.total} {self.unit}, {left:.0f} s left",
                file=sys.stderr,
            )
