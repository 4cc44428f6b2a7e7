"""Progress of a run: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

PLAIN_INTERVAL_S = 5.0


class ProgressBar:
    """Shows steps, loss and time left; silent on ranks other than 0.

    Args:
        total: steps of the whole run.
        start: steps already done.
    """

    def __init__(self, total: int, start: int, enabled: bool) -> None:
        self.enabled = enabled
        self.total = total
        self.start = start
        self.began = time.monotonic()
        self.last_line = -PLAIN_INTERVAL_S
        self.console = Console(file=sys.stderr)
        self.bar: Progress | None = None
        if enabled and self.console.is_terminal:
            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                TimeRemainingColumn(),
                console=self.console,
            )
            self.bar.start()
            self.task = self.bar.add_task("training", total=total, completed=start, note="")

    def update(self, step: int, epoch: int, loss: float | None) -> None:
        """One more step is done; `loss` is the newest one known."""
        if not self.enabled:
            return
        note = f"epoch {epoch + 1}" + (f"  loss {loss:.4f}" if loss is not None else "")
        if self.bar is not None:
            self.bar.update(self.task, completed=step, note=note)
            return
        elapsed = time.monotonic() - self.began
        if elapsed - self.last_line >= PLAIN_INTERVAL_S or step == self.total:
            self.last_line = elapsed
            rate = (step - self.start) / elapsed if elapsed > 0 else 0.0
            left = f"{(self.total - step) / rate:.0f} s left" if rate > 0 else ""
            print(f"step {step}/{self.total}  {note}  {rate:.1f} steps/s  {left}", file=sys.stderr)

    def say(self, text: str) -> None:
        """A line that stays, above the bar."""
        if self.bar is not None:
            self.bar.console.print(text, highlight=False)
        elif self.enabled:
            print(text, file=sys.stderr)

    def metrics(self, epoch: float, metrics: Mapping[str, float]) -> None:
        """The line after an evaluation."""
        shown = {k: v for k, v in metrics.items() if k.startswith("eval/")}
        text = "  ".join(f"{k.removeprefix('eval/')} {v:.4f}" for k, v in shown.items())
        self.say(f"epoch {epoch:.4g}  {text}")

    def close(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.stop()
