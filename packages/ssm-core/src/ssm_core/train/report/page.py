"""The page of a report: one HTML file that needs nothing else, no script and no network."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from html import escape
from pathlib import Path

import yaml

from ssm_core.specs import Picture, Remark
from ssm_core.train.report import tables
from ssm_core.train.report.facts import RunFacts
from ssm_core.train.report.figures import colour
from ssm_core.train.report.style import STYLE

#: what the page can hold, and its media type
IMAGES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".svg": "image/svg+xml",
}
#: matplotlib's pictures have 160 pixels per inch, a browser's inch has 96
PIXELS_PER_PIXEL = 96 / 160
#: keeps the promise that nothing is loaded or run, whatever a name or a picture holds
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


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
        _warnings(page.problems),
        _results(page.runs),
        "<p class=quiet>best: the best evaluation; last: the one at the end, of the weights that "
        "were kept; time: of the training, since its last start; examples/s: in training, loading "
        "included: the median epoch of the run's log, or measured for this report.</p>",
        _differences(page.runs),
        _pictures(common, "all runs"),
        "</section>",
        *(_run(place, page) for place in range(len(page.runs))),
        "<section><h2>Where the runs were trained</h2>",
        _machines(page.runs),
        "</section></main>",
        f"<footer>ssm-core {escape(__version__)}, {date.today().isoformat()}</footer>",
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(_title(page.runs))}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + "\n</body>\n</html>\n"
    )


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
    return _table("Results", header, rows)


def _differences(runs: Sequence[RunFacts]) -> str:
    """A table of the options in which runs differ; nothing if they do not."""
    found = tables.differences(runs)
    if not found:
        return ""
    header = ("option", *(run.name for run in runs))
    rows = [tuple(map(escape, row)) for row in found]
    return f"<h3>Options that differ</h3>{_table('Options that differ', header, rows)}"


def _machines(runs: Sequence[RunFacts]) -> str:
    found = [dict(tables.machine(run)) for run in runs]
    names = list(dict.fromkeys(name for facts in found for name in facts))
    rows = (
        (_name(i, run), *(escape(found[i].get(name, tables.UNKNOWN)) for name in names))
        for i, run in enumerate(runs)
    )
    return _table("Where the runs were trained", ("run", *names), rows)


def _table(label: str, header: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """A table that scrolls by itself; the cells of `rows` are HTML."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>'
        for row in rows
    )
    return (
        f'<div class=table role="region" tabindex="0" aria-label="{escape(label)}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _run(place: int, page: Page) -> str:
    run = page.runs[place]
    texts = [*run.problems, *(r.text for r in page.remarks if r.run == run.folder)]
    own = [picture for picture in page.pictures if picture.run == run.folder]
    options = escape(yaml.safe_dump(run.config, sort_keys=False)) if run.config else ""
    return (
        f'<section id="run-{place}"><h2>{_name(place, run)}</h2>{_warnings(texts)}'
        f"{_pictures(own, run.name)}"
        + (f"<details><summary>Options</summary><pre>{options}</pre></details>" if options else "")
        + "</section>"
    )


def _warnings(texts: Iterable[str]) -> str:
    return "".join(f"<p class=warning>{escape(text)}</p>" for text in texts)


def _pictures(pictures: Sequence[Picture], about: str) -> str:
    figures = "\n".join(_figure(picture, about) for picture in pictures)
    return f"<div class=pictures>\n{figures}\n</div>" if figures else ""


def _figure(picture: Picture, about: str) -> str:
    title = picture.title or picture.path.stem
    caption = f"<figcaption>{escape(picture.text)}</figcaption>" if picture.text else ""
    return (
        f"<figure><h3>{escape(title)}</h3>{_image(picture.path, f'{title}: {about}')}"
        f"{caption}</figure>"
    )


def _image(path: Path, alt: str) -> str:
    """The file inside the page; of what is no picture only the name."""
    kind = IMAGES.get(path.suffix.lower())
    if kind is None:
        return f"<p>{escape(path.name)}</p>"
    try:
        content = path.read_bytes()
    except OSError as error:
        return f"<p class=warning>{escape(f'{path}: {error.strerror}')}</p>"
    code = base64.b64encode(content).decode("ascii")
    return f'<img src="data:{kind};base64,{code}" alt="{escape(alt)}"{_width(content)}>'


def _width(content: bytes) -> str:
    """The width to show a PNG with; other pictures have their own."""
    if not content.startswith(b"\x89PNG\r\n\x1a\n") or len(content) < 24:
        return ""
    width = struct.unpack(">I", content[16:20])[0]
    return f' width="{round(width * PIXELS_PER_PIXEL)}"'
