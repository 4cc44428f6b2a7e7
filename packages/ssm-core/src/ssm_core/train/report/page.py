"""The page of a report about runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from html import escape

import yaml

from ssm_core.specs import Picture, Remark
from ssm_core.train.report import parts, tables
from ssm_core.train.report.facts import RunFacts
from ssm_core.train.report.figures import colour


@dataclass(frozen=True)
class Page:
    """What the page is about; `problems` are those of the report as a whole."""

    runs: Sequence[RunFacts]
    pictures: Sequence[Picture]
    remarks: Sequence[Remark]
    problems: Sequence[str] = ()


def html(page: Page) -> str:
    """The page as a text; whatever users named is escaped."""
    from ssm_core import __version__

    folders = {run.folder for run in page.runs}
    common = [picture for picture in page.pictures if picture.run not in folders]
    body = [
        f"<header><h1>{escape(_title(page.runs))}</h1>{_contents(page.runs)}</header>",
        "<main>",
        "<section><h2>Results</h2>",
        parts.warnings(page.problems),
        _results(page.runs),
        "<p class=quiet>best: the best evaluation; last: the one at the end, of the weights that "
        "were kept; time: of the training, since its last start; examples/s: in training, loading "
        "included: the median epoch of the run's log, or measured for this report.</p>",
        _differences(page.runs),
        parts.pictures(common, "all runs"),
        "</section>",
        *(_run(place, page) for place in range(len(page.runs))),
        "<section><h2>Where the runs were trained</h2>",
        _machines(page.runs),
        "</section></main>",
        f"<footer>ssm-core {escape(__version__)}, {date.today().isoformat()}</footer>",
    ]
    return parts.document(_title(page.runs), body)


def _title(runs: Sequence[RunFacts]) -> str:
    if len(runs) == 1:
        return runs[0].name
    recipes = dict.fromkeys(run.recipe for run in runs)
    return f"{len(runs)} runs of {', '.join(recipes)}"


def _contents(runs: Sequence[RunFacts]) -> str:
    if len(runs) == 1:
        return ""
    items = (f'<li><a href="#run-{i}">{_name(i, run)}</a></li>' for i, run in enumerate(runs))
    return f'<nav aria-label="Runs"><ul>{"".join(items)}</ul></nav>'


def _name(place: int, run: RunFacts) -> str:
    swatch = f'<span class=swatch style="background:{colour(place)}" aria-hidden="true"></span>'
    return swatch + escape(run.name)


def _results(runs: Sequence[RunFacts]) -> str:
    header = ("run", "recipe", "data", *tables.HEADER[1:])
    rows = (
        (_name(i, run), *map(escape, (run.recipe, run.data, *tables.row(run)[1:])))
        for i, run in enumerate(runs)
    )
    return parts.table("Results", header, rows)


def _differences(runs: Sequence[RunFacts]) -> str:
    """A table of the options in which runs differ; nothing if they do not."""
    found = tables.differences(runs)
    if not found:
        return ""
    header = ("option", *(run.name for run in runs))
    rows = [tuple(map(escape, row)) for row in found]
    return f"<h3>Options that differ</h3>{parts.table('Options that differ', header, rows)}"


def _machines(runs: Sequence[RunFacts]) -> str:
    found = [dict(tables.machine(run)) for run in runs]
    names = list(dict.fromkeys(name for facts in found for name in facts))
    rows = (
        (_name(i, run), *(escape(found[i].get(name, tables.UNKNOWN)) for name in names))
        for i, run in enumerate(runs)
    )
    return parts.table("Where the runs were trained", ("run", *names), rows)


def _run(place: int, page: Page) -> str:
    run = page.runs[place]
    texts = [*run.problems, *(r.text for r in page.remarks if r.run == run.folder)]
    own = [picture for picture in page.pictures if picture.run == run.folder]
    options = escape(yaml.safe_dump(run.config, sort_keys=False)) if run.config else ""
    return (
        f'<section id="run-{place}"><h2>{_name(place, run)}</h2>{parts.warnings(texts)}'
        f"{parts.pictures(own, run.name)}"
        + (f"<details><summary>Options</summary><pre>{options}</pre></details>" if options else "")
        + "</section>"
    )
