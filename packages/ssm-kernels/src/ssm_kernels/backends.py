"""Which implementation runs: the native kernels of the device where built, else the reference.

`backend="auto"` always finds something that runs. Where that is the slow reference, it says so
once per process and reason with a `SsmKernelsWarning`. A backend named explicitly, in the call or
with the environment variable SSM_KERNELS_BACKEND (read once per operator), runs or raises.
"""

from __future__ import annotations

import os
import warnings
from enum import Enum
from functools import cache

import torch
from torch.compiler import is_compiling

from . import native
from .errors import BackendError

_CPU = torch.device("cpu")
ENVIRONMENT_VARIABLE = "SSM_KERNELS_BACKEND"
BUILD_HINT = (
    "build them with a C++17 compiler: `pip install --force-reinstall --no-deps ssm-kernels` "
    "(in a checkout: `pip install --no-deps ./packages/ssm-kernels`)"
)


class SsmKernelsWarning(UserWarning):
    """A slower implementation runs than could; the message says why and how to change it."""


class Backend(str, Enum):
    """Where an operator runs. Every function takes a member or its value as a string."""

    AUTO = "auto"
    REFERENCE = "reference"
    CPU = "cpu"
    CUDA = "cuda"


def choose_backend(operator: str, backend: Backend | str, device: torch.device) -> Backend:
    """Return what runs `operator` on tensors of `device`, never AUTO; warn once if that is slow.

    Raises:
        BackendError: the name is unknown, or the named backend cannot run this call.
    """
    requested = backend if isinstance(backend, Backend) else _parse(operator, backend, "backend")
    if requested is Backend.AUTO:
        # A compiler traces the function inside the cache anyway, and would warn about the cache.
        from_environment = _read_environment if is_compiling() else _environment_backend
        requested = from_environment(operator)
    if requested is Backend.REFERENCE:
        return requested
    # Comparing devices is several times faster than asking for the type, as the rest here does.
    if device == _CPU and native.AVAILABLE and requested is not Backend.CUDA:
        return Backend.CPU

    if requested is Backend.AUTO:
        reason = why_not_native(device.type, device.index or 0)
        if reason is None:
            return Backend(device.type)
        _notify_once(operator, device.type, reason)
        return Backend.REFERENCE

    reason = why_not_native(requested.value, device.index or 0)
    if reason is None and device.type != requested.value:
        reason = f"the tensors are on {device}; move them with .to('{requested.value}')"
    if reason is not None:
        raise BackendError(
            f"{operator}: backend '{requested.value}' cannot run: {reason}; "
            "or pass backend='reference'"
        )
    return requested


def why_not_native(device_type: str, index: int = 0) -> str | None:
    """Say why no native kernel can run there and what to do about it; None where one can."""
    if device_type == "cuda":
        return native.cuda_problem(index)
    if device_type != "cpu":
        return (
            f"this version has no native kernel for {device_type} tensors; "
            "move them to the CPU for a native kernel"
        )
    if not native.AVAILABLE:
        return f"the native CPU kernels are not built ({native.IMPORT_ERROR}); {BUILD_HINT}"
    return None


def environment_setting() -> str:
    """Return the value of SSM_KERNELS_BACKEND; "auto" if it is unset or empty."""
    return os.environ.get(ENVIRONMENT_VARIABLE) or Backend.AUTO.value


def _read_environment(operator: str) -> Backend:
    return _parse(operator, environment_setting(), ENVIRONMENT_VARIABLE)


_environment_backend = cache(_read_environment)


def _parse(operator: str, name: str, source: str) -> Backend:
    try:
        return Backend(name)
    except ValueError:
        known = ", ".join(repr(member.value) for member in Backend)
        raise BackendError(f"{operator}: {source} is {name!r}, expected one of {known}") from None


_notified: set[tuple[str, str]] = set()


def _notify_once(operator: str, device_type: str, reason: str) -> None:
    if (operator, reason) in _notified:
        return
    _notified.add((operator, reason))
    message = f"{operator} runs the slow PyTorch reference on {device_type}: {reason}"
    # Up the stack: this function, choose_backend, the operator, the caller of the operator.
    warnings.warn(message, SsmKernelsWarning, stacklevel=4)


# A compiler runs these while it traces. As torch.compiler.assume_constant_result, which would
# import the whole compiler with this package.
_notify_once._dynamo_marked_constant = True  # type: ignore[attr-defined]
why_not_native._dynamo_marked_constant = True  # type: ignore[attr-defined]
