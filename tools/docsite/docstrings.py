"""Docstrings in Google's style as ours are written, and links to names without their module.

Types stand in the signatures, so "Returns:" and the text of a property are prose. Napoleon would
read "The final state: what the next piece starts from" as a type and its description.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.ext.napoleon import Config, GoogleDocstring

#: a bar outside `code`, which stands for an absolute value or "or", never for a substitution
PIPE = re.compile(r"((?:`[^`]*`|[^`|])*)\|")
#: one entry for several arguments; the first would be taken for the type of the last
SEVERAL = re.compile(r"^:(?:param|ivar) \w+(?:, \w+)+:")
CLASS = re.compile(r"<class '(?:\w+\.)*(\w+)'>")
#: objects that an annotation or "Raises:" may name
KINDS = ("class", "exception", "data")
CONFIG: Any = Config(napoleon_google_docstring=True, napoleon_use_ivar=True)


class Docstring(GoogleDocstring):
    """Google's style whose "Returns:" has no type."""

    def _consume_returns_section(
        self, preprocess_types: bool = False
    ) -> list[tuple[str, str, list[str]]]:
        lines = self._dedent(self._consume_to_next_section())
        return [("", "", lines)] if lines else []


def parse(app: Sphinx, what: Any, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Turn the sections of a docstring into fields, in place."""
    if what in ("attribute", "data", "property"):
        what = "method"  # else the first line's text before a colon would be its type
    text = [PIPE.sub(r"\1\|", line) for line in lines]
    parsed = Docstring(text, CONFIG, app, what, name, obj, options).lines()
    lines[:] = [SEVERAL.sub(lambda found: found.group().replace(", ", ","), x) for x in parsed]


def name_factories(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str | None, result: str
) -> tuple[str | None, str]:
    """Defaults as Python: "..." where they are made anew, the name of a class."""
    if signature is not None:
        signature = CLASS.sub(r"\1", signature.replace("<factory>", "..."))
    return signature, result


def find_short_name(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: nodes.TextElement
) -> nodes.reference | None:
    """Resolve "ConfigError" when exactly one object on all pages has that name."""
    if node.get("refdomain") != "py" or "." in node["reftarget"]:
        return None
    domain = env.domains.python_domain
    found = {
        (entry.docname, entry.node_id)
        for name, entry in domain.objects.items()
        if name.rpartition(".")[2] == node["reftarget"] and entry.objtype in KINDS
    }
    if len(found) != 1:
        return None
    page, anchor = found.pop()
    address = app.builder.get_relative_uri(node["refdoc"], page)
    return nodes.reference("", "", contnode, internal=True, refuri=f"{address}#{anchor}")


def setup(app: Sphinx) -> dict[str, bool]:
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", parse)
    app.connect("autodoc-process-signature", name_factories)
    app.connect("missing-reference", find_short_name)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
