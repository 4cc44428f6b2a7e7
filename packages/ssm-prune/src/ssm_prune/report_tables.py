"""The tables of a pruned run's page, as texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ssm_core.train.report.tables import UNKNOWN, number
from ssm_prune.models import MASKED, REMOVED

MOST_UPDATES = 100


@dataclass(frozen=True)
class Table:
    """Texts in rows and columns.

    Attributes:
        folded: if not empty, the table is behind these words.
        note: a sentence below it.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    folded: str = ""
    note: str = ""


def costs_table(report: Mapping[str, Any]) -> Table:
    """Parameters, non-zero ones, bytes, operations and latency, dense and pruned."""
    costs, latency = report.get("costs"), report.get("latency", {})
    if costs is None:
        return Table((), ())
    state = report["state"]
    names = {
        "parameters": "parameters",
        "nonzero": "parameters that are not 0",
        "bytes": "bytes of parameters and buffers",
        "flops": "operations per example (FLOPs)",
    }
    rows = [
        (title, *(_whole(costs[which][key]) for which in ("dense", "pruned")),
         _times(costs["dense"][key], costs["pruned"][key]), state)
        for key, title in names.items()
    ]  # fmt: skip
    if "ratio" in latency:
        between = f"{latency['ratio']:.3f} ({latency['low']:.3f} to {latency['high']:.3f})"
        times = (f"{latency[key]:.3f} ms" for key in ("first_ms", "second_ms"))
        rows.append(("latency, batch 1", *times, between, state))
    return Table(("", "dense", "pruned", "dense / pruned", "state"), rows, note=_costs_note(report))


def _costs_note(report: Mapping[str, Any]) -> str:
    costs, latency = report["costs"], report.get("latency", {})
    notes = [report["note"]]
    if costs["pruned"]["note"]:
        notes.append(costs["pruned"]["note"] + ".")
    if costs["pruned"]["by_operator"]:
        shares = costs["pruned"]["by_operator"].items()
        listed = ", ".join(f"{name} {count:,}" for name, count in shares)
        notes.append(f"Operations by operator after pruning: {listed}.")
    if "ratio" in latency:
        notes.append(
            f"Latency: medians of {latency['repetitions']} runs of each model in turn on "
            f"{latency['device']} with {latency['threads']} CPU threads, when this page was "
            "written; in brackets the middle 95 % of bootstrap samples."
        )
    return " ".join(notes)


def methods_table(report: Mapping[str, Any]) -> Table:
    """The methods of a stack, and what each has reached; empty for one method alone."""
    stack = report.get("stack", ())
    rows = [
        (one["method"], one["provider"], one["units"], f"{one['requested_sparsity']:.2%}",
         f"{one['achieved_sparsity']:.2%}", f"{one['schedule']['begin']:,}",
         REMOVED if one["removals"] else MASKED)
        for one in (report, *stack)
    ]  # fmt: skip
    header = ("method", "provider", "units", "requested", "achieved", "from step", "state")
    whole = f"{report['removed_weights']:,} of {report['prunable_weights']:,}"
    note = f"Together, {whole} prunable weights of the model as it is now are masked."
    return Table(header, rows, note=note) if stack else Table((), ())


def achieved(update: Mapping[str, Any]) -> float:
    """Share of the weights that masks can reach which a mask update left at zero."""
    return float(update["pruned"]) / max(1, update["total"])


def updates_table(report: Mapping[str, Any]) -> Table:
    """Requested and achieved sparsity at the mask updates, at most `MOST_UPDATES` of them."""
    updates = report["updates"]
    every = max(1, -(-len(updates) // MOST_UPDATES))
    shown = [u for i, u in enumerate(updates) if i % every == 0 or i == len(updates) - 1]
    rows = [
        (f"{u['step']:,}", f"{u['target']:.2%}", f"{achieved(u):.2%}", f"{u['pruned']:,}",
         MASKED)
        for u in shown
    ]  # fmt: skip
    header = ("optimizer step", "requested", "achieved", "weights gone", "state")
    return Table(header, rows, f"{len(updates)} mask updates" + _of(len(shown), len(updates)))


def _of(shown: int, total: int) -> str:
    return f", {shown} of them" if shown < total else ""


def levels_table(report: Mapping[str, Any]) -> Table:
    """One row per level of an iterative method: the last mask update of each."""
    last = {u["level"]: u for u in report["updates"] if u.get("level") is not None}
    rows = [
        (str(level), f"{u['step']:,}", f"{u['target']:.2%}", f"{achieved(u):.2%}",
         f"{u['total'] - u['pruned']:,}", *(_cell(u.get(key)) for key in _extra(last)), MASKED)
        for level, u in last.items()
    ]  # fmt: skip
    header = (
        "level",
        "optimizer step",
        "requested",
        "achieved",
        "weights left",
        *_extra(last),
        "state",
    )
    return Table(header, rows)


def _extra(levels: Mapping[Any, Mapping[str, Any]]) -> list[str]:
    """Further numbers that a method noted per level, such as an accuracy."""
    known = {"step", "target", "pruned", "total", "level", "removed", "distances"}
    keys = dict.fromkeys(key for update in levels.values() for key in update)
    return [
        key
        for key in keys
        if key not in known and all(isinstance(u.get(key), int | float) for u in levels.values())
    ]


def removals_table(report: Mapping[str, Any]) -> Table:
    """When units were taken out of the model, and how many were left."""
    rows = [
        (f"{r['step']:,}", f"{r['left']:,} of {r['of']:,} {report['units']}", REMOVED)
        for r in report.get("removals", ())
    ]
    return Table(("optimizer step", "left", "state"), rows)


def vetoes_table(report: Mapping[str, Any]) -> Table:
    """Proposals that plugins stopped, and why."""
    stopped = report.get("stopped_proposals", ())
    rows = [(f"{veto['step']:,}", "; ".join(veto["problems"])) for veto in stopped]
    return Table(("optimizer step", "problems"), rows)


def tensors_table(report: Mapping[str, Any]) -> Table:
    """Every tensor: what became of it, and what the policy says."""
    rows = [
        (
            t["name"],
            " × ".join(map(str, t["shape"])) or "scalar",
            f"{t['removed']:,} of {t['weights']:,}",
            f"{t['sparsity']:.1%}",
            t.get("state", report["state"] if t["removed"] else "dense"),
            ("yes" if t["cap"] == 1 else f"up to {t['cap']:.0%}") if t["may_be_pruned"] else "no",
            t["reason"],
        )
        for t in report["tensors"]
    ]
    header = ("tensor", "shape", "weights gone", "sparsity", "state", "may be pruned", "reason")
    return Table(header, rows)


def facts_table(report: Mapping[str, Any]) -> Table:
    """Method, versions, seed, and the machines of training and measurement."""
    schedule = report["schedule"]
    facts = {
        "method": f"{report['method']} of {report['provider']}",
        "recipe": report.get("recipe"),
        "seed": report.get("seed"),
        "schedule": f"{schedule['ramp']} from step {schedule['begin']} to {schedule['end']}, every "
        f"{schedule['every']}" + ("" if schedule["finished"] else ", not finished"),
        **{f"trained: {name}": value for name, value in report.get("trained", {}).items()},
        "measured: device": report.get("latency", {}).get("device"),
        "measured: torch": report.get("latency", {}).get("versions", {}).get("torch"),
    }
    return Table(("", ""), [(k, str(v)) for k, v in facts.items() if v is not None])


def _whole(count: int | None) -> str:
    return UNKNOWN if count is None else f"{count:,}"


def _times(dense: int | None, pruned: int | None) -> str:
    return f"{dense / pruned:.3f}" if dense and pruned else UNKNOWN


def _cell(value: Any) -> str:
    return number(value) if isinstance(value, float) else str(value)
