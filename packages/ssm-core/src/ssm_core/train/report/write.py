"""Put a report together: pictures, report.md and report.html."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssm_core.errors import SsmError
from ssm_core.plugins import PluginHost
from ssm_core.specs import Picture, Remark
from ssm_core.train.checkpoint import write_text
from ssm_core.train.folder import check_run_folder
from ssm_core.train.report.facts import RunFacts, facts_of, run_names
from ssm_core.train.report.figures import draw_curves
from ssm_core.train.report.page import Page, html
from ssm_core.train.report.parts import IMAGES
from ssm_core.train.report.tables import HEADER, row
from ssm_core.train.report.throughput import measure
from ssm_core.train.report.tradeoffs import comparable, draw_tradeoffs

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Report:
    """Rows of the table and the files that were written, report.html first."""

    rows: list[tuple[str, ...]]
    files: list[Path]


def report(host: PluginHost, runs: Sequence[Path], folder: Path) -> Report:
    """Write report.html, report.md and pictures about `runs` into `folder`.

    Runs that share data and metric with another one, but whose log has no throughput, are timed.
    What is wrong with a run is named on stderr and in the report, and stops nothing.

    Raises:
        ConfigError: one of `runs` is not a run folder.
    """
    for run in runs:
        check_run_folder(run)
    folder.mkdir(parents=True, exist_ok=True)
    facts = [facts_of(host, run, name) for run, name in zip(runs, run_names(runs), strict=True)]
    for places in comparable(facts).values():
        for place in places:
            _time(host, facts[place])
    for run_facts in facts:
        for problem in run_facts.problems:
            log.warning("%s: %s", run_facts.name, problem)
    curves = draw_curves(facts, folder / "curves.png")
    common = [curves] if curves is not None else []
    common += draw_tradeoffs(facts, folder)
    items, problems = _ask_plugins(host, runs, folder)
    remarks = [item for item in items if isinstance(item, Remark)]
    pictures = common + [item for item in items if isinstance(item, Picture)]
    rows = [row(run) for run in facts]
    write_text(folder / "report.md", _markdown(rows, pictures, remarks))
    write_text(folder / "report.html", html(Page(facts, pictures, remarks, problems)))
    files = [folder / "report.html", folder / "report.md", *(p.path for p in pictures)]
    return Report(rows, files)


def _time(host: PluginHost, run: RunFacts) -> None:
    if run.throughput is None:
        try:
            run.throughput = measure(host, run.folder)
        except SsmError as error:
            run.problems.append(f"its throughput cannot be measured: {error}")


def _ask_plugins(
    host: PluginHost, runs: Sequence[Path], folder: Path
) -> tuple[list[Picture | Remark], list[str]]:
    """What plugins draw and say, and what is wrong with plugins that fail."""
    items: list[Picture | Remark] = []
    problems = []
    for hook in host.manager.hook.ssm_report.get_hookimpls():
        given: dict[str, Any] = {"runs": list(runs), "folder": folder}
        try:
            answer: Any = hook.function(**{name: given[name] for name in hook.argnames})
            found: list[Path | Picture | Remark] = list(answer)
        except Exception as error:  # a foreign plugin must not take the tables and curves away
            problems.append(f"plugin {hook.plugin_name} has failed: {error!r}")
            log.warning("%s", problems[-1])
        else:
            items += [Picture(item) if isinstance(item, Path) else item for item in found]
    return items, problems


def _markdown(
    rows: Sequence[Sequence[str]], pictures: Sequence[Picture], remarks: Sequence[Remark]
) -> str:
    lines = ["# Report", "", "| " + " | ".join(HEADER) + " |", "|" + "---|" * len(HEADER)]
    lines += ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in rows]
    lines += ["", *(f"- {remark.run.name}: {remark.text}" for remark in remarks), ""]
    for picture in pictures:
        mark = "!" if picture.path.suffix.lower() in IMAGES else ""
        lines += [f"{mark}[{picture.title or picture.path.stem}]({picture.path.name})", ""]
    return "\n".join(lines)
