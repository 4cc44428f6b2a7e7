"""Sphinx: guides in Markdown, many of them the packages' READMEs, and the API from docstrings."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

project = "State space models for PyTorch"
author = "the contributors"
html_title = project

extensions = [
    "docsite.docstrings",
    "docsite.included",
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx_copybutton",
]
html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["wide_tables.css"]
html_show_copyright = False
html_copy_source = False
html_show_sourcelink = False

myst_heading_anchors = 3
copybutton_exclude = ".linenos, .gp, .go"

autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True  # as written, not what it evaluates to
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 90
default_role = "code"  # `name` in a docstring is code, as in Markdown

# Nothing is fetched while building, so names of other libraries lead nowhere. Nor do those of sets
# of words (`Literal`) and of type variables: signatures show them as they are.
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(?!ssm_)\w+\..*"),
    ("py:class", r"Dataset|Fabric|Figure|Graph|MetricCollection|Module|Path|Tensor"),
    ("py:class", r"DiagonalInit|Discretization|DtTransform|Format|RealTransform"),
    ("py:class", r"Images|PixelLogits|ssm_core\.config\.T"),
]
