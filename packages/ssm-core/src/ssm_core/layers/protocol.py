"""What every sequence layer can do: run over a sequence, in pieces, or one step at a time.

    y = layer(x)                                         # (b, l, d) -> (b, l, d)
    y, state = layer(x, state=state, return_state=True)  # continue; state=None starts anew
    y_t, state = layer.step(x_t, state)                  # (b, d) -> (b, d)
    state = layer.initial_state(batch)                   # the state before the first step

All three give the same y for the same x. A state is a NamedTuple of tensors (a pytree) with the
batch as first axis. Layers never write into a state they were given, and gradients flow into and
out of it; `detach_state` cuts them for truncated backpropagation through time.

Sequences of different lengths, from states of their own if wanted:

    y = layer(x, mask=mask)                  # (b, l, d), padding (left, right, between) is skipped
    y = layer(x, cu_seqlens=offsets)         # (1, total, d): sequences packed end to end
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeAlias

from torch import Tensor, nn

from ssm_core.errors import ConfigError
from ssm_core.keys import with_fields
from ssm_core.packing import check_mask, check_packed, pack, unpack
from ssm_core.shapes import Activations, Offsets, OneStep, StepMask
from ssm_kernels.errors import ShapeError, SsmError

LayerState: TypeAlias = Any
"""A NamedTuple of tensors, or (tower) a tuple of those; each layer has its own."""


class CausalityError(SsmError, RuntimeError):
    """A state or a single step was asked of a layer whose output depends on later steps."""


class StateError(SsmError, ValueError):
    """A state that does not belong to the layer or to the batch it was given with."""


class SequenceLayer(nn.Module):
    """Base of all sequence layers.

    A subclass sets `d_model` and `causal`, implements `mix`, and, if it is causal, sets
    `state_type` and implements `initial_state`.

    Attributes:
        d_model: width of input and output.
        causal: whether y[t] depends on x[0..t] only. States and steps exist only then.
        state_type: class of the layer's state, a NamedTuple (a plain tuple for blocks and towers).
    """

    d_model: int
    causal: bool = True
    state_type: type[tuple[Any, ...]] = tuple

    def forward(
        self,
        x: Activations,
        state: LayerState | None = None,
        *,
        return_state: bool = False,
        cu_seqlens: Offsets | None = None,
        mask: StepMask | None = None,
    ) -> Activations | tuple[Activations, LayerState]:
        """Map x (b, l, d) to y (b, l, d), any l >= 0.

        Args:
            state: where to continue from; None means the zero state.
            return_state: also return the state after the last step.
            cu_seqlens: offsets [0, .., l] of sequences packed in x (1, l, d). None reaches into
                another; states are those of the sequences, (sequences, ..).
            mask: (b, l), True on real steps. Padding, wherever it is, is skipped: the real steps
                are mixed as if they followed one another, and y is 0 on the others. Waits for the
                device to count the steps.
        Raises:
            ShapeError: x is not (b, l, d_model), or `mask` not (b, l).
            DTypeError: `mask` is not boolean, `cu_seqlens` not integer.
            ArgumentError: offsets that do not fit, or both offsets and a mask.
            StateError: the state is of another layer or another batch size.
            CausalityError: a state was given to or asked of a layer that is not causal.
        """
        self.check_call(x, state, return_state, cu_seqlens)
        if mask is not None:
            check_mask(type(self).__name__, x, mask, cu_seqlens)
            packed, cu_seqlens = pack(x, mask)
            y, final_state = self.mix(packed, state, cu_seqlens, return_state)
            y = unpack(y, mask)
        else:
            y, final_state = self.mix(x, state, cu_seqlens, return_state)
        return (y, final_state) if return_state else y

    def mix(
        self,
        x: Activations,
        state: LayerState | None,
        cu_seqlens: Offsets | None,
        return_state: bool,
    ) -> tuple[Activations, LayerState | None]:
        """Do what `forward` says, with checked arguments; without `return_state` any state will do.

        With `cu_seqlens` there are as many states as sequences.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement mix")

    def initial_state(self, batch: int) -> LayerState:
        """Return the state before the first step, for `batch` sequences.

        Raises:
            CausalityError: the layer is not causal.
        """
        self._require_causal("initial_state")
        raise NotImplementedError(f"{type(self).__name__} does not implement initial_state")

    def step(self, x_t: OneStep, state: LayerState) -> tuple[OneStep, LayerState]:
        """Map one step x_t (b, d) to y_t (b, d) and return the next state.

        Raises:
            ShapeError: x_t is not (b, d_model).
            CausalityError: the layer is not causal.
        """
        self._require_causal("step")
        if x_t.dim() != 2 or x_t.shape[1] != self.d_model:
            raise ShapeError(
                f"{type(self).__name__}.step: x_t has shape {tuple(x_t.shape)}, "
                f"expected (b, d) = (b, {self.d_model}); pass a whole sequence to the layer itself"
            )
        y, state = self(x_t.unsqueeze(1), state=state, return_state=True)
        return y.squeeze(1), state

    def resized(self, sizes: Mapping[str, Any]) -> SequenceLayer:
        """Return a new, untrained layer like this one in which fields of the configuration differ.

        Raises:
            UnknownNameError: the configuration has no such field.
            ConfigError: the layer has no configuration, or one that refuses the values.
        """
        config = getattr(self, "config", None)
        if not dataclasses.is_dataclass(config) or isinstance(config, type):
            raise ConfigError(
                f"{type(self).__name__}: has no `config`, expected a dataclass whose fields are "
                "the sizes; implement `resized` to let it be made smaller"
            )
        new: SequenceLayer = type(self)(
            self.d_model, with_fields(config, sizes, type(self).__name__)
        )
        return new

    def check_call(
        self,
        x: Tensor,
        state: LayerState | None = None,
        return_state: bool = False,
        cu_seqlens: Offsets | None = None,
    ) -> None:
        """Check the arguments of `forward`; raise as documented there."""
        if x.dim() != 3 or x.shape[2] != self.d_model:
            raise ShapeError(
                f"{type(self).__name__}: x has shape {tuple(x.shape)}, "
                f"expected (b, l, d) = (b, l, {self.d_model})"
            )
        sequences = x.shape[0]
        if cu_seqlens is not None:
            sequences = check_packed(type(self).__name__, x, cu_seqlens)
        if state is not None or return_state:
            self._require_causal("a state")
        if state is not None:
            self._check_state(sequences, state)

    def _check_state(self, batch: int, state: LayerState) -> None:
        name, expected = type(self).__name__, self.state_type
        if not isinstance(state, expected):
            raise StateError(
                f"{name}: state is a {type(state).__name__}, expected {expected.__name__}; "
                "start from initial_state(batch)"
            )
        for field in state:
            if isinstance(field, Tensor) and field.shape[:1] != (batch,):
                raise StateError(
                    f"{name}: state has shape {tuple(field.shape)} for a batch of {batch}, "
                    f"expected {batch} as its first axis"
                )

    def _require_causal(self, wanted: str) -> None:
        if not self.causal:
            raise CausalityError(
                f"{type(self).__name__}: {wanted} needs a causal layer, but this one reads later "
                "steps too; call it on whole sequences, or use a causal layer"
            )


def detach_state(state: LayerState) -> LayerState:
    """Return the state cut off from the graph that made it, for the next piece of a long sequence.

    Truncated backpropagation through time: gradients then end where this state begins.
    """
    if isinstance(state, Tensor):
        return state.detach()
    parts = (detach_state(part) for part in state)
    return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)
