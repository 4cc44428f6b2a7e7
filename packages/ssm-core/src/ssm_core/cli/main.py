"""Entry point: finds the command, runs it, turns a user's error into one line and exit code 2."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence

from ssm_core.errors import SsmError, UnknownNameError

USAGE = """usage: ssm-train COMMAND ...

  list [KIND]              what the installed packages offer
  show RECIPE [--...]      the resolved configuration as YAML
  fit RECIPE [--...]       train; `ssm-train fit RECIPE --help` lists every option
  eval RUN                 evaluate a trained run
  report RUN [RUN ...]     table, curves and pictures
  bench MODEL [MODEL ...]  time and memory against image size or context
  export MODEL --out DIR   a run or model for other programs: ONNX, torch.export
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `ssm-train`; returns the exit code (0 fine, 2 the user's error, 1 ours, 130 Ctrl-C)."""
    return run_program("ssm-train", _dispatch, sys.argv[1:] if arguments is None else arguments)


def run_program(name: str, dispatch: Callable[[list[str]], int], arguments: Sequence[str]) -> int:
    """Let `dispatch(words)` do what was asked; returns its exit code, or that of its error.

    Args:
        name: of the program, in front of its errors.
        arguments: words of the command line; `--debug` is taken out and shows tracebacks.
    """
    words = list(arguments)
    debug = "--debug" in words
    words = [w for w in words if w != "--debug"]
    try:
        return dispatch(words)
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader (head, less) has gone
        # Python flushes stdout once more at exit: give it something that can be written to
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except SsmError as error:
        if debug:
            traceback.print_exc()
        print(f"{name}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except Exception as error:
        if debug:
            traceback.print_exc()
        text = " ".join(f"{type(error).__name__}: {error}".split())
        print(
            f"{name}: internal error: {text} (run again with --debug to see where)",
            file=sys.stderr,
        )
        return 1
    finally:
        if "ssm_core.train.fabric" in sys.modules:  # else no run was started: torch is not needed
            from ssm_core.train.fabric import leave_processes

            leave_processes()


def _dispatch(words: list[str]) -> int:
    from ssm_core.cli.commands import BUILT_IN, run_plugin_command
    from ssm_core.plugins import plugin_host

    if not words or words[0] in ("-h", "--help", "help"):
        host = plugin_host()
        extra = [
            f"  {name:<24} {registered.spec.summary}"
            for name, registered in host.table("commands").items()
        ]
        print(USAGE + "\n".join([*extra, "", "--debug shows the traceback of an error."]))
        return 0
    if words[0] == "--version":
        from ssm_core.train.folder import versions

        print("\n".join(f"{name} {number}" for name, number in versions().items()))
        return 0
    command, rest = words[0], words[1:]
    if command in BUILT_IN:
        return BUILT_IN[command](plugin_host(), rest)
    commands = plugin_host().table("commands")
    if command not in commands:
        raise UnknownNameError.of("command", command, [*BUILT_IN, *commands])
    return run_plugin_command(commands[command].spec, rest)
