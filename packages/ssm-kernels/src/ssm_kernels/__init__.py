"""Numerical operators of state space models for PyTorch: a readable reference and fast kernels.

`python -m ssm_kernels` reports what was built and what will run.
"""

from __future__ import annotations

from importlib.metadata import version

from .backends import Backend, SsmKernelsWarning
from .cauchy import cauchy
from .causal_conv1d import causal_conv1d
from .causal_conv1d_update import causal_conv1d_update
from .diagonal_scan import diagonal_scan
from .errors import (
    ArgumentError,
    BackendError,
    DeviceError,
    DTypeError,
    ShapeError,
    SsmError,
)
from .fused_linear import fused_linear
from .fused_mamba_directions import MambaParameters, fused_mamba_directions
from .fused_rms_norm import fused_gated_rms_norm, fused_rms_norm
from .log_vandermonde import log_vandermonde
from .reference import (
    cauchy_reference,
    causal_conv1d_reference,
    causal_conv1d_update_reference,
    diagonal_scan_reference,
    log_vandermonde_reference,
    selective_scan_directions_reference,
    selective_scan_reference,
    selective_state_update_reference,
    ssd_scan_reference,
)
from .selective_scan import selective_scan
from .selective_scan_directions import selective_scan_directions
from .selective_state_update import selective_state_update
from .ssd_scan import ssd_scan

__version__ = version("ssm-kernels")

__all__ = [
    "ArgumentError",
    "Backend",
    "BackendError",
    "DTypeError",
    "DeviceError",
    "MambaParameters",
    "ShapeError",
    "SsmError",
    "SsmKernelsWarning",
    "cauchy",
    "cauchy_reference",
    "causal_conv1d",
    "causal_conv1d_reference",
    "causal_conv1d_update",
    "causal_conv1d_update_reference",
    "diagonal_scan",
    "diagonal_scan_reference",
    "fused_gated_rms_norm",
    "fused_linear",
    "fused_mamba_directions",
    "fused_rms_norm",
    "log_vandermonde",
    "log_vandermonde_reference",
    "selective_scan",
    "selective_scan_directions",
    "selective_scan_directions_reference",
    "selective_scan_reference",
    "selective_state_update",
    "selective_state_update_reference",
    "ssd_scan",
    "ssd_scan_reference",
]
