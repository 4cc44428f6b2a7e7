"""Runs the commands that pages show, in this process and with small budgets.

Commands that train run for a few steps where the data comes with the packages; where it would have
to be downloaded, and for what installs or builds, every name and option is checked instead.
"""

from __future__ import annotations

import contextlib
import glob
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from unittest import mock

from jsonargparse import ArgumentParser

from docsite import programs
from docsite.programs import BrokenExample
from ssm_core.bench.command import bench_command
from ssm_core.cli import main as ssm_train
from ssm_core.cli.fit import fit_command, recipe_and_config
from ssm_core.plugins import PluginHost
from ssm_prune.cli.main import main as ssm_prune

#: data sets that are there without a download -> options for a training of a moment
BUDGETS = {
    "digits": "--trainer.max_steps 20",
    "python-stdlib": "--trainer.max_steps 2 --data.max_bytes 300000 --loader.eval_batch_size 16",
    "text-file": "--trainer.max_steps 2",
}
#: commands that draw for seconds: run on the first page that shows them, on others what they name
#: has to exist
DRAWING = ("report", "delta")
#: words that stand for a value unless the page's setup says otherwise
PLACEHOLDERS = {"NAME": "digits-bimamba", "RECIPE": "digits-bimamba", "METHOD": "dynamic-cosine"}
#: owners of models on the Hugging Face hub, which tests do not reach
HUB = ("state-spaces/", "EleutherAI/")
#: where runs are, the newest of which is RUN
RUNS = "runs/*-[0-9][0-9][0-9]"


class Reached(Exception):  # noqa: N818
    """A benchmark has read its options."""


class Commands:
    """The commands of one page, run one after another in the current folder.

    Args:
        host: the plugin host of the page.
        names: what capital words stand for; the page's variables.
        drawn: drawing commands that some page has run; added to.

    Attributes:
        done: each command with "ran" or why it was only checked.
    """

    def __init__(self, host: PluginHost, names: Mapping[str, Any], drawn: set[str]) -> None:
        self.host, self.names, self.drawn = host, names, drawn
        self.done: list[tuple[str, str]] = []

    def run(self, text: str, options: str = "", only_checked: str = "") -> None:
        """Run all commands of a block; raises `BrokenExample` for the first that fails."""
        for line in text.replace("\\\n", " ").splitlines():
            words = self._words(line)
            if not words:
                continue
            act = PROGRAMS.get(words[0])
            if act is None:
                raise BrokenExample(f"{line.strip()}: unknown program {words[0]}")
            outcome = act(self, [*words[1:], *shlex.split(options)], only_checked)
            self.done.append((line.strip(), outcome))

    def _words(self, line: str) -> list[str]:
        found = []
        for word in shlex.split(line, comments=True):
            if word.count("[") != word.count("]"):
                continue  # what may be left out, such as [RUN ...]
            word = self._meaning(word) if word.isupper() else word
            found += sorted(glob.glob(word)) if "*" in word and glob.glob(word) else [word]
        return found

    def _meaning(self, word: str) -> str:
        """What a word in capitals stands for: itself, if for nothing else."""
        runs = sorted(glob.glob(RUNS), key=os.path.getmtime)
        newest = {"RUN": runs[-1]} if runs else {}
        return str({**PLACEHOLDERS, **newest, **self.names}.get(word, word))

    def train(self, words: list[str], only_checked: str) -> str:
        """`ssm-train`: options are always checked, cheap commands run."""
        if words[0] == "fit":
            return self._fit(words[1:], only_checked)
        if words[0] == "bench":
            return self._bench(words[1:])
        if any(word.startswith(HUB) for word in words):
            only_checked = "needs the hub"
        if words[0] in DRAWING:
            return self._draw(words)
        if not only_checked or words[0] == "show":
            return _succeed(ssm_train, words)
        parser = ArgumentParser(exit_on_error=False)
        self.host.get("commands", words[0]).configure(parser)
        parser.parse_args(words[1:])
        return only_checked

    def _fit(self, words: list[str], only_checked: str) -> str:
        if "--help" in words:
            fit_command(self.host, words)
            return "ran"
        config, _ = recipe_and_config(self.host, words, "ssm-train fit")
        data = config.options["data"]["name"]
        if only_checked or data not in BUDGETS:
            return only_checked or f"needs {data}"
        fit_command(self.host, [*words, *BUDGETS[data].split()])
        return "ran"

    def _draw(self, words: list[str]) -> str:
        if words[0] not in self.drawn:
            self.drawn.add(words[0])
            return _succeed(ssm_train, words)
        lost = [word for word in words if word.startswith("runs/") and not os.path.isdir(word)]
        if lost:
            raise BrokenExample(f"{' '.join(words)}: no run {lost[0]}")
        return "ran on another page"

    def _bench(self, words: list[str]) -> str:
        """Names and options are read; the first measurement would take minutes."""
        with (
            mock.patch("ssm_core.bench.command.measure_apart", side_effect=Reached),
            contextlib.suppress(Reached),
        ):
            bench_command(self.host, words)
        return "measures for minutes"

    def prune(self, words: list[str], only_checked: str) -> str:
        """`ssm-prune`, which is always run; a benchmark with a moment for each model."""
        quick = ["--reps", "5", "--batch", "1", "--threads", "1"] if words[0] == "bench" else []
        return _succeed(ssm_prune, [*words, *quick])

    def several(self, words: list[str], only_checked: str) -> str:
        """`torchrun ... --no-python COMMAND`: the command is checked."""
        self.run(shlex.join(words[words.index("--no-python") + 1 :]), "", "needs processes")
        return "needs processes"


def _succeed(program: Callable[[Sequence[str]], int], words: list[str]) -> str:
    code = program(words)
    if code:
        raise BrokenExample(f"{' '.join(words)}: exit code {code}")
    return "ran"


def _elsewhere(check: Callable[[list[str]], str]) -> Program:
    return lambda commands, words, only_checked: check(words)


Program = Callable[[Commands, list[str], str], str]
PROGRAMS: dict[str, Program] = {
    "ssm-train": Commands.train,
    "ssm-prune": Commands.prune,
    "torchrun": Commands.several,
    "make": _elsewhere(programs.make),
    "pip": _elsewhere(programs.pip),
    "python": _elsewhere(programs.python),
}
