"""Commands that install, build or measure: what they name exists; they are not run."""

from __future__ import annotations

import importlib.util
import itertools
import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
BRACES = re.compile(r"\{([^{}]*)\}")
#: modules whose command prints and ends
PRINTING = {"ssm_kernels"}


class BrokenExample(Exception):  # noqa: N818
    """A command in the documentation that does not work."""


def make(words: list[str]) -> str:
    """`make TARGET [NAME=VALUE ...]`: the targets are in the Makefile."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in words:
        if "=" not in word and not re.search(rf"^{re.escape(word)}:", text, re.MULTILINE):
            raise BrokenExample(f"make {word}: no such target")
    return "builds"


def pip(words: list[str]) -> str:
    """`pip install ...`: folders hold packages, our packages have the extras, others are known."""
    if words[:1] != ["install"]:
        raise BrokenExample(f"pip {' '.join(words)}: expected `pip install`")
    for word in itertools.chain.from_iterable(map(_expanded, words[1:])):
        if word.startswith("./"):
            _manifest(ROOT / word.partition("[")[0])
        elif not word.startswith("-"):
            _check_name(word)
    return "installs"


def python(words: list[str]) -> str:
    """`python -m MODULE` or `python FILE`: it exists, or runs if all it does is print."""
    if words[0] == "-m":
        if importlib.util.find_spec(words[1]) is None:
            raise BrokenExample(f"python -m {words[1]}: no such module")
        if words[1] == "ssm_kernels.compat":
            return _with_stand_ins(words[2:])
        if words[1] not in PRINTING:
            return "takes long"
        sys.modules.pop(f"{words[1]}.__main__", None)  # runpy warns of what was imported before
        with mock.patch("sys.argv", words[1:]):
            runpy.run_module(words[1], run_name="__main__")
        return "ran"
    if not (ROOT / words[0]).is_file():
        raise BrokenExample(f"python {words[0]}: no such file")
    return "takes long"


def _with_stand_ins(words: list[str]) -> str:
    """`python -m ssm_kernels.compat SCRIPT`, after which this process is as it was."""
    from ssm_kernels import compat
    from ssm_kernels.compat.__main__ import main

    try:
        with mock.patch("sys.argv", []), mock.patch("sys.path", [*sys.path]):
            main(words)
    except SystemExit as error:
        raise BrokenExample(f"ssm_kernels.compat {' '.join(words)}: exit {error.code}") from error
    finally:
        compat.uninstall()
    return "ran"


def _expanded(word: str) -> Iterator[str]:
    """What a shell makes of a{b,c}d."""
    found = BRACES.search(word)
    if found is None:
        yield word
        return
    for part in found[1].split(","):
        yield from _expanded(word[: found.start()] + part + word[found.end() :])


def _check_name(word: str) -> None:
    """One of our packages with extras that it has, or one that is pinned."""
    match = re.fullmatch(r"([\w.-]+)(?:\[([\w,-]+)\])?", word)
    name, extras = match.groups() if match else (word, None)
    if name.startswith("ssm-"):
        text = _manifest(ROOT / "packages" / name)
        for extra in (extras or "").split(",") if extras else ():
            if not re.search(rf"^{re.escape(extra)} = \[", text, re.MULTILINE):
                raise BrokenExample(f"pip install {word}: no extra {extra}")
    elif f"\n{name}==" not in (ROOT / "tools" / "constraints.txt").read_text(encoding="utf-8"):
        raise BrokenExample(f"pip install {word}: not in tools/constraints.txt")


def _manifest(folder: Path) -> str:
    file = folder / "pyproject.toml"
    if not file.is_file():
        raise BrokenExample(f"pip install: no package in {folder}")
    return file.read_text(encoding="utf-8")
