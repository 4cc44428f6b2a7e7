"""The kernel of S4: parameters, convolution kernel and recurrence of h diagonal plus low-rank models.

The parameter C holds C~ = C (1 - Abar^l_kernel) (see `ssm_core.layers.dplr`), as in official
checkpoints, where the buffer `l_kernel` tells for how many steps. There a new kernel has
l_kernel = 0 and the true C until its first call; here C~ is made at construction, and right after
loading such a checkpoint, so that a call changes no parameter unless it needs more steps.

Source: Gu, Goel & Re 2021, arXiv:2111.00396; Gu et al. 2022, arXiv:2206.12037 (initial values).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssm_core.hippo import confined_B, legs
from ssm_core.init import inverse_softplus
from ssm_core.layers import dplr
from ssm_core.layers.dplr_scan import chunk_length, chunk_tables, scan_chunks
from ssm_core.packing import pack, steps_of, unpack
from ssm_core.shapes import Offsets
from ssm_kernels.checks import COMPLEX_OF
from ssm_kernels.errors import SsmError


class KernelLengthError(SsmError, RuntimeError):
    """More steps than the kernel is made for, where it cannot be lengthened."""


class S4KernelSizes(NamedTuple):
    """Sizes and initial step sizes of a kernel."""

    features: int
    d_state: int
    channels: int
    copies: int
    l_max: int
    dt_range: tuple[float, float]
    softplus: bool


class _Decoding(NamedTuple):
    """What a single step needs, and the parameters it was made from."""

    model: dplr.Discrete
    C: Tensor
    made_from: list[tuple[Tensor, int]]


class S4Kernel(nn.Module):
    """h models of N states each, c outputs per model.

    Parameters (n = N/2 conjugate pairs, S copies): inv_dt (h, 1), A_real and A_imag (S, n),
    B (1, S, n, 2), C (c, h, n, 2), P (1, S, n, 2); buffer l_kernel. Lambda = -exp(A_real)
    - i A_imag, dt = exp(inv_dt) or softplus(inv_dt); copy s serves the features s, s + S, ..

    Attributes:
        length: l_kernel as an int, so that no call waits for a device to learn it.
    """

    l_kernel: Tensor

    def __init__(self, sizes: S4KernelSizes) -> None:
        super().__init__()
        self.sizes = sizes
        h, n, c, copies = sizes.features, sizes.d_state // 2, sizes.channels, sizes.copies
        log_dt = torch.empty(h, 1).uniform_(*(math.log(dt) for dt in sizes.dt_range))
        self.inv_dt = nn.Parameter(inverse_softplus(log_dt.exp()) if sizes.softplus else log_dt)
        start = legs(sizes.d_state)
        self.A_real = nn.Parameter(_copied(torch.log(-start.Lambda.real), copies))
        self.A_imag = nn.Parameter(_copied(-start.Lambda.imag, copies))
        B, P = confined_B(start.B), start.P
        self.B = nn.Parameter(_copied(torch.view_as_real(B), copies).unsqueeze(0))
        self.P = nn.Parameter(_copied(torch.view_as_real(P), copies).unsqueeze(0))
        # complex numbers of variance 1
        self.C = nn.Parameter(torch.randn(c, h, n, 2) * math.sqrt(0.5))
        self.length = sizes.l_max
        self.register_buffer("l_kernel", torch.tensor(self.length))
        self._absorb()
        self._decoding: _Decoding | None = None

    def forward(self, l: int) -> Tensor:
        """Return the convolution kernels K (c, h, l), at least in float32.

        More steps than `length` lengthen the kernel first.

        Raises:
            KernelLengthError: more steps in a compiled or exported graph.
        """
        if l > self.length:
            if torch.compiler.is_compiling():
                raise KernelLengthError(
                    f"S4: {l} steps in a compiled graph, but the kernel has {self.length}; "
                    f"call layer.kernel.lengthen(steps) before compiling, or set l_max"
                )
            self.lengthen(l)
        with self._exact():
            dtype = COMPLEX_OF[self._real()]
            model, C = self._model()
            return dplr.convolution_kernel(model, C, self.length, dtype)[..., :l]

    @torch.no_grad()
    def lengthen(self, l: int) -> None:
        """Double `length` until it is at least l; the models stay the same, C changes in place."""
        model, C = self._model()
        A_power = dplr.power(dplr.as_matrix(dplr.discretise(model)), self.length)
        while self.length < l:
            C = dplr.double(C, A_power)
            A_power = A_power @ A_power
            self.length *= 2
        self._store(C)

    def scan(
        self, u: Tensor, state: Tensor | None = None, cu_seqlens: Offsets | None = None
    ) -> tuple[Tensor, Tensor]:
        """Run the recurrence over u (b, l, h).

        Args:
            state: complex (b, h, n) before the first step; None means 0.
            cu_seqlens: offsets of sequences packed in u (1, l, h), which have states of their own.
        Returns:
            y (b, l, c, h) and the state (b, h, n) after the last step.

        Cost: O(h N^3 log l_kernel) to recover C, then O(l) steps (`dplr_scan`). A single step
        without gradient costs O(b h n): what it needs is kept until a parameter changes.
        """
        real = torch.promote_types(self._real(), u.dtype)
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
            return self._chunks(u, state, torch.full_like(u[:, 0, 0], u.shape[1]).long())

    def zero_state(self, batch: int) -> Tensor:
        """Return the state (b, h, n) before the first step, complex."""
        _, h, n, _ = self.C.shape
        return self.C.new_zeros(batch, h, n, dtype=COMPLEX_OF[self._real()])

    def _chunks(self, u: Tensor, state: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        discrete, A, C = self._recurrence()
        tables = chunk_tables(discrete, A, C, chunk_length(u.shape[1]), u.dtype)
        return scan_chunks(tables, u, state, lengths)

    def _step(self, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        model, C = self._decoder(state.dtype)
        state = dplr.step(model, state, u)
        return dplr.both(C * state.unsqueeze(1)).unsqueeze(1), state

    def _decoder(self, dtype: torch.dtype) -> tuple[dplr.Discrete, Tensor]:
        """Return what single steps need, from the last call if no parameter changed since."""
        parameters = list(self.parameters())
        keeps = not torch.compiler.is_compiling() and not any(p.is_inference() for p in parameters)
        made_from = [(p, p._version) for p in parameters] if keeps else []
        kept = self._decoding
        if keeps and kept is not None and kept.C.dtype is dtype:
            pairs = zip(kept.made_from, made_from, strict=True)
            if all(p is q and old == new for (p, old), (q, new) in pairs):
                return kept.model, kept.C
        model, _, C = self._recurrence()
        model, C = dplr.Discrete(*(part.to(dtype) for part in model)), C.to(dtype)
        if keeps:
            self._decoding = _Decoding(model, C, made_from)
        return model, C

    def _recurrence(self) -> tuple[dplr.Discrete, Tensor, Tensor]:
        """Return the discrete model, Abar as a matrix and the true C, in double precision."""
        model, C = self._model()
        discrete = dplr.discretise(model)
        A = dplr.as_matrix(discrete)
        return discrete, A, dplr.recover(C, dplr.power(A, self.length))

    def _model(self) -> tuple[dplr.DPLR, Tensor]:
        """Return the continuous model and C~ (c, h, n), in double precision.

        Rounding errors of dt Lambda are those of frequencies: they grow with the steps.
        """
        inv_dt = self.inv_dt.double()
        dt = F.softplus(inv_dt) if self.sizes.softplus else torch.exp(inv_dt)
        Lambda = torch.complex(-torch.exp(self.A_real.double()), -self.A_imag.double())
        repeats = (self.sizes.features // self.sizes.copies, 1)
        Lambda = Lambda.repeat(repeats)
        B, P = (_complex(part).squeeze(0).repeat(repeats) for part in (self.B, self.P))
        return dplr.DPLR(dt * Lambda, dt * P, P.conj(), dt * B), _complex(self.C)

    @torch.no_grad()
    def _absorb(self) -> None:
        """Turn the true C into C~ for `length` steps, in place."""
        model, C = self._model()
        A = dplr.as_matrix(dplr.discretise(model))
        self._store(dplr.absorb(C, dplr.power(A, self.length)))

    def _store(self, C: Tensor) -> None:
        self.C.copy_(torch.view_as_real(C.resolve_conj()))
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

    def _apply(self, *args: Any, **kwargs: Any) -> S4Kernel:
        self._decoding = None
        return super()._apply(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_decoding": None}


def _copied(x: Tensor, copies: int) -> Tensor:
    """Return x repeated along a new first axis, in the default type."""
    return x.to(torch.get_default_dtype()).expand(copies, *x.shape).contiguous()


def _complex(pairs: Tensor) -> Tensor:
    """Return pairs (..., 2) as complex128 numbers."""
    pairs = pairs.double()
    return torch.complex(pairs[..., 0], pairs[..., 1])
