"""The kernel of S4: convolution kernels and recurrence of diagonal plus low-rank models.

The parameter C holds C~ = C (1 - Abar^l_kernel) (see `ssm_core.layers.dplr`), as in official
checkpoints, where the buffer `l_kernel` tells for how many steps. There a new kernel has
l_kernel = 0 and the true C until its first call; here C~ is made at construction, and right after
loading such a checkpoint, so that a call changes no parameter unless it needs more steps.

Source: Gu, Goel & Re 2021, arXiv:2111.00396; Gu et al. 2022, arXiv:2206.12037 (initial values).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssm_core.hippo import confined_B, legs
from ssm_core.init import exempt_from_reinit, learn_at
from ssm_core.layers import dplr
from ssm_core.layers.convolution_config import ConvolutionConfig
from ssm_core.layers.dplr_scan import TracedLengthError, chunk_length, chunk_tables, scan_chunks
from ssm_core.layers.state_space_kernel import StateSpaceKernel, as_complex
from ssm_core.packing import pack, steps_of, unpack
from ssm_core.shapes import Activations, ConvolutionKernel, DiagonalState, Offsets
from ssm_kernels.checks import COMPLEX_OF

#: |dt Lambda| is confined to this: single precision then has room for squares and gradients, and C
#: can be recovered. Nobody will see it: beyond the far end Abar differs from its limit, -1, by less
#: than 4e-6, and before the near one from 1 by less than what 10^9 steps would show.
_LEAST_STEP, _LARGEST_STEP = 1e-10, 1e6


class S4Kernel(StateSpaceKernel):
    """h diagonal plus low-rank models; K[j] = C Abar^j Bbar, bilinear.

    Besides the parameters of the base: P (1, S, n, 2) and the buffer l_kernel.

    Attributes:
        length: l_kernel as an int, so that no call waits for a device to learn it.

    Cost: O(c h n l_kernel + c h l_kernel log l_kernel) time for the kernels, of any length.
    """

    l_kernel: Tensor

    def __init__(self, d_model: int, config: ConvolutionConfig, l_max: int) -> None:
        start = legs(config.d_state)
        super().__init__(d_model, config, start.Lambda, confined_B(start.B))
        P = torch.view_as_real(start.P).to(torch.get_default_dtype())
        P = P.expand(1, self.copies, -1, -1).contiguous()
        self.P = exempt_from_reinit(learn_at(nn.Parameter(P), config.lr))
        self.length = l_max
        self.register_buffer("l_kernel", torch.tensor(l_max))
        self._absorb()

    def forward(self, l: int) -> ConvolutionKernel:
        """Return the kernels K (c, h, l). More steps than `length` lengthen the kernel first.

        Raises:
            TracedLengthError: more steps in a compiled or exported graph.
        """
        if _is_exported_beyond(self.length, l):
            return self._of_any_length(l)
        if l > self.length:
            if torch.compiler.is_compiling():
                raise TracedLengthError(
                    f"S4: {l} steps in a compiled graph of a kernel for {self.length}, expected at "
                    "most so many; call layer.kernel.lengthen(steps) before, or set l_max"
                )
            self.lengthen(l)
        with self._exact():
            model, C = self._model()
            K = dplr.convolution_kernel(model, C, self.length, COMPLEX_OF[self._real()])
        if torch.compiler.is_compiling():
            K = F.pad(K, (0, 1))  # taking a part, not all, in a graph for up to `length` steps
        return K[..., :l]

    def _of_any_length(self, l: int) -> ConvolutionKernel:
        with self._exact():
            _, A, C = self._recurrence()
            model, _ = self._model()
            steps = 2 * l + 2  # even, and longer than l, whatever l is
            C = dplr.absorb_steps(C, A, steps)
            K = dplr.convolution_kernel(model, C, steps, COMPLEX_OF[self._real()])
        return K[..., :l]

    @torch.no_grad()
    def lengthen(self, l: int) -> None:
        """Double `length` until it is at least l. The models stay what they are, C~ changes.

        Cost: O(h N^3 log l) time. A call with more steps than `length` does this by itself; where
        replicas train on sequences of different lengths, do it before, or set l_max, because the
        parameter is changed in place.
        """
        if l <= self.length:
            return
        model, C = self._model()
        A_power = dplr.power(dplr.as_matrix(dplr.discretise(model)), self.length)
        while self.length < l:
            C = dplr.double(C, A_power)
            A_power = A_power @ A_power
            self.length *= 2
        self._store(C)

    def scan(
        self,
        u: Activations,
        state: DiagonalState | None = None,
        cu_seqlens: Offsets | None = None,
    ) -> tuple[Tensor, DiagonalState]:
        """Run the recurrence over u (b, l, h); see `StateSpaceKernel.scan`.

        Cost: O(h N^3 log l_kernel) time to recover C (with a gradient, O(h N^2 log l_kernel)
        memory), then O(l) steps (see `dplr_scan`). A single step without gradient costs O(b h n):
        what it needs is kept until a parameter changes, but not in compiled graphs, which recover C
        in every step.
        """
        real = torch.float64 if u.dtype is torch.float64 else self._real()
        with self._exact():
            u = u.to(real)
            sequences = u.shape[0] if cu_seqlens is None else cu_seqlens.shape[0] - 1
            state = self.zero_state(sequences) if state is None else state
            state = state.to(COMPLEX_OF[real])
            if cu_seqlens is not None:
                steps = steps_of(cu_seqlens, u.device)
                y, state = self._chunks(unpack(u, steps), state, steps.sum(dim=1))
                return pack(y.flatten(2), steps).x.unflatten(2, y.shape[2:]), state
            if u.shape[1] == 1 and not torch.is_grad_enabled():
                return self._step(u.squeeze(1), state)
            lengths = torch.full((sequences,), u.shape[1], device=u.device)
            return self._chunks(u, state, lengths)

    def _chunks(self, u: Tensor, state: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        discrete, A, C = self._recurrence()
        tables = chunk_tables(discrete, A, C, chunk_length(u.shape[1]), u.dtype)
        return scan_chunks(tables, u, state, lengths)

    def _step(self, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        *parts, C = self.kept_for_steps(state.dtype)
        state = dplr.step(dplr.Discrete(*parts), state, u)
        return dplr.both(C * state.unsqueeze(1)).unsqueeze(1), state

    def for_steps(self) -> tuple[Tensor, ...]:
        """Return the discrete model and the true C."""
        model, _, C = self._recurrence()
        return *model, C

    def _recurrence(self) -> tuple[dplr.Discrete, Tensor, Tensor]:
        """Return the discrete model, Abar as a matrix and the true C, in double precision."""
        model, C = self._model()
        discrete = dplr.discretise(model)
        A = dplr.as_matrix(discrete)
        return discrete, A, dplr.recover(C, dplr.power(A, self.length))

    def _model(self) -> tuple[dplr.DPLR, Tensor]:
        """Return the continuous model and C~ (c, h, n), in double precision.

        A rounding error of dt Lambda is one of a frequency: what it does grows with the steps.
        """
        Lambda, dt = self.Lambda().to(torch.complex128), self.dt().double()
        dt = dt.clamp(_LEAST_STEP / Lambda.abs(), _LARGEST_STEP / Lambda.abs())  # per state
        B, P = (
            self.per_feature(as_complex(part).squeeze(0)).to(torch.complex128)
            for part in (self.B, self.P)
        )
        # a copy: what autograd keeps must not change when a longer sequence comes before backward
        C = as_complex(self.C.clone()).to(torch.complex128)
        return dplr.DPLR(dt * Lambda, dt * P, P.conj(), dt * B), C

    @torch.no_grad()
    def _absorb(self) -> None:
        """Turn the true C into C~ for `length` steps, in place."""
        model, C = self._model()
        A = dplr.as_matrix(dplr.discretise(model))
        self._store(dplr.absorb(C, dplr.power(A, self.length)))

    def _store(self, C: Tensor) -> None:
        self.C.copy_(torch.view_as_real(C))
        self.l_kernel.fill_(self.length)

    def _real(self) -> torch.dtype:
        return torch.float64 if self.C.dtype is torch.float64 else torch.float32

    def _exact(self) -> torch.autocast:
        return torch.autocast(self.C.device.type, enabled=False)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        loaded = state_dict.get(f"{prefix}l_kernel")
        if not isinstance(loaded, Tensor) or f"{prefix}C" not in state_dict:
            return
        if int(loaded) > 0:
            self.length = int(loaded)
        else:  # the true C, of a kernel that was never called
            self._absorb()


def _is_exported_beyond(length: int, l: int) -> bool:
    """Return whether a graph is being exported whose l steps may become more than `length`.

    A compiled graph is made anew for them, an exported one is not. (PyTorch 2.6 cannot tell one
    from the other; there the steps must be bounded, `torch.export.Dim("l", max=length)`.)
    """
    is_exporting = getattr(torch.compiler, "is_exporting", None)
    if is_exporting is None or not is_exporting():
        return False
    # here, because it brings sympy: a quarter of the time that importing this package takes
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    return not statically_known_true(l <= length)
