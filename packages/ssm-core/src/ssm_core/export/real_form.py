"""S4, S4D and S5 without complex numbers, in place of the layers while a graph is traced for ONNX.

What depends on parameters alone is computed before: the files hold discrete systems (`Systems`),
those of S4 and S4D in double precision, in which the layers run their recurrences as well. States
come and go as pairs of real and imaginary parts, (.., 2).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ssm_core.export.decompositions import refuse_packed
from ssm_core.export.systems import Systems, diagonal_system
from ssm_core.layers import dplr
from ssm_core.layers.convolution_layer import ConvolutionLayer
from ssm_core.layers.protocol import SequenceLayer
from ssm_core.layers.s4_kernel import S4Kernel
from ssm_core.layers.s5 import S5, S5State
from ssm_core.layers.state_space_kernel import StateSpaceKernel
from ssm_core.shapes import Activations, Offsets


@contextmanager
def in_real_numbers(root: nn.Module) -> Iterator[None]:
    """Within, the layers below `root` that have a real form are replaced by it."""
    parts = [
        (parent, name, form)
        for parent in root.modules()
        for name, child in parent.named_children()
        if (form := _real_form(parent, child)) is not None
    ]
    originals = [getattr(parent, name) for parent, name, _ in parts]
    try:
        for parent, name, form in parts:
            setattr(parent, name, form)
        yield
    finally:
        for (parent, name, _), original in zip(parts, originals, strict=True):
            setattr(parent, name, original)


def _real_form(parent: nn.Module, child: nn.Module) -> nn.Module | None:
    if isinstance(child, S5):
        return RealS5(child)
    if isinstance(parent, ConvolutionLayer) and isinstance(child, StateSpaceKernel):
        return RealKernel(child)
    return None


class RealKernel(nn.Module):
    """The kernel of S4 or S4D as a recurrence, whether states are asked for or not."""

    @torch.no_grad()
    def __init__(self, kernel: StateSpaceKernel) -> None:
        super().__init__()
        if isinstance(kernel, S4Kernel):
            delta, U, W, B, C = kernel.for_steps()
            A, low_rank = 1 + delta, {"W": dplr.as_row(W).unsqueeze(2)}
            low_rank["U"] = dplr.as_column(U).unsqueeze(1)
        else:
            (A, B, C), low_rank = kernel.for_steps(), {}
        # one of each conjugate pair is stored
        forward, *backward = (2 * C.permute(1, 2, 0)).chunk(1 + kernel.config.bidirectional, 2)
        B = B.unsqueeze(1)
        self.forward_systems = Systems(diagonal_system(A, B, forward)._replace(**low_rank))
        self.backward_systems = None
        if backward:
            self.backward_systems = Systems(diagonal_system(A, B, *backward)._replace(**low_rank))

    def convolve(self, u: Activations) -> Tensor:
        """See `StateSpaceKernel.convolve`."""
        y, _ = self.scan(u, None, None)
        if self.backward_systems is not None:
            later, _ = self.backward_systems(u.unsqueeze(3), reverse=True)
            later = later.transpose(2, 3).to(u.dtype)
            # the present step belongs to the forward kernel
            y = y + torch.cat([later, torch.zeros_like(later[:, :1])], 1)[:, 1:]
        return y

    def scan(
        self, u: Activations, state: Tensor | None, cu_seqlens: Offsets | None
    ) -> tuple[Tensor, Tensor]:
        """See `StateSpaceKernel.scan`; states are pairs (b, h, n, 2)."""
        refuse_packed(cu_seqlens)
        y, after = self.forward_systems(u.unsqueeze(3), state)
        return y.transpose(2, 3).to(u.dtype), after.to(u.dtype)


class RealS5(SequenceLayer):
    """An S5 layer whose states are pairs (b, p, 2)."""

    state_type = S5State

    @torch.no_grad()
    def __init__(self, layer: S5) -> None:
        super().__init__()
        self.d_model, self.causal, self.layer = layer.d_model, layer.causal, layer
        A, B, *C = layer.matrices()
        self.directions = nn.ModuleList(
            Systems(diagonal_system(A.unsqueeze(0), B.T.unsqueeze(0), part.T.unsqueeze(0)))
            for part in C
        )

    def mix(
        self,
        x: Activations,
        state: S5State | None,
        cu_seqlens: Offsets | None,
        return_state: bool,
    ) -> tuple[Activations, S5State | None]:
        """See `SequenceLayer.mix`."""
        refuse_packed(cu_seqlens)
        forward, *backward = self.directions
        u = x.unsqueeze(2)  # one system
        y, after = forward(u, None if state is None else state.x.unsqueeze(1))
        for systems in backward:
            y = y + systems(u, reverse=True)[0]
        y = y.squeeze(2)
        y = y + self.layer.D.to(y.dtype) * x.to(y.dtype)
        return self.layer.finish(y, x, cu_seqlens), S5State(after.squeeze(1))
