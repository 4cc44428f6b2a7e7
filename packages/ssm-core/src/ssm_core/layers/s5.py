"""S5: one diagonal state space model with many inputs and outputs, and a gate behind it.

Parameter names, shapes and initial values are those of the official JAX code. The norm and the
residual sum around it belong to the block.

Source: Smith, Warrington & Linderman 2023, arXiv:2208.04933.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssm_core.init import exempt_from_reinit, learn_at
from ssm_core.layers import s5_init
from ssm_core.layers.checks import positive_int
from ssm_core.layers.discretize import discretize
from ssm_core.layers.dropout import drop_features
from ssm_core.layers.protocol import SequenceLayer
from ssm_core.layers.s5_config import S5Config
from ssm_core.layers.s5_ssm import advance, drive, read
from ssm_core.shapes import Activations, Offsets, SystemState
from ssm_kernels import diagonal_scan

#: With clip_eigs no real part of an eigenvalue is above this.
_LARGEST_REAL_PART = -1e-4


class S5State(NamedTuple):
    """State of an S5 layer."""

    x: SystemState
    """(b, p) complex64 or complex128: the state of the model after the last step."""


class S5(SequenceLayer):
    """S5 layer, (b, l, d) -> (b, l, d); causal unless bidirectional.

    With h = d features and p stored states:

        Lb, Bb = discretise(Lambda, B, step_rescale exp(log_step))
        x[t] = Lb x[t-1] + Bb u[t]                      (b, p) complex
        y[t] = k Re(C x[t]) + D u[t]                    k = 2 with conj_sym, else 1

    and then the activation. A bidirectional layer adds k Re(C2 x'[t]) with x' running from the last
    step to the first; both directions see u[t].

    Parameters: Lambda_re, Lambda_im (p,), B (p, h, 2), C (h, p, 2), D (h,), log_step (p, 1), the
    last axes of 2 real and imaginary; instead of C a bidirectional layer has C1 and C2, or with
    C_init "complex_normal" one C (h, 2p, 2). The gates out1, out2 are Linear (h, h). The model is
    computed in float32 (complex64) also under autocast, in float64 for float64.

    In training with dropout a whole sequence has one mask; pieces and steps have their own.

    Cost: O(b l d (p + d)) time, b l p complex numbers of memory (twice for both directions); a
    state of p complex numbers per sequence.
    """

    state_type = S5State
    Lambda_re: nn.Parameter
    Lambda_im: nn.Parameter
    log_step: nn.Parameter
    B: nn.Parameter
    C: nn.Parameter
    C1: nn.Parameter
    C2: nn.Parameter

    def __init__(self, d_model: int, config: S5Config | None = None) -> None:
        super().__init__()
        self.config = config = config or S5Config()
        self.d_model = positive_int("S5", "d_model", d_model)
        self.causal = not config.bidirectional
        self._make_model(config)
        if config.activation == "full_glu":
            self.out1 = s5_init.gate(d_model)
        if config.activation not in ("gelu", None):
            self.out2 = s5_init.gate(d_model)

    def _make_model(self, config: S5Config) -> None:
        blocks, h = config.blocks, self.d_model
        basis = s5_init.basis_of_block(config.d_state // blocks, config.conj_sym)
        Lambda_re, Lambda_im = s5_init.initial_Lambda(basis, blocks)
        log_step = s5_init.initial_log_step(len(Lambda_re), config.dt_min, config.dt_max)
        slow = {
            "Lambda_re": Lambda_re,
            "Lambda_im": Lambda_im,
            "log_step": log_step,
            "B": s5_init.initial_B(basis, blocks, h),
        }
        for name, value in slow.items():
            parameter = learn_at(nn.Parameter(value), config.lr)
            self.register_parameter(name, exempt_from_reinit(parameter))
        directions = ["C1", "C2"] if config.bidirectional else ["C"]
        C = [s5_init.initial_C(basis, blocks, h, config.C_init) for _ in directions]
        if config.C_init == "complex_normal":
            directions, C = ["C"], [torch.cat(C, dim=1)]
        for name, value in zip(directions, C, strict=True):
            self.register_parameter(name, exempt_from_reinit(nn.Parameter(value)))
        self.D = nn.Parameter(torch.randn(h, dtype=torch.float32))

    def mix(
        self,
        x: Activations,
        state: S5State | None,
        cu_seqlens: Offsets | None,
        return_state: bool,
    ) -> tuple[Activations, S5State | None]:
        """Mix x (b, l, d) over its steps; see `SequenceLayer.forward`."""
        with torch.autocast(x.device.type, enabled=False):
            y, state = self._run_model(x, state, cu_seqlens)
        return self.finish(y, x, cu_seqlens), state

    def initial_state(self, batch: int) -> S5State:
        """Return the zero state for `batch` sequences."""
        self._require_causal("initial_state")
        dtype = _compute_type(self.B).to_complex()
        return S5State(self.B.new_zeros(batch, self.B.shape[0], dtype=dtype))

    def matrices(self) -> tuple[Tensor, ...]:
        """Return the diagonal of Lb (p,), Bb (p, h) and k C (h, p) of every direction, complex."""
        dtype = _compute_type(self.B)
        factor, gain = self._discretized(dtype)
        B, *C = (torch.view_as_complex(part.to(dtype)) for part in (self.B, *self._directions()))
        return factor, gain.unsqueeze(1) * B, *(self._scale() * part for part in C)

    def finish(self, y: Activations, x: Activations, cu_seqlens: Offsets | None) -> Activations:
        """Return the layer's output for x from the model's, y (b, l, d)."""
        return self._activate(y, cu_seqlens).to(self._output_type(x))

    def _run_model(
        self, x: Activations, state: S5State | None, cu_seqlens: Offsets | None
    ) -> tuple[Activations, S5State]:
        """Return y (b, l, d) in float32 or float64, before the activation, and the state."""
        u = x.to(_compute_type(x, self.B))
        B = torch.view_as_complex(self.B.to(u.dtype))
        C, *C_backward = (torch.view_as_complex(part.to(u.dtype)) for part in self._directions())
        factor, gain = self._discretized(u.dtype)
        start = None if state is None else state.x
        if start is not None and cu_seqlens is None and x.shape[1] == 1:
            y, last = advance(u.squeeze(1), start.to(B.dtype), factor, gain, B, C)
            y = y.unsqueeze(1)
        else:
            # three axes like the input's: compared with one, they would tie the graph to a batch
            factor = factor.expand(1, 1, -1)
            scan: Callable[..., Any] = partial(
                diagonal_scan, factor, drive(u, gain, B), cu_seqlens=cu_seqlens
            )
            states, last = scan(initial_state=start, return_final_state=True)
            y = read(states, C)
            for C_b in C_backward:
                y = y + read(scan(reverse=True), C_b)
        return torch.add(self.D.to(u.dtype) * u, y, alpha=self._scale()), S5State(last)

    def _scale(self) -> int:
        return 2 if self.config.conj_sym else 1

    def _discretized(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return the factor of a step and the gain of B, both (p,) and complex."""
        decay = self.Lambda_re.to(dtype)
        if self.config.clip_eigs:
            decay = decay.clamp(max=_LARGEST_REAL_PART)
        Lambda = torch.complex(decay, self.Lambda_im.to(dtype))
        step = self.config.step_rescale * torch.exp(self.log_step.to(dtype).squeeze(1))
        log_factor, gain = discretize(self.config.discretization, Lambda, step)
        return torch.exp(log_factor), gain

    def _directions(self) -> tuple[Tensor, ...]:
        """Return C (h, p, 2) of every direction."""
        if not self.config.bidirectional:
            return (self.C,)
        if self.config.C_init == "complex_normal":
            return self.C.chunk(2, dim=1)
        return self.C1, self.C2

    def _activate(self, y: Activations, cu_seqlens: Offsets | None) -> Activations:
        kind = self.config.activation
        if kind is None:
            return y
        g = self._drop(F.gelu(y, approximate="tanh"), cu_seqlens)
        if kind == "gelu":
            return g
        narrow = g.to(self.out2.weight.dtype)
        value = y if kind == "half_glu2" else g
        if kind == "full_glu":
            value = self.out1(narrow)
        return self._drop(value * torch.sigmoid(self.out2(narrow)), cu_seqlens)

    def _drop(self, y: Activations, cu_seqlens: Offsets | None) -> Activations:
        return drop_features(y, self.config.dropout, self.training, cu_seqlens)

    def _output_type(self, x: Tensor) -> torch.dtype:
        """Return the type of what a Linear of this layer would make of x."""
        own, device = self.B.dtype, x.device.type
        if own is not torch.float64 and torch.is_autocast_enabled(device):
            return torch.get_autocast_dtype(device)
        return own


def _compute_type(*tensors: Tensor) -> torch.dtype:
    """Return float64 if one of the tensors has it, else float32."""
    is_double = any(t.dtype is torch.float64 for t in tensors)
    return torch.float64 if is_double else torch.float32
