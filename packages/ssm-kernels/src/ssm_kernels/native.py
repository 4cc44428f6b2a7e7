"""The compiled kernels, seen from Python: tensors in, tensors out.

The functions here expect what the public operators have already checked (devices, dtypes, shapes);
they turn tensors into addresses and strides, allocate the results and call the extension module
`ssm_kernels._native`. If that module is missing, `AVAILABLE` is False and `IMPORT_ERROR` says why.
"""

from __future__ import annotations

from . import native_extension as extension
from .native_conv import causal_conv1d_backward, causal_conv1d_forward
from .native_diagonal_scan import diagonal_scan_backward, diagonal_scan_forward
from .native_scan import (
    ScanGradients,
    ScanMode,
    checkpoint_shape,
    selective_scan_backward,
    selective_scan_forward,
)

__all__ = [
    "AVAILABLE",
    "IMPORT_ERROR",
    "ScanGradients",
    "ScanMode",
    "available_isas",
    "build_info",
    "causal_conv1d_backward",
    "causal_conv1d_forward",
    "checkpoint_shape",
    "diagonal_scan_backward",
    "diagonal_scan_forward",
    "isa",
    "selective_scan_backward",
    "selective_scan_forward",
    "set_isa",
]

IMPORT_ERROR: str | None = extension.IMPORT_ERROR
AVAILABLE: bool = IMPORT_ERROR is None


def build_info() -> dict[str, object]:
    """Compiler, instruction sets compiled, available and chosen, and whose threads run the kernels.

    Raises RuntimeError if SSM_KERNELS_ISA names a set that does not run here, ImportError if
    nothing was built.
    """
    if not AVAILABLE:
        raise ImportError(f"the compiled kernels are missing: {IMPORT_ERROR}")
    from importlib.metadata import version

    return {"version": version("ssm-kernels"), **extension._native.build_info()}


def isa() -> str:
    """The instruction set in use: baseline, avx2 or avx512."""
    return str(extension._native.isa())


def available_isas() -> list[str]:
    """The instruction sets that were compiled and run on this machine, slowest first."""
    return list(extension._native.available_isas())


def set_isa(name: str) -> None:
    """Use another instruction set from now on, for tests; RuntimeError if it does not run here."""
    extension._native.set_isa(name)
