"""The compiled scans of several directions whose outputs are added up, at once where possible."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .native_extension import address, coefficient, module_for, pairs, resolved, view
from .native_scan import (
    Scan,
    ScanGradients,
    ScanMode,
    ScanTensors,
    selective_scan_backward,
)


def selective_scan_directions_forward(
    scans: Sequence[ScanTensors],
    modes: Sequence[ScanMode],
    *,
    into: Tensor,
    checkpoints: Tensor | None,
) -> None:
    """Fill `into`, (b, l, d) of a type that sums do not round to 16 bits, with the sum of scans.

    scans: the first nine arguments of `selective_scan_forward`; z may be there in the last only and
    gates the sum. checkpoints: those of all scans, one after the other, or None where not wanted.
    """
    together = [Scan(tensors, None, mode) for tensors, mode in zip(scans, modes, strict=True)]
    kept = [0] * len(together) if checkpoints is None else [address(x) for x in checkpoints]
    together[0].kernels.selective_scan_directions_forward(
        [scan.inputs for scan in together], view(into), kept
    )


def adds_up_in_any_type(tensor: Tensor) -> bool:
    """Whether the backward pass forms sums over directions before it rounds them."""
    return bool(module_for(tensor).scans_directions_together())


def selective_scan_directions_backward(
    grad_y: Tensor,
    scans: Sequence[ScanTensors],
    modes: Sequence[ScanMode],
    *,
    checkpoints: Tensor,
    into: Sequence[ScanGradients],
) -> tuple[Tensor | None, ...]:
    """Fill `into` with gradients and return those of A, D and delta_bias, (k, ...) each.

    scans: as in the forward pass, but with z in all of them. into: nothing in it is None but z
    where there is none. The gradient of z is the same tensor in all, and so is that of u where the
    scans share it; unless `adds_up_in_any_type`, they must not have 16 bits.
    """
    shared = len(scans) > 1 and into[0].u is into[1].u
    if not module_for(grad_y).scans_directions_together():
        found = [
            selective_scan_backward(
                grad_y,
                None,
                *tensors,
                kept,
                mode=mode,
                need_initial_state_grad=False,
                into=gradients,
                add=(k > 0 and shared, k > 0),
            )
            for k, (tensors, mode, kept, gradients) in enumerate(
                zip(scans, modes, checkpoints, into, strict=True)
            )
        ]
        return (
            _stacked([one[2] for one in found]),
            _stacked([one[5] for one in found]),
            _stacked([one[7] for one in found]),
        )
    together = [Scan(tensors, None, mode) for tensors, mode in zip(scans, modes, strict=True)]
    grad_y = resolved(grad_y)
    grads = [_room_for(len(scans), scans[0][place]) for place in (2, 5, 7)]
    refs = [
        _addresses(kept, one, [0 if x is None else address(x[k]) for x in grads])
        for k, (kept, one) in enumerate(zip(checkpoints, into, strict=True))
    ]
    together[0].kernels.selective_scan_directions_backward(
        [scan.inputs for scan in together], view(grad_y), shared, refs
    )
    return grads[0], grads[1], grads[2]


def _addresses(checkpoints: Tensor, into: ScanGradients, parameters: list[int]) -> tuple[Any, ...]:
    """What the kernel is given for one direction, beside its inputs."""
    assert into.B is not None
    assert into.C is not None
    return (
        address(checkpoints),
        (view(into.u), view(into.delta), view(into.z)),
        (coefficient(pairs(into.B)), coefficient(pairs(into.C))),
        parameters,
    )


def _stacked(parts: Sequence[Tensor | None]) -> Tensor | None:
    present = [x for x in parts if x is not None]
    return torch.stack(present) if present else None


def _room_for(k: int, like: Tensor | None) -> Tensor | None:
    return None if like is None else like.new_empty((k, *like.shape))
