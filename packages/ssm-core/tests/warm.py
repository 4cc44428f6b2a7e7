"""A process that has everything imported, and starts `ssm-train` with the toy plugin as its forks.

Imports take most of the time of a short command. The forks are processes like any other: they have
a number, can be killed, and end as the interpreter does. Lines of standard input are JSON:

    {"start": WORDS, "folder": FOLDER, "environment": {...}, "output": FILE}  answer: its number
    {"wait": NUMBER}                       answer: its exit code, negative for a signal
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

import torch._dynamo  # by the first optimizer
import torch.utils.tensorboard  # noqa: F401
import torchmetrics.classification  # noqa: F401
import toy_plugin

import ssm_core.mixers
import ssm_core.train.fit
import ssm_core.train.report
from ssm_core import plugins
from ssm_core.cli import main


def train(words: list[str], folder: str, environment: dict[str, str], output: str) -> int:
    """What the process does that `start` asks for."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    os.environ.update(environment)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT), 1)
    os.dup2(1, 2)
    host = plugins.PluginHost(load_entry_points=False)
    host.register(toy_plugin, "toy 1.0")
    plugins.plugin_host = lambda: host
    ssm_core.mixers.plugin_host = plugins.plugin_host
    return main(words)


def serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        if "wait" in request:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
        else:
            answer = os.fork()
            if answer == 0:
                words = request["start"]
                sys.exit(train(words, request["folder"], request["environment"], request["output"]))
        print(answer, file=answers, flush=True)


if __name__ == "__main__":
    serve()
