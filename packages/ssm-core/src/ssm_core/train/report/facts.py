"""What a run folder says about its run; damaged files are named and do not stop anything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ssm_core.errors import SsmError
from ssm_core.plugins import PluginHost
from ssm_core.train.folder import read_status, read_versions
from ssm_core.train.loggers import read_metrics
from ssm_core.train.report.throughput import Throughput, from_log
from ssm_core.train.resolve import read_yaml
from ssm_core.train.restore import read_task

T = TypeVar("T")
Curves = dict[str, list[tuple[int, float]]]


@dataclass
class RunFacts:
    """What is known about a run; None, or an empty mapping, where nobody knows.

    Attributes:
        folder, name: where it is, and what the report calls it.
        config: the sections of config.yaml.
        status: status.json.
        versions: versions.json: interpreter, packages, machine.
        curves: metrics.csv, name -> [(step, value), ...].
        higher_is_better: direction of the monitored metric.
        throughput: of the training.
        problems: what could not be read, one sentence each.
    """

    folder: Path
    name: str
    config: dict[str, Any] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    curves: Curves = field(default_factory=dict)
    higher_is_better: bool | None = None
    throughput: Throughput | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def recipe(self) -> str:
        """The recipe it started from."""
        return str(self.config.get("recipe", "-"))

    @property
    def data(self) -> str:
        """The name of its data set."""
        return str(self.option("data", "name") or "-")

    @property
    def monitor(self) -> str:
        """The name of the metric that tables show."""
        return str(self.status.get("monitor", "loss"))

    @property
    def best(self) -> tuple[int, float] | None:
        """Step and value of the best evaluation; None where the direction is unknown."""
        points = self.curves.get(f"eval/{self.monitor}", [])
        if not points or self.higher_is_better is None:
            return None
        return (max if self.higher_is_better else min)(points, key=lambda point: point[1])

    def last(self, metric: str) -> float | None:
        """The value of a metric, e.g. "loss", at the last evaluation."""
        points = self.curves.get(f"eval/{metric}", [])
        return points[-1][1] if points else None

    def option(self, section: str, key: str) -> Any:
        """An option of the run, or None."""
        options = self.config.get(section)
        return options.get(key) if isinstance(options, dict) else None


def facts_of(host: PluginHost, run: Path, name: str) -> RunFacts:
    """Read a run folder; `problems` tells what could not be read."""
    facts = RunFacts(run, name)
    facts.config = _read(facts, lambda: read_yaml(run / "config.yaml"), {})
    facts.status = _read(facts, lambda: read_status(run), {})
    facts.versions = _read(facts, lambda: read_versions(run), {})
    facts.curves = _read(facts, lambda: _curves(run), {})
    facts.higher_is_better = _read(facts, lambda: read_task(host, run).higher_is_better, None)
    facts.throughput = from_log(
        [seconds for _, seconds in facts.curves.get("time/step_s", [])],
        facts.option("loader", "batch_size"),
        facts.option("trainer", "eval_every"),
    )
    return facts


def _read(facts: RunFacts, read: Callable[[], T], otherwise: T) -> T:
    try:
        return read()
    except SsmError as error:
        facts.problems.append(str(error))
        return otherwise


def _curves(run: Path) -> Curves:
    path = run / "metrics.csv"
    try:
        return read_metrics(path)
    except (OSError, KeyError, UnicodeDecodeError) as error:
        raise SsmError(f"{path}: missing or damaged") from error


def run_names(runs: Sequence[Path]) -> list[str]:
    """What to call each run: its folder's name, with the folders above it where names repeat."""
    parts = [run.resolve().parts for run in runs]
    names = []
    for own in parts:
        length = 1
        while length < len(own) and sum(other[-length:] == own[-length:] for other in parts) > 1:
            length += 1
        names.append("/".join(own[-length:]))
    return names
