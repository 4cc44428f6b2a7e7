"""Figures as rows: printed as soon as they are known, kept for the JSON file."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

OURS = "ssm-kernels"

COLUMNS = (
    f"{'case':26} {'what':19} {'subject':26} {'figure':>11} {'best':>9} {'n':>3} {'G/s':>7}"
    f" {'of limit':>9} {'to ours':>8}  note"
)


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        part: limits, scan, ...
        case: shape or model.
        what: forward, backward, forward+backward, step, error of y, ...
        subject: whose figure; OURS for this project's.
        value: None if it was not run, the note then says why.
        unit: s, B, 1/s, B/s, or "" for a relative error.
        best: the least of the runs, where value is their median.
        runs: number of runs behind the value.
        rate: work per second: state-steps of the scan, outputs of the convolution.
        of_limit: the figure of a machine that reaches its limit, divided by this one (time), or
            this one divided by the limit (rate).
        ratio: value / ours, measured in turns with ours.
    """

    part: str
    case: str
    what: str
    subject: str
    value: float | None
    unit: str = "s"
    best: float | None = None
    runs: int = 0
    rate: float | None = None
    of_limit: float | None = None
    ratio: float | None = None
    note: str = ""

    def line(self) -> str:
        figure = "not run" if self.value is None else readable(self.value, self.unit)
        best = "" if self.best is None or self.runs < 2 else readable(self.best, self.unit)
        rate = "" if self.rate is None else f"{self.rate / 1e9:.3f}"
        of_limit = "" if self.of_limit is None else f"{self.of_limit:.1%}"
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}x"
        return (
            f"{self.case:26} {self.what:19} {self.subject:26} {figure:>11} {best:>9}"
            f" {self.runs or '':>3} {rate:>7} {of_limit:>9} {ratio:>8}  {self.note}"
        ).rstrip()


def readable(value: float, unit: str) -> str:
    if unit == "s":
        return f"{value * 1e3:.2f} ms" if abs(value) >= 1e-3 else f"{value * 1e6:.1f} us"
    if unit == "B":
        return f"{value / 2**20:.1f} MiB"
    if unit in ("1/s", "B/s"):
        return f"{value / 1e9:.2f} G{unit.removeprefix('1')}"
    return f"{value:.2e}"


@dataclass
class Report:
    """The rows of one part; prints each when it is added."""

    part: str
    rows: list[Row] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    row_type: type[Row] = Row
    columns: str = COLUMNS

    def __post_init__(self) -> None:
        print(f"\n== {self.part}\n{self.columns}", flush=True)

    def add(self, case: str, what: str, subject: str, value: float | None, **more: Any) -> None:
        """Add a row; `more` are further fields of `row_type`."""
        row = self.row_type(self.part, case, what, subject, value, **more)
        self.rows.append(row)
        print(row.line(), flush=True)

    def fail(self, message: str) -> None:
        """Something computes the wrong thing: the run ends with code 1."""
        self.failures.append(message)
        print(f"WRONG: {message}", flush=True)

    def as_json(self) -> list[dict[str, Any]]:
        return [asdict(row) for row in self.rows]
