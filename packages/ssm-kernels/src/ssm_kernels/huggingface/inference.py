"""Parts of transformers' models in inference on a CPU, where one kernel does what many did.

Each takes the place of a `forward` and goes back to it wherever its kernel does not run: with
gradients, on other devices, in other types than float32 and float64, under a compiler.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..causal_conv1d import MAX_WIDTH
from ..fused_linear import fused_linear
from ..fused_mamba_directions import MambaParameters, fused_mamba_directions
from ..fused_rms_norm import fused_gated_rms_norm, fused_rms_norm
from ..library import runs_unwatched
from .dispatch import NAME, applies
from .functions import SILU

Forward = Callable[..., Any]

#: whose mixers are a plain Mamba; those of others have norms inside, or heads
PLAIN_MIXERS = frozenset({"MambaMixer"})


def linear(self: nn.Linear, input: Tensor) -> Tensor:
    """`nn.Linear.forward`, by `fused_linear` where that is quicker."""
    y = fused_linear(input, self.weight, self.bias)
    return F.linear(input, self.weight, self.bias) if y is None else y


def rms_norm(theirs: Forward) -> Forward:
    """A forward of x / sqrt(mean(x^2) + variance_epsilon) * weight."""

    @wraps(theirs)
    def forward(self: Any, hidden_states: Tensor) -> Tensor:
        if applies(hidden_states):
            y = fused_rms_norm(hidden_states, self.weight, self.variance_epsilon)
            if y is not None:
                return y
        result: Tensor = theirs(self, hidden_states)
        return result

    return forward


def gated_rms_norm(theirs: Forward) -> Forward:
    """The same of hidden_states * silu(gate), in groups of group_size channels."""

    @wraps(theirs)
    def forward(self: Any, hidden_states: Tensor, gate: Tensor | None = None) -> Tensor:
        if gate is not None and applies(hidden_states):
            groups = hidden_states.shape[-1] // self.group_size
            eps = self.variance_epsilon
            y = fused_gated_rms_norm(hidden_states, gate, self.weight, eps, groups)
            if y is not None:
                return y
        result: Tensor = theirs(self, hidden_states, gate)
        return result

    return forward


NORMS: dict[str, Callable[[Forward], Forward]] = {
    "MambaRMSNorm": rms_norm,
    "Mamba2RMSNorm": rms_norm,
    "FalconMambaRMSNorm": rms_norm,
    "MambaRMSNormGated": gated_rms_norm,
}


def mixer(otherwise: Forward) -> Forward:
    """The forward of one of `PLAIN_MIXERS`: one kernel for sequences without cache and mask."""

    @wraps(otherwise)
    def forward(
        self: Any,
        hidden_states: Tensor,
        cache_params: Any = None,
        attention_mask: Tensor | None = None,
        **options: Any,
    ) -> Any:
        asked = (cache_params, attention_mask, *options.values())
        if not torch.is_grad_enabled() and all(x is None for x in asked):
            y = _mix(self, hidden_states)
            if y is not None:
                return y
        return otherwise(self, hidden_states, cache_params, attention_mask, **options)

    return forward


def _mix(self: Any, hidden_states: Tensor) -> Tensor | None:
    if self.activation not in SILU or self.conv_kernel_size > MAX_WIDTH:
        return None
    # Adapters wrap a projection and still have its weight; hooks may bring weights that are away.
    inside = (self.conv1d, self.x_proj, self.dt_proj)
    if type(self.x_proj) is not nn.Linear or any(_is_watched(part) for part in inside):
        return None
    parameters = MambaParameters(
        self.conv1d.weight,
        self.conv1d.bias,
        self.x_proj.weight,
        self.dt_proj.weight,
        self.dt_proj.bias,
        self.A_log,
        self.D,
    )
    if not applies(hidden_states) or not runs_unwatched(NAME, (hidden_states, *parameters)):
        return None  # before in_proj has run in vain
    x, z = self.in_proj(hidden_states).chunk(2, dim=-1)
    y = fused_mamba_directions(x, z, [parameters], (False,))
    return None if y is None else self.out_proj(y)


def _is_watched(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks or hasattr(module, "_hf_hook"))
