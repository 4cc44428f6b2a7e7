"""One page of the documentation, whose code runs from top to bottom as a reader would run it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import yaml

from docsite.blocks import Block
from docsite.commands import PROGRAMS, Commands
from docsite.programs import BrokenExample
from ssm_core.plugins import PluginHost

HOOK = "ssm_"


class Page:
    """Python blocks share one module; what they register is there for the page's commands.

    Args:
        host: the plugin host of this page alone.
        drawn: see `Commands`; shared by all pages.
    """

    def __init__(self, host: PluginHost, drawn: set[str]) -> None:
        self.host = host
        self.module = ModuleType("page")
        self.commands = Commands(host, vars(self.module), drawn)

    def run(self, block: Block) -> None:
        """Run a block, or read it if it is data; results and diagrams are only shown.

        Raises:
            BrokenExample: a command fails, or the language is none that is known here.
            Exception: whatever Python code raises.
        """
        if block.file:
            Path(block.file).write_text(block.text, encoding="utf-8")
        elif block.language in ("python", "setup") or (
            not block.language and block.text.startswith(("import ", "from "))
        ):
            self._python(block)
        elif block.language == "sh" or (not block.language and _is_command(block.text)):
            self.commands.run(block.text, block.options, block.only_checked)
        elif block.language == "command":
            self.commands.run(" ".join(block.text.split()), only_checked="within a sentence")
        elif block.language == "yaml":
            yaml.safe_load(block.text)
        elif block.language == "toml":
            _toml(block.text)
        elif block.language not in ("", "text") and not block.language.startswith("{"):
            raise BrokenExample(f"{block.place}: cannot run {block.language!r}")

    def _python(self, block: Block) -> None:
        names = vars(self.module)
        before = {name: names[name] for name in names if name.startswith(HOOK)}
        # as a module that can be imported: configurations are looked up by their module's name
        sys.modules["page"] = self.module
        try:
            exec(compile(block.text, block.place, "exec", dont_inherit=True), names)
        finally:
            del sys.modules["page"]
        hooks = {
            name: value
            for name, value in names.items()
            if name.startswith(HOOK) and value is not before.get(name)
        }
        if any(hasattr(self.host.manager.hook, name) for name in hooks):
            self.host.register(SimpleNamespace(**hooks), block.place, name=block.place)
            vars(self.host).pop("_tables", None)  # collected anew


def _is_command(text: str) -> bool:
    words = text.split(maxsplit=1)
    return bool(words) and words[0] in PROGRAMS


def _toml(text: str) -> None:
    if sys.version_info >= (3, 11):
        import tomllib

        tomllib.loads(text)
