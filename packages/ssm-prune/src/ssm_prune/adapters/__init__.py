"""Adapters of the blocks that we know: which tensors belong to a channel, a state, a head.

Each module answers the hook `ssm_prune_adapter` for some classes, like anybody's plugin, which may
answer first.
"""

from __future__ import annotations

from ssm_prune.adapters import (
    attention,
    convolution,
    mamba,
    mamba2,
    mamba3,
    mlp,
    norm,
    own,
    rnn,
    s5,
)

#: modules with hook implementations
ADAPTERS = (mamba, mamba2, mamba3, convolution, s5, attention, rnn, mlp, norm, own)
