"""Arguments of the decode-step operators, drawn by Hypothesis: sizes, types and strides."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from hypothesis import strategies as st
from torch import Tensor

STATE_LAYOUTS = ("contiguous", "reversed axes", "last two swapped", "sliced")
INPUT_LAYOUTS = (*STATE_LAYOUTS, "expanded first", "expanded last")


def laid_out(values: Tensor, layout: str) -> Tensor:
    """Return a tensor with the shape of `values` and other strides.

    The expanded ones repeat the first entry of an axis.
    """
    if layout == "reversed axes":
        return (
            values.permute(*reversed(range(values.dim())))
            .contiguous()
            .permute(*reversed(range(values.dim())))
        )
    if layout == "last two swapped":
        return values.transpose(-1, -2).contiguous().transpose(-1, -2)
    if layout == "sliced":
        wide = values.new_full((*values.shape[:-1], 2 * values.shape[-1] + 3), float("nan"))
        view = wide[..., 2 : 2 + 2 * values.shape[-1] : 2]
        return view.copy_(values)
    axis = {"expanded first": 0, "expanded last": -1}.get(layout)
    if axis is None or values.shape[axis] == 0:
        return values.contiguous()
    return values.narrow(axis, 0, 1).expand(values.shape)


def random(shape: Sequence[int], dtype: torch.dtype, layout: str) -> Tensor:
    """Return a random tensor; a one-dimensional one has no axes to swap."""
    if len(shape) == 1 and layout == "last two swapped":
        layout = "contiguous"
    return laid_out(
        torch.randn(*shape, dtype=torch.promote_types(dtype, torch.float32)).to(dtype), layout
    )


def copied(tensor: Tensor) -> Tensor:
    """Return an independent tensor of the same strides, for a second in-place run."""
    copy = torch.empty_strided(
        tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device
    )
    return copy.copy_(tensor)


seeds = st.integers(0, 2**16)
state_layouts = st.sampled_from(STATE_LAYOUTS)
input_layouts = st.sampled_from(INPUT_LAYOUTS)
