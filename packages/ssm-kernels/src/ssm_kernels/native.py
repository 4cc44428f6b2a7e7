"""The compiled kernels, seen from Python: tensors in, tensors out.

The functions here expect what the public operators have already checked (devices, dtypes, shapes);
they turn tensors into addresses and strides, allocate the results and call the extension module
`ssm_kernels._native`. If that module is missing, `AVAILABLE` is False and `IMPORT_ERROR` says why.
"""

from __future__ import annotations

from functools import cache

from . import native_extension as extension
from .native_conv import causal_conv1d_backward, causal_conv1d_forward
from .native_conv_update import causal_conv1d_update
from .native_diagonal_scan import diagonal_scan_backward, diagonal_scan_forward
from .native_fused import has_fused_kernels, linear, mamba_directions, rms_norm
from .native_s4_kernels import (
    cauchy_backward,
    cauchy_forward,
    log_vandermonde_backward,
    log_vandermonde_forward,
)
from .native_scan import (
    ScanGradients,
    ScanMode,
    ScanTensors,
    checkpoint_shape,
    selective_scan_backward,
    selective_scan_forward,
)
from .native_scan_directions import (
    adds_up_in_any_type,
    selective_scan_directions_backward,
    selective_scan_directions_forward,
)
from .native_state_update import selective_state_update

__all__ = [
    "AVAILABLE",
    "IMPORT_ERROR",
    "ScanGradients",
    "ScanMode",
    "ScanTensors",
    "adds_up_in_any_type",
    "available_isas",
    "build_info",
    "cauchy_backward",
    "cauchy_forward",
    "causal_conv1d_backward",
    "causal_conv1d_forward",
    "causal_conv1d_update",
    "checkpoint_shape",
    "cuda_info",
    "cuda_problem",
    "diagonal_scan_backward",
    "diagonal_scan_forward",
    "has_fused_kernels",
    "isa",
    "linear",
    "log_vandermonde_backward",
    "log_vandermonde_forward",
    "machine_limits",
    "mamba_directions",
    "rms_norm",
    "selective_scan_backward",
    "selective_scan_directions_backward",
    "selective_scan_directions_forward",
    "selective_scan_forward",
    "selective_state_update",
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


def cuda_info() -> dict[str, object]:
    """Versions of the CUDA kernels' runtime and of the driver, and the architectures compiled.

    Raises ImportError if the CUDA kernels were not built.
    """
    module = extension.cuda_module()
    versions = {"runtime": module.runtime_version(), "driver": module.driver_version()}
    texts = {name: f"{v // 1000}.{v % 1000 // 10}" if v else "none" for name, v in versions.items()}
    return {**texts, "architectures": module.architectures}


@cache
def cuda_problem(device: int = 0) -> str | None:
    """Why the CUDA kernels cannot run on a device and what to do about it; None where they can."""
    try:
        module = extension.cuda_module()
    except ImportError as error:
        return (
            f"the CUDA kernels are not built ({error}); build them where nvcc is: "
            "`SSM_KERNELS_CUDA=on pip install --force-reinstall --no-deps ssm-kernels` "
            "(in a checkout: `SSM_KERNELS_CUDA=on pip install --no-deps ./packages/ssm-kernels`)"
        )
    return module.device_problem(device) or None


def isa() -> str:
    """The instruction set in use: baseline, avx2 or avx512."""
    return str(extension._native.isa())


def available_isas() -> list[str]:
    """The instruction sets that were compiled and run on this machine, slowest first."""
    return list(extension._native.available_isas())


def set_isa(name: str) -> None:
    """Use another instruction set from now on, for tests; RuntimeError if it does not run here."""
    extension._native.set_isa(name)


def machine_limits(num_threads: int, array_bytes: int, seconds: float = 0.25) -> dict[str, float]:
    """What this machine does at best in float32 with the instruction set in use, per second.

    Args:
        num_threads: threads that work at the same time, 1 or more.
        array_bytes: size of each of three arrays in memory; the bandwidth is that of the memory if
            they are several times larger than the last-level cache.
        seconds: time spent on each of the four loops; the fastest round counts.
    Returns:
        multiply_add: multiply-adds in registers (two floating-point operations each).
        exponential: powers of two as the scan computes them, in the first-level cache.
        triad: elements of a = b + s c, 12 bytes each without the reading of a before it is written.
        triad_streaming: the same, written past the caches where the instruction set can.
    Raises:
        ValueError: an argument is too small.

    Source: McCalpin 1995, "Memory bandwidth and machine balance" (the triad).
    """
    return dict(extension._native.machine_limits(num_threads, array_bytes, seconds))
