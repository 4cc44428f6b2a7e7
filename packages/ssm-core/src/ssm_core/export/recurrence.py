"""The recurrence that all scans here come down to, as an operator, `torch.ops.ssm_core.recurrence`.

A loop over the steps cannot be in an exported graph whose number of steps is open. This operator
stands for it: in PyTorch it is that loop, in an ONNX graph it becomes the operator `Scan`.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: letters: b batch, l steps, c.. channels (one axis or more), n states
_SCHEMA = (
    "(Tensor rate, Tensor A, Tensor drive, Tensor B, Tensor C, Tensor initial_state) "
    "-> (Tensor, Tensor)"
)


@torch.library.custom_op("ssm_core::recurrence", mutates_args=(), schema=_SCHEMA)
def recurrence(
    rate: Tensor, A: Tensor, drive: Tensor, B: Tensor, C: Tensor, initial_state: Tensor
) -> tuple[Tensor, Tensor]:
    """Run h[t] = exp(rate[t] A) h[t-1] + drive[t] B[t];  y[t] = sum_n C[t] h[t].

    Args:
        rate: (b, l, c.., 1), an axis of c may be 1.
        A: (c.., n), likewise.
        drive: (b, l, c.., 1), all channels.
        B, C: (b, l, c.., n), an axis of c may be 1.
        initial_state: (b, c.., n), the state before the first step.
    Returns:
        y (b, l, c..) and the state after the last step (b, c.., n).

    Cost: O(b l c n) time. Without a gradient.
    """
    h, outputs = initial_state.clone(), []
    steps = (x.unbind(1) for x in (rate, drive, B, C))
    for rate_t, drive_t, B_t, C_t in zip(*steps, strict=True):
        h = torch.exp(rate_t * A) * h + drive_t * B_t
        outputs.append((C_t * h).sum(-1))
    y = torch.stack(outputs, 1) if outputs else drive.squeeze(-1).clone()
    return y, h


@recurrence.register_fake
def _(
    rate: Tensor, A: Tensor, drive: Tensor, B: Tensor, C: Tensor, initial_state: Tensor
) -> tuple[Tensor, Tensor]:
    return drive.new_empty(drive.shape[:-1]), initial_state.new_empty(initial_state.shape)
