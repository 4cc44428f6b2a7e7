"""Numbers of units that are worth keeping."""

from __future__ import annotations

from ssm_core.units import CHANNELS

__all__ = ["CHANNELS", "MATRIX_STATES"]

#: states of Mamba-2 are an axis of matrix products: the matrix units of GPUs take 16 at a time in
#: half precision, and the block between two multiples costs as much as the larger one
MATRIX_STATES = 16
