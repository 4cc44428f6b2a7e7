"""Where metrics go: a CSV file always, TensorBoard beside it."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

COLUMNS = ("step", "epoch", "name", "value")


class MetricsFile:
    """metrics.csv: one row per value, so that plugins can add names at any time.

    `size` goes into the checkpoint. Rows written after the checkpoint that a run resumes from are
    cut off first, which makes the file of a resumed run equal to that of an undisturbed one.
    """

    def __init__(self, path: Path, keep: int = 0) -> None:
        path.touch()
        os.truncate(path, min(keep, path.stat().st_size))
        self._file = path.open("a", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file, lineterminator="\n")
        if self.size == 0:
            self._writer.writerow(COLUMNS)

    @property
    def size(self) -> int:
        """Bytes written so far."""
        self._file.flush()
        return self._file.tell()

    def write(self, step: int, epoch: int, metrics: dict[str, float]) -> None:
        """Add one row per metric; `repr` keeps every bit of a float."""
        self._writer.writerows((step, epoch, name, repr(v)) for name, v in metrics.items())
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def tensorboard(folder: Path, step: int) -> SummaryWriter | None:
    """A TensorBoard writer that hides what was logged after `step`, or None if not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step + 1)


def read_metrics(path: Path) -> dict[str, list[tuple[int, float]]]:
    """metrics.csv as name -> [(step, value), ...]; a half-written last row is left out."""
    curves: dict[str, list[tuple[int, float]]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            try:
                point = (int(row["step"]), float(row["value"]))
            except (TypeError, ValueError):
                continue
            curves.setdefault(row["name"], []).append(point)
    return curves
