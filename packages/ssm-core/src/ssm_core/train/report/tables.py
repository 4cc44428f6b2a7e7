"""Facts about runs as the texts of tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ssm_core.train.report.facts import RunFacts

HEADER = (
    "run", "state", "parameters", "steps", "metric", "best", "last", "eval loss", "time",
    "examples/s",
)  # fmt: skip
#: of versions.json, in the table of where the runs were trained
PACKAGES = ("python", "torch", "ssm-kernels", "ssm-core", "ssm-vision", "ssm-text", "ssm-prune")
UNKNOWN = "-"


def row(run: RunFacts) -> tuple[str, ...]:
    """The row of a run under `HEADER`."""
    count = run.status.get("parameters")
    best = run.best
    return (
        run.name,
        str(run.status.get("state", "unfinished")),
        f"{count:,}" if count is not None else UNKNOWN,
        str(run.status.get("step", UNKNOWN)),
        run.monitor,
        number(best[1] if best is not None else None),
        number(run.last(run.monitor)),
        number(run.last("loss")),
        duration(run.status.get("seconds")),
        rate(run),
    )


def differences(runs: Sequence[RunFacts]) -> list[tuple[str, ...]]:
    """The options that all runs have, not all with the same value: (option, value in each run).

    What only some models have is left out: two models may not share an option at all.
    """
    flat = [_flat(run.config) for run in runs if run.config]
    names = [name for name in flat[0] if all(name in options for options in flat)] if flat else []
    rows = [(name, *(_flat(run.config).get(name, UNKNOWN) for run in runs)) for name in names]
    return [row for row in rows if len(set(row[1:]) - {UNKNOWN}) > 1]


def _flat(config: Mapping[str, Any]) -> dict[str, str]:
    """section.key -> value."""
    return {
        f"{section}.{key}": str(value)
        for section, options in config.items()
        if isinstance(options, Mapping)
        for key, value in options.items()
    }


def number(value: float | None) -> str:
    """Four digits after the point."""
    return UNKNOWN if value is None else f"{value:.4f}"


def rate(run: RunFacts) -> str:
    """Throughput; one that was not logged is marked."""
    if run.throughput is None:
        return UNKNOWN
    return f"{run.throughput}" + (" (measured)" if run.throughput.measured else "")


def duration(seconds: float | None) -> str:
    """Seconds as 12.3 s, 4 min 05 s or 3 h 20 min."""
    if seconds is None:
        return UNKNOWN
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def machine(run: RunFacts) -> tuple[tuple[str, str], ...]:
    """(what, which) about where a run was trained: device, precision, processor, packages."""
    device = run.status.get("device") or run.option("trainer", "accelerator")
    facts = {
        "device": device,
        "precision": run.option("trainer", "precision"),
        "processor": run.versions.get("processor"),
        "system": run.versions.get("platform"),
    }
    facts |= {name: run.versions[name] for name in PACKAGES if name in run.versions}
    return tuple((name, str(value or UNKNOWN)) for name, value in facts.items())
