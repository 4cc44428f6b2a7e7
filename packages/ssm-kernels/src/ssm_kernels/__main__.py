"""`python -m ssm_kernels`: what was built, what will run, and how to get what is missing."""

from __future__ import annotations

import argparse
import platform
import warnings
from collections.abc import Callable

import torch

from . import __version__, native
from .backends import (
    ENVIRONMENT_VARIABLE,
    SsmKernelsWarning,
    choose_backend,
    environment_setting,
    why_not_native,
)
from .errors import BackendError

OPERATORS = (
    "selective_scan",
    "causal_conv1d",
    "diagonal_scan",
    "ssd_scan",
    "log_vandermonde",
    "cauchy",
)


def report() -> str:
    """Return the whole report as text."""
    lines = [
        f"ssm-kernels {__version__}, torch {torch.__version__}, "
        f"Python {platform.python_version()}, {platform.system()} {platform.machine()}",
        "",
        *_built(),
        f"{ENVIRONMENT_VARIABLE}: {environment_setting()}",
        "",
        "What runs with backend='auto':",
        *_what_runs(),
    ]
    return "\n".join(lines)


def _built() -> list[str]:
    return [
        *_described("native CPU kernels", native.build_info),
        *_described("CUDA kernels", native.cuda_info),
    ]


def _described(kernels: str, describe: Callable[[], dict[str, object]]) -> list[str]:
    try:
        info = describe()
    except ImportError:
        return [f"{kernels}: missing"]
    return [f"{kernels}: built", *(f"  {name}: {info[name]}" for name in info)]


def _what_runs() -> list[str]:
    lines = [f"  {'':28}{'cpu tensors':14}cuda tensors"]
    missing: dict[str, None] = {}  # an ordered set
    for operator in OPERATORS:
        choices = []
        for device_type in ("cpu", "cuda"):
            choices.append(_choice(operator, device_type))
            reason = why_not_native(device_type)
            if reason is not None:
                missing.setdefault(f"  {device_type}: {reason}")
        lines.append(f"  {operator:28}{choices[0]:14}{choices[1]}")
    if missing:
        lines += ["", "Not at full speed:", *missing]
    return lines


def _choice(operator: str, device_type: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SsmKernelsWarning)  # the report says it more fully
        try:
            device = torch.device(device_type)
            return choose_backend(operator, "auto", device).value
        except BackendError:
            return "error"  # the environment variable names a backend that cannot run there


def main() -> None:
    """Print the report."""
    argparse.ArgumentParser(prog="python -m ssm_kernels", description=__doc__).parse_args()
    print(report())


if __name__ == "__main__":
    main()
