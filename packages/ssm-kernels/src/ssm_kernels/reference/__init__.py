"""The specification: each operator in plain PyTorch, differentiable by autograd.

Nothing here is clever and every line is meant to be read next to the equations. All arithmetic is
float32, or float64 if an activation is float64 (complex64 or complex128 for a complex `A`).
Arguments are expected to be correct: the public operators check them before they call these.
"""

from __future__ import annotations

from .cauchy import cauchy_reference
from .causal_conv1d import causal_conv1d_reference
from .causal_conv1d_update import causal_conv1d_update_reference
from .diagonal_scan import diagonal_scan_reference
from .log_vandermonde import log_vandermonde_reference
from .selective_scan import selective_scan_reference
from .selective_scan_directions import selective_scan_directions_reference
from .selective_state_update import selective_state_update_reference
from .ssd_scan import ssd_scan_reference

__all__ = [
    "cauchy_reference",
    "causal_conv1d_reference",
    "causal_conv1d_update_reference",
    "diagonal_scan_reference",
    "log_vandermonde_reference",
    "selective_scan_directions_reference",
    "selective_scan_reference",
    "selective_state_update_reference",
    "ssd_scan_reference",
]
