"""The parameters that S4 and S4D have in common, and what a layer asks of either.

h single-input single-output models x' = A x + B u, y = 2 Re(C x), one per feature, each with n
states of which one of every conjugate pair is stored. Names and shapes are those of the official
checkpoints, with S copies of A and B, c kernels and N = 2 n states (d_state):

    inv_dt (h, 1 or n)    A_real, A_imag (S, n)    B (1, S, n, 2)    C (c, h, n, 2)
    dt = f(inv_dt)        Lambda = -g(A_real) - i A_imag             complex numbers as pairs
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssm_core.errors import ConfigError
from ssm_core.init import exempt_from_reinit, inverse_softplus, learn_at
from ssm_core.layers.convolution_config import ConvolutionConfig
from ssm_core.layers.long_convolution import bidirectional_convolution, long_convolution
from ssm_core.shapes import Activations, ConvolutionKernel, DiagonalState, Offsets
from ssm_kernels.checks import COMPLEX_OF

#: What lies beyond has no use as a rate or a step size; between them products of two of either and
#: their squares stay within float32, and none is 0.
_LARGEST_EXPONENT = 40.0
_SMALLEST = math.exp(-_LARGEST_EXPONENT)
#: As in the official implementation, where relu is never exactly 0 and no value is stored below.
_LEAST = 1e-4


def _exp(x: Tensor) -> Tensor:
    return torch.exp(x.clamp(-_LARGEST_EXPONENT, _LARGEST_EXPONENT))


#: What makes a stored number positive, and its inverse.
_TRANSFORMS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "exp": (_exp, torch.log),
    "softplus": (lambda x: F.softplus(x).clamp(min=_SMALLEST), inverse_softplus),
    "relu": (lambda x: F.relu(x) + _LEAST, lambda x: x),
    "sigmoid": (lambda x: torch.sigmoid(x).clamp(min=_SMALLEST), torch.logit),
}


class _Kept(NamedTuple):
    """What single steps need, and the versions of the tensors it was made from."""

    parts: tuple[Tensor, ...]
    made_from: list[tuple[Tensor, int]]


class StateSpaceKernel(nn.Module):
    """Base of the kernels of S4 and S4D, which implement `forward`, `scan` and `for_steps`."""

    _kept: _Kept | None = None

    def __init__(self, d_model: int, config: ConvolutionConfig, Lambda: Tensor, B: Tensor) -> None:
        """Start every feature with the eigenvalues Lambda (n,) and the input matrix B (n,).

        Raises:
            ConfigError: the copies do not divide the features.
        """
        super().__init__()
        self.config = config
        self.copies = config.n_ssm or d_model
        if d_model % self.copies:
            raise ConfigError(
                f"{type(config).__name__}: n_ssm is {self.copies}, expected a divisor of d_model, "
                f"{d_model}"
            )
        self.repeats = d_model // self.copies
        n = len(Lambda)
        kernels = config.channels * (2 if config.bidirectional else 1)
        inverse = _TRANSFORMS[config.real_transform][1]

        def parameter(value: Tensor, lr: float | None) -> nn.Parameter:
            return exempt_from_reinit(learn_at(nn.Parameter(_stored(value)), lr))

        log_dt = torch.empty(d_model, 1 if config.dt_tie else n)
        log_dt.uniform_(math.log(config.dt_min), math.log(config.dt_max))
        is_log = config.dt_transform == "exp"
        inv_dt = log_dt if is_log else _TRANSFORMS[config.dt_transform][1](log_dt.exp())
        self.inv_dt = parameter(inv_dt, config.lr_dt)
        # the clamp is the official one; it makes the frequency 0 of S4D-Lin a very small one
        decay, frequency = -Lambda.real.clamp(max=-_LEAST), -Lambda.imag.clamp(max=-_LEAST)
        self.A_real = parameter(self._per_copy(inverse(decay)), config.lr)
        self.A_imag = parameter(self._per_copy(frequency), config.lr)
        B = torch.view_as_real(self._per_copy(B)).unsqueeze(0)
        if config.train_B:
            self.B = parameter(B, config.lr)
        else:
            self.register_buffer("B", _stored(B))
        C = torch.randn(kernels, d_model, n, 2) * math.sqrt(0.5)
        self.C = exempt_from_reinit(learn_at(nn.Parameter(C), config.lr_C, weight_decay=None))

    def forward(self, l: int) -> ConvolutionKernel:
        """Return the kernels K (c, h, l), real; the forward ones before the backward ones."""
        raise NotImplementedError(f"{type(self).__name__} does not implement forward")

    def convolve(self, u: Activations) -> Tensor:
        """Return K * u (b, l, c, h) for u (b, l, h), with the backward kernels where there are."""
        K = self(u.shape[1])
        if not self.config.bidirectional:
            return long_convolution(u, K)
        return bidirectional_convolution(u, *K.chunk(2))

    def scan(
        self, u: Activations, state: DiagonalState | None, cu_seqlens: Offsets | None
    ) -> tuple[Tensor, DiagonalState]:
        """Run the recurrence over u (b, l, h); with `cu_seqlens` packed sequences.

        Returns:
            y (b, l, c, h) and the state (b, h, n) after the last step; with `cu_seqlens` there are
            as many states as sequences.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement scan")

    def for_steps(self) -> tuple[Tensor, ...]:
        """Return what a single step needs, made from the parameters, in double precision."""
        raise NotImplementedError(f"{type(self).__name__} does not implement for_steps")

    def kept_for_steps(self, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """Return `for_steps` in `dtype`, from the last call if no parameter changed since.

        A change through `parameter.data` goes unnoticed: it has no version.
        """
        tensors = [*self.parameters(), *self.buffers()]
        if torch.compiler.is_compiling() or any(t.is_inference() for t in tensors):
            return tuple(part.to(dtype) for part in self.for_steps())
        made_from = [(t, t._version) for t in tensors]
        kept = self._kept
        if kept is not None and kept.parts[0].dtype is dtype:
            pairs = zip(kept.made_from, made_from, strict=True)
            if all(t is own and old == new for (t, old), (own, new) in pairs):
                return kept.parts
        parts = tuple(part.to(dtype) for part in self.for_steps())
        self._kept = _Kept(parts, made_from)
        return parts

    def zero_state(self, batch: int) -> DiagonalState:
        """Return the state (b, h, n) before the first step of `batch` sequences, complex."""
        _, h, n, _ = self.C.shape
        return self.C.new_zeros(batch, h, n, dtype=COMPLEX_OF[self.result_type()])

    def result_type(self) -> torch.dtype:
        """Return the type of kernels, and of the parts of states: float64 in a model of float64."""
        return torch.float64 if self.C.dtype is torch.float64 else torch.float32

    def dt(self) -> Tensor:
        """Return the step sizes (h, 1), or (h, n) if they are not tied, in double precision.

        What is computed from parameters alone is small, so it costs nothing to have it exact; and a
        rounding error of dt Lambda is one of a frequency, whose effect grows with every step.
        """
        return _TRANSFORMS[self.config.dt_transform][0](self.inv_dt.double())

    def Lambda(self) -> Tensor:
        """Return the eigenvalues (h, n), complex128."""
        decay = _TRANSFORMS[self.config.real_transform][0](self.A_real.double())
        return self.per_feature(torch.complex(-decay, -self.A_imag.double()))

    def B_and_C(self) -> tuple[Tensor, Tensor]:
        """Return B (h, n) and C (c, h, n), complex128."""
        return self.per_feature(as_complex(self.B).squeeze(0)), as_complex(self.C)

    def per_feature(self, x: Tensor) -> Tensor:
        """Return x (.., S, n) for every feature, (.., h, n): feature i uses copy i modulo S."""
        return x if self.repeats == 1 else torch.cat([x] * self.repeats, dim=-2)

    def _apply(self, *args: Any, **kwargs: Any) -> StateSpaceKernel:
        self._kept = None
        return super()._apply(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": None}

    def _per_copy(self, x: Tensor) -> Tensor:
        return x.expand(self.copies, -1)


def _stored(x: Tensor) -> Tensor:
    # contiguous: copies of a row, and parts of complex numbers, are views of something else
    return x.to(torch.get_default_dtype()).contiguous()


def as_complex(pairs: Tensor) -> Tensor:
    """Return pairs (.., 2) of real and imaginary parts as complex numbers, complex128."""
    return torch.complex(*pairs.double().unbind(-1))
