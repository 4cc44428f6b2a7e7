"""The compiled inner part of a Mamba mixer: checked tensors in, a tensor out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import native_extension as extension
from .native_extension import DTYPE_CODES, address, contiguous, resolved, view

#: Directions that one call takes, kMostDirections in csrc/params.h.
MOST_DIRECTIONS = 4

#: (conv_weight, conv_bias, x_proj, dt_proj, dt_bias, A_log, D), see `MambaParameters`
ParameterTensors = tuple[
    Tensor, "Tensor | None", Tensor, Tensor, "Tensor | None", Tensor, "Tensor | None"
]


def has_mamba_directions(tensor: Tensor) -> bool:
    """Whether the kernels for the tensor's device include this one: those of the CPU do."""
    return not tensor.is_cuda and extension._on_host is extension._native


def mamba_directions(
    x: Tensor, z: Tensor, parameters: Sequence[ParameterTensors], reverse: Sequence[bool]
) -> Tensor:
    """The sum of all directions, (b, l, d), contiguous; see the public function for the arguments.

    All tensors have the type of x, float32 or float64.
    """
    x, z = resolved(x), resolved(z)
    # the C++ side holds addresses only, so the copies must outlive the call
    kept = [tuple(map(contiguous, own)) for own in parameters]
    (b, l, d), (_, states) = x.shape, kept[0][5].shape
    sizes = (b, l, d, states, kept[0][0].shape[-1], kept[0][3].shape[1], DTYPE_CODES[x.dtype])
    y = x.new_empty((b, l, d))
    kernels = extension._native
    n_bytes = kernels.mamba_directions_workspace(sizes, len(kept))
    workspace = torch.empty(n_bytes, dtype=torch.uint8)
    kernels.mamba_directions(
        sizes,
        (view(x), view(z), view(y)),
        [(*map(address, own), way) for own, way in zip(kept, reverse, strict=True)],
        workspace.data_ptr(),
        torch.get_num_threads(),
    )
    return y
