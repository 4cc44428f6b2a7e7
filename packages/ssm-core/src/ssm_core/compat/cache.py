"""The cache of a mixer while tokens are generated: tensors that every call writes into.

Layers of this library return new states. The originals keep two tensors per layer in a dictionary
of `InferenceParams`, written in place, and public decoding loops hold on to them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ssm_core.errors import ConfigError
from ssm_core.shapes import Inner, Offsets
from ssm_kernels.errors import ShapeError

States = tuple[Tensor, Tensor]
"""The convolution's inputs and the state of the scan."""

AnyStates = TypeVar("AnyStates", bound=tuple[Tensor, ...], covariant=True)


@dataclass
class InferenceParams:
    """What a decoding loop hands from call to call (`mamba_ssm.utils.generation`).

    Attributes:
        max_seqlen, max_batch_size: the most that is to come; nothing here needs them.
        seqlen_offset: steps read so far. 0: the next call reads a prompt and starts anew; otherwise
            it is one step. The loop counts it up.
        batch_size_offset: for loops that cut a batch into pieces.
        key_value_memory_dict: `layer_idx` of a layer -> its cache.
        lengths_per_sample: for loops over texts of different lengths.
    """

    max_seqlen: int
    max_batch_size: int
    seqlen_offset: int = 0
    batch_size_offset: int = 0
    key_value_memory_dict: dict[int, Any] = field(default_factory=dict)
    lengths_per_sample: Tensor | None = None

    def reset(self, max_seqlen: int, max_batch_size: int) -> None:
        """Begin anew. The caches stay: reading a prompt overwrites them."""
        self.max_seqlen = max_seqlen
        self.max_batch_size = max_batch_size
        self.seqlen_offset = 0
        if self.lengths_per_sample is not None:
            self.lengths_per_sample.zero_()


class CachingMixer(Protocol[AnyStates]):
    """A mixer with a cache."""

    layer_idx: int | None

    def allocate_inference_cache(self, batch_size: int, max_seqlen: int) -> AnyStates: ...


def cached_states(
    mixer: CachingMixer[AnyStates],
    inference_params: InferenceParams,
    batch_size: int,
    initialize: bool,
) -> AnyStates:
    """The cache of `mixer` in `inference_params`, made there where it is missing.

    Args:
        initialize: set one that is there to zero.
    Raises:
        ConfigError: the mixer has no `layer_idx` to find it by.
    """
    if mixer.layer_idx is None:
        raise ConfigError(
            f"{type(mixer).__name__}: layer_idx is None, expected a number of its own to keep the "
            "cache under; pass layer_idx=0, 1, .. to the constructors"
        )
    memory = inference_params.key_value_memory_dict
    if mixer.layer_idx not in memory:
        # no more is read of `inference_params` than the original reads: loops bring their own class
        memory[mixer.layer_idx] = mixer.allocate_inference_cache(batch_size, max_seqlen=0)
    states: AnyStates = memory[mixer.layer_idx]
    if initialize:
        for part in states:
            part.zero_()
    return states


def check_step(owner: str, hidden_states: Tensor) -> None:
    """Check the input of a step.

    Raises:
        ShapeError: it is not (b, 1, d).
    """
    if hidden_states.dim() != 3 or hidden_states.shape[1] != 1:
        raise ShapeError(
            f"{owner}.step: hidden_states has shape {tuple(hidden_states.shape)}, expected "
            "(b, 1, d): after the prompt (seqlen_offset above 0) steps are read one at a time"
        )


def last_inputs(x: Inner, width: int, cu_seqlens: Offsets | None) -> Tensor:
    """The last `width` steps of each sequence of x (b, l, E) as (b, E, width), zeros in front."""
    if cu_seqlens is None:
        return F.pad(x.transpose(1, 2), (width - x.shape[1], 0))
    ends = cu_seqlens[1:].to(x.device).long().unsqueeze(1)
    places = ends + torch.arange(-width, 0, device=x.device)
    real = places >= cu_seqlens[:-1].to(x.device).unsqueeze(1)
    steps = x[0, places.clamp(min=0)] * real.unsqueeze(2)
    return steps.transpose(1, 2)


def shift_in(conv_state: Tensor, x: Tensor) -> None:
    """Append x (b, E) to a cache (b, E, width) in place, and drop the oldest."""
    conv_state.copy_(torch.cat([conv_state[..., 1:], x.unsqueeze(-1).to(conv_state.dtype)], dim=-1))
