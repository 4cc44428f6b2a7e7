"""`python -m ssm_kernels.compat SCRIPT ARGS`: run a program with the stand-ins in place."""

from __future__ import annotations

import argparse
import runpy
import sys
from pathlib import Path

from .errors import ShadowError
from .installer import install


def main(arguments: list[str] | None = None) -> None:
    """Install the stand-ins, then run the script or module as `python` would.

    Exits with 2 if a package of the same name is in the way or the script does not exist.
    """
    options = _parser().parse_args(arguments)
    command: list[str] = options.module or options.script
    if not command:
        _parser().error("expected a script, or -m and a module")
    sys.argv = command
    if options.script and not getattr(sys.flags, "safe_path", False):
        sys.path[0] = str(Path(command[0]).resolve().parent)
    try:
        install(replace_installed=options.replace_installed, quiet=options.quiet)
    except ShadowError as error:
        sys.exit(_complain(str(error)))
    if options.module:
        runpy.run_module(command[0], run_name="__main__", alter_sys=True)
    elif not Path(command[0]).exists():
        sys.exit(_complain(f"{command[0]} does not exist; expected a Python script"))
    else:
        runpy.run_path(command[0], run_name="__main__")


def _complain(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ssm_kernels.compat",
        description="Run a program whose imports of mamba_ssm, causal_conv1d and the CUDA "
        "extensions of selective scans find ssm-kernels.",
        usage="%(prog)s [--replace-installed] [--quiet] (SCRIPT | -m MODULE) ...",
    )
    parser.add_argument(
        "--replace-installed", action="store_true", help="also if packages of these names exist"
    )
    parser.add_argument("--quiet", action="store_true", help="do not say what is replaced")
    parser.add_argument(
        "-m", dest="module", nargs=argparse.REMAINDER, help="a module and its arguments"
    )
    parser.add_argument("script", nargs=argparse.REMAINDER, help="a script and its arguments")
    return parser


if __name__ == "__main__":
    main()
