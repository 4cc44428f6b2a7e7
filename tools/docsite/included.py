"""Links of files that pages include, such as a package's README: relative to where the file is.

A link to a file that a page includes becomes one to that page, a link to a section that a file does
not have one to the whole file, a picture is found from the
including page, and any other file of the repository is offered as it is.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

INCLUDE = re.compile(r"^```\{include\} (\S+)$", re.MULTILINE)
LINK = re.compile(r"(!?\[[^\]]*\]\()([^)\s]+)\)")


def included_files(docs: Path) -> dict[Path, Path]:
    """The files that pages below `docs` include, each with its (last) page."""
    return {
        (page.parent / name).resolve(): page
        for page in sorted(docs.rglob("*.md"))
        for name in INCLUDE.findall(page.read_text(encoding="utf-8"))
    }


def sections(file: Path) -> set[str]:
    """The anchors of a file's headings, as GitHub and MyST make them."""
    titles = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles}


def relink(text: str, file: Path, page: Path, pages: dict[Path, Path]) -> str:
    """The text of `file` with links that work on `page`.

    Raises:
        ExtensionError: a link leads to a file that does not exist.
    """

    def moved(match: re.Match[str]) -> str:
        start, target = match.groups()
        address, mark, anchor = target.partition("#")
        if not address or "://" in address or address.startswith("mailto:"):
            return match.group()
        aim = (file.parent / address).resolve()
        if not aim.exists():
            raise ExtensionError(f"{file}: the link {target} leads nowhere")
        if aim.is_dir():
            aim = aim / "README.md"
        if mark and anchor not in sections(aim):
            mark = anchor = ""  # the section is not there: the page is
        aim = pages.get(aim, aim)
        return f"{start}{os.path.relpath(aim, page.parent)}{mark}{anchor})"

    return LINK.sub(moved, text)


def setup(app: Sphinx) -> dict[str, bool]:
    docs = Path(app.srcdir)
    pages = included_files(docs)

    def on_include(app: Sphinx, path: Path, parent: str, content: list[str]) -> None:
        file = (docs / path).resolve()
        content[0] = relink(content[0], file, pages[file], pages)

    app.connect("include-read", on_include)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
