"""Linear systems that do not change with time, in real numbers: what S4, S4D and S5 are made of.

In PyTorch these layers are complex, and run by FFT or by a complex scan; ONNX has neither. As real
columns of twice the length, the real parts before the imaginary ones, the same states advance by

    x[t] = decay x[t-1] + turn swapped(x[t-1]) - U (W x[t-1]) + B u[t]        y[t] = C x[t]

where `swapped` exchanges the two halves and all but the matrix products is element by element. For
the operator `torch.ops.ssm_core.linear_systems` see `recurrence`: in ONNX it becomes a `Scan`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

_SCHEMA = (
    "(Tensor u, Tensor initial_state, Tensor decay, Tensor turn, Tensor B, Tensor C, "
    "Tensor? W, Tensor? U) -> (Tensor, Tensor)"
)


class System(NamedTuple):
    """h systems of N real states with i inputs and o outputs each; rows act on the right."""

    decay: Tensor
    """(h, 1, N)"""
    turn: Tensor
    """(h, 1, N), of opposite signs in the two halves"""
    B: Tensor
    """(h, i, N)"""
    C: Tensor
    """(h, N, o)"""
    W: Tensor | None = None
    """(h, N, 1), of a low-rank part"""
    U: Tensor | None = None
    """(h, 1, N)"""


def diagonal_system(A: Tensor, B: Tensor, C: Tensor) -> System:
    """The real form of x[t] = A x[t-1] + B u[t], y[t] = Re(C x[t]).

    Args:
        A: (h, n), B: (h, i, n) and C: (h, n, o), all complex.
    """
    a = A.unsqueeze(1)
    return System(
        torch.cat([a.real, a.real], -1),
        torch.cat([-a.imag, a.imag], -1),
        torch.cat([B.real, B.imag], -1),
        torch.cat([C.real, -C.imag], -2),
    )


def _advance(u: Tensor, x: Tensor, system: System) -> Tensor:
    """The states (h, b, N) after x, for the inputs u (h, b, i) of one step."""
    swapped = torch.cat(x.chunk(2, -1)[::-1], -1)
    after = system.decay * x + system.turn * swapped + u @ system.B
    if system.W is not None and system.U is not None:
        after = after - (x @ system.W) @ system.U
    return after


@torch.library.custom_op("ssm_core::linear_systems", mutates_args=(), schema=_SCHEMA)
def linear_systems(
    u: Tensor,
    initial_state: Tensor,
    decay: Tensor,
    turn: Tensor,
    B: Tensor,
    C: Tensor,
    W: Tensor | None,
    U: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Run a `System` over u (h, b, l, i) from the states (h, b, N) before the first step.

    Returns:
        y (h, b, l, o) and the states (h, b, N) after the last step.

    Cost: O(b l h N (i + o)) time. Without a gradient.
    """
    system, x = System(decay, turn, B, C, W, U), initial_state.clone()
    outputs = []
    for u_t in u.unbind(2):
        x = _advance(u_t, x, system)
        outputs.append(x @ C)
    return torch.stack(outputs, 2) if outputs else u.new_zeros(*u.shape[:3], C.shape[2]), x


@linear_systems.register_fake
def _(u: Tensor, initial_state: Tensor, *system: Tensor | None) -> tuple[Tensor, Tensor]:
    C = system[3]
    assert C is not None
    return u.new_empty(*u.shape[:3], C.shape[2]), initial_state.new_empty(initial_state.shape)


class Systems(nn.Module):
    """A `System` as a module, for either direction, computed in its own type."""

    def __init__(self, system: System) -> None:
        super().__init__()
        for name, value in system._asdict().items():
            self.register_buffer(name, None if value is None else value.detach().contiguous())

    def forward(
        self, u: Tensor, state: Tensor | None = None, reverse: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Map u (b, l, h, i) and pairs (b, h, n, 2), N = 2 n, to y (b, l, h, o) and pairs.

        With `reverse` from the last step to the first. A single step has no loop.
        """
        system = System(*(getattr(self, name) for name in System._fields))
        inputs = u.to(system.decay.dtype).permute(2, 0, 1, 3)
        if state is None:
            x = inputs.new_zeros(*inputs.shape[:2], system.decay.shape[2])
        else:
            x = state.to(system.decay.dtype).permute(1, 0, 3, 2).flatten(2)
        if isinstance(u.shape[1], int) and u.shape[1] == 1:
            x = _advance(inputs[:, :, 0], x, system)
            y = (x @ system.C).unsqueeze(2)
        else:
            y, x = linear_systems(inputs.flip(2) if reverse else inputs, x, *system)
            y = y.flip(2) if reverse else y
        return y.permute(1, 2, 0, 3), x.unflatten(2, (2, -1)).permute(1, 0, 3, 2)
