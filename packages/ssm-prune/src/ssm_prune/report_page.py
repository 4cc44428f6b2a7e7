"""The page of a pruned run: one HTML file that needs nothing else, no script and no network."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from html import escape
from pathlib import Path
from typing import Any

from ssm_core.specs import Picture
from ssm_core.train.checkpoint import write_text
from ssm_core.train.report import parts
from ssm_prune.loader import PrunePlugins
from ssm_prune.report_pictures import draw_pictures
from ssm_prune.report_section import Section
from ssm_prune.report_tables import (
    Table,
    costs_table,
    facts_table,
    levels_table,
    methods_table,
    removals_table,
    tensors_table,
    updates_table,
    vetoes_table,
)

log = logging.getLogger(__name__)

#: characters; a longer text in a table is broken into lines
LONG = 48


def write_page(report: Mapping[str, Any], path: Path, name: str, plugins: PrunePlugins) -> None:
    """Write the page about a completed report (`ssm_prune.report_run`), atomically.

    Args:
        name: what to call the run.
        plugins: are asked for further sections; one that fails is named on the page.
    """
    sections, problems = _ask(report, plugins)
    with tempfile.TemporaryDirectory() as folder:  # the page takes the pictures in
        pictures = draw_pictures(report, Path(folder))
        warnings = [*report.get("problems", ()), *problems]
        write_text(path, _html(report, name, pictures, sections, warnings))


def _html(
    report: Mapping[str, Any],
    name: str,
    pictures: Sequence[Picture],
    sections: Sequence[Section],
    problems: Sequence[str],
) -> str:
    from ssm_prune import __version__

    title = f"{name}: pruned with {report['method']}"
    body = [
        f"<header><h1>{escape(title)}</h1></header><main>",
        f"<p>{escape(_summary(report))}</p>",
        parts.warnings(problems),
        _section("Before and after", costs_table(report)),
        _section("Methods", methods_table(report)),
        _section("Sparsity", updates_table(report), parts.pictures(pictures, name)),
        _section("Levels", levels_table(report)),
        _section("Taken out of the model", removals_table(report)),
        _section("Proposals that were stopped", vetoes_table(report)),
        _section("Tensors", tensors_table(report)),
        *(_foreign(section, name) for section in sections),
        _section("Where these figures come from", facts_table(report)),
        "</main>",
        f"<footer>ssm-prune {escape(__version__)}, {date.today().isoformat()}</footer>",
    ]
    return parts.document(title, body)


def _summary(report: Mapping[str, Any]) -> str:
    return (
        f"{report['state'].capitalize()}: {report['achieved_sparsity']:.2%} of the prunable "
        f"{report['units']} are gone, requested were {report['requested_sparsity']:.2%}. "
        f"{report['note']}"
    )


def _section(title: str, table: Table, before: str = "") -> str:
    """A part of the page; nothing where there is nothing to show."""
    if not table.rows and not before:
        return ""
    shown = parts.table(title, table.header, _escaped(table.rows)) if table.rows else ""
    if shown and table.folded:
        shown = f"<details><summary>{escape(table.folded)}</summary>{shown}</details>"
    note = f"<p class=quiet>{escape(table.note)}</p>" if table.note else ""
    return f"<section><h2>{escape(title)}</h2>{before}{shown}{note}</section>"


def _foreign(section: Section, about: str) -> str:
    table = Table(section.header, section.rows)
    text = f"<p>{escape(section.text)}</p>" if section.text else ""
    if section.picture is not None:
        text += parts.pictures([Picture(section.picture, None, section.title)], about)
    return _section(section.title, table, text)


def _escaped(rows: Iterable[Sequence[str]]) -> list[tuple[str, ...]]:
    return [tuple(_cell(str(text)) for text in row) for row in rows]


def _cell(text: str) -> str:
    """A sentence may take several lines, a name or a number may not."""
    return escape(text) if len(text) <= LONG else f"<span class=words>{escape(text)}</span>"


def _ask(report: Mapping[str, Any], plugins: PrunePlugins) -> tuple[list[Section], list[str]]:
    """The sections of plugins, and what is wrong with plugins that fail."""
    sections: list[Section] = []
    problems = []
    for hook in plugins.hook.ssm_prune_report.get_hookimpls():
        try:
            found = list(hook.function(**{name: report for name in hook.argnames}))
            if not all(isinstance(section, Section) for section in found):
                raise TypeError(f"ssm_prune_report returned {found!r}, expected Sections")
        except Exception as error:  # a foreign plugin must not take the rest of the page away
            problems.append(f"plugin {hook.plugin_name} has failed: {error!r}")
            log.warning("%s", problems[-1])
        else:
            sections += found
    return sections, problems
