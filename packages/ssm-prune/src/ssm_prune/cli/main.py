"""Entry point of `ssm-prune`: finds the command and runs it; errors as in `ssm-train`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from ssm_core.cli.main import run_program
from ssm_core.errors import UnknownNameError

USAGE = """usage: ssm-prune COMMAND ...

  plan RUN|RECIPE [--...]   what would be pruned, and why the rest not; nothing is trained
  report RUN                complete prune_report.json and write prune_report.html
  export RUN --as FORM      a model folder: dense, removed or 2:4
  bench A B                 time two models side by side: runs, weights files or recipes
  verify RUN|FILE           count zeros in the saved files; exit code 1 if a promise is broken

`ssm-prune COMMAND --help` lists the options; --debug shows the traceback of an error.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `ssm-prune`.

    Returns:
        The exit code: 0 fine, 2 the user's error, 1 ours or a failed verification, 130 Ctrl-C.
    """
    return run_program("ssm-prune", _dispatch, sys.argv[1:] if arguments is None else arguments)


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0
    commands = _commands()
    if words[0] not in commands:
        raise UnknownNameError.of("command", words[0], commands)
    return commands[words[0]](words[1:])


def _commands() -> dict[str, Callable[[Sequence[str]], int]]:
    from ssm_prune.cli.bench import bench_command
    from ssm_prune.cli.export import export_command
    from ssm_prune.cli.plan import plan_command
    from ssm_prune.cli.report import report_command
    from ssm_prune.cli.verify import verify_command

    return {
        "plan": plan_command,
        "report": report_command,
        "export": export_command,
        "bench": bench_command,
        "verify": verify_command,
    }
