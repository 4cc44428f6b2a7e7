"""The kernel of S4D: powers of a diagonal state matrix, summed over the states.

Source: Gu, Gupta, Goel & Re 2022, arXiv:2206.11893, section 3 (S4D).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ssm_core.hippo import DiagonalInit, diagonal_spectrum
from ssm_core.layers.convolution_config import ConvolutionConfig
from ssm_core.layers.discretize import Discretization, discretize
from ssm_core.layers.state_space_kernel import StateSpaceKernel
from ssm_core.shapes import Activations, ConvolutionKernel, DiagonalState, Offsets
from ssm_kernels import log_vandermonde, selective_scan
from ssm_kernels.checks import COMPLEX_OF


class S4DKernel(StateSpaceKernel):
    """h diagonal models; K[t] = 2 Re sum_n C_n Bbar_n Abar_n^t.

    Cost: O(c h n l) time for the kernels, O(b c h n l) for the recurrence; memory for the results
    alone, never (h, n, l).
    """

    def __init__(
        self, d_model: int, config: ConvolutionConfig, init: DiagonalInit, disc: Discretization
    ) -> None:
        super().__init__(d_model, config, *diagonal_spectrum(init, config.d_state))
        self.disc = disc

    def forward(self, l: int) -> ConvolutionKernel:
        """Return the kernels K (c, h, l)."""
        log_A, B, C = self.discretized()
        return log_vandermonde(C * B, log_A, l).to(self.result_type())

    def scan(
        self, u: Activations, state: DiagonalState | None, cu_seqlens: Offsets | None
    ) -> tuple[Tensor, DiagonalState]:
        """Run x <- Abar x + Bbar u, y = 2 Re(C x) over u (b, l, h); see `StateSpaceKernel.scan`.

        In double precision: l multiplications by an Abar that is rounded to single move all
        frequencies, and the recurrence departs from the convolution.
        """
        single = u.shape[1] == 1 and state is not None and cu_seqlens is None
        if single and not torch.is_grad_enabled():
            assert state is not None
            y, state = _step(u, state, *self.kept_for_steps(torch.complex128))
        else:
            y, state = _scan(u.double(), state, cu_seqlens, *self.discretized())
        return y.to(u.dtype), state.to(COMPLEX_OF[self.result_type()])

    def for_steps(self) -> tuple[Tensor, ...]:
        """Return Abar (h, n), Bbar (h, n) and C (c, h, n), complex128."""
        log_A, B, C = self.discretized()
        # the exponential of a complex number is slow
        return torch.polar(log_A.real.exp(), log_A.imag), B, C

    def discretized(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return log Abar (h, n), Bbar (h, n) and C (c, h, n), complex128."""
        log_A, gain = discretize(self.disc, self.Lambda(), self.dt())
        B, C = self.B_and_C()
        return log_A, gain * B, C


def _step(u: Tensor, state: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    state = A * state + B * u.transpose(1, 2)
    return 2 * torch.einsum("bhn,chn->bch", state, C).real.unsqueeze(1), state


def _scan(
    u: Tensor,
    state: Tensor | None,
    cu_seqlens: Tensor | None,
    log_A: Tensor,
    B: Tensor,
    C: Tensor,
) -> tuple[Tensor, Tensor]:
    (c, h, _), (b, l, _) = C.shape, u.shape
    # A step of 1 leaves the operator nothing to discretise. It has one output per state, so every
    # channel has states of its own, all alike.
    y, state = selective_scan(
        u.repeat(1, 1, c),
        u.new_ones(()).expand(b, l, c * h),
        log_A.repeat(c, 1),
        B.repeat(c, 1),
        C.flatten(0, 1),
        initial_state=None if state is None else state.repeat(1, c, 1),
        return_final_state=True,
        cu_seqlens=cu_seqlens,
    )
    return y.unflatten(2, (c, h)), state[:, :h]
