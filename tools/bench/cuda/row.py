"""A row of the CUDA benchmark: also bytes and memory."""

from __future__ import annotations

from dataclasses import dataclass

from ..report import Row, readable

COLUMNS = (
    f"{'case':29} {'what':17} {'subject':24} {'figure':>11} {'n':>4} {'moved':>11} {'of floor':>9}"
    f" {'to ours':>8} {'peak':>11}  note"
)


@dataclass(frozen=True)
class CudaRow(Row):
    """As `Row`; of_limit is the floor divided by the time.

    Attributes:
        moved_bytes: least bytes through the memory of the GPU.
        peak_bytes: memory at the peak beyond the inputs, the results included; None on a CPU.
    """

    moved_bytes: float | None = None
    peak_bytes: int | None = None

    def line(self) -> str:
        figure = "not run" if self.value is None else self._figure(self.value)
        moved, peak = (
            "" if x is None else readable(x, "B") for x in (self.moved_bytes, self.peak_bytes)
        )
        of_floor = "" if self.of_limit is None else f"{self.of_limit:.1%}"
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}x"
        return (
            f"{self.case:29} {self.what:17} {self.subject:24} {figure:>11} {self.runs or '':>4}"
            f" {moved:>11} {of_floor:>9} {ratio:>8} {peak:>11}  {self.note}"
        ).rstrip()

    def _figure(self, value: float) -> str:
        return f"{value * 1e6:.1f} us" if self.unit == "s" else readable(value, self.unit)
