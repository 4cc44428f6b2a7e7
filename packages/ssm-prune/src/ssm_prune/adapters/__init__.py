"""Adapters of the blocks that we know: which tensors belong to a channel, a state, a head.

Each module answers the hook `ssm_prune_adapter` for some classes, like anybody's plugin, which may
answer first.
"""

from __future__ import annotations

from ssm_prune.adapters import mamba, mlp

#: modules with hook implementations
ADAPTERS = (mamba, mlp)
