"""`Mamba2Simple` of mamba_ssm beside the layer and beside single sequences."""

from __future__ import annotations

import pytest
import torch
from compat_cases import random, strong

import ssm_core
from ssm_core.compat.mamba2_simple import Mamba2Simple
from ssm_core.errors import ConfigError


@pytest.mark.parametrize("learnable", [False, True])
def test_one_group_is_the_layer(learnable: bool) -> None:
    mixer = strong(Mamba2Simple(8, 3, headdim=4, learnable_init_states=learnable))
    config = ssm_core.Mamba2Config(d_state=3, headdim=4, learnable_init_states=learnable)
    layer = ssm_core.Mamba2(8, config).double()
    layer.load_state_dict(mixer.state_dict())
    assert ("init_states" in mixer.state_dict()) == learnable
    x = random(2, 6, 8)
    torch.testing.assert_close(mixer(x), layer(x), rtol=0, atol=0)


def test_norm_of_several_groups_is_that_of_the_path() -> None:
    """The fused function of the original takes a mean per group, its norm module a single one."""
    config = ssm_core.Mamba2Config(d_state=3, headdim=4, ngroups=2)
    layer = ssm_core.Mamba2(8, config).double()
    x = random(2, 6, 8)
    results = []
    for fused, groups in ((True, 2), (False, 1)):
        mixer = strong(Mamba2Simple(8, 3, headdim=4, ngroups=2, use_mem_eff_path=fused))
        layer.load_state_dict(mixer.state_dict())
        layer.norm.groups = groups
        torch.testing.assert_close(mixer(x), layer(x), rtol=0, atol=0)
        results.append(mixer(x))
    assert not torch.allclose(*results)


@pytest.mark.parametrize("learnable", [False, True])
def test_packed_sequences_start_alike(learnable: bool) -> None:
    mixer = strong(Mamba2Simple(8, 3, headdim=4, learnable_init_states=learnable))
    x, seq_idx = random(2, 5, 8), torch.tensor([[0, 0, 1, 1, 1], [4, 4, 4, 4, 7]])
    y = mixer(x, seq_idx=seq_idx)
    for row, start, end in ((0, 0, 2), (0, 2, 5), (1, 0, 4), (1, 4, 5)):
        alone = mixer(x[row : row + 1, start:end])[0]
        torch.testing.assert_close(y[row, start:end], alone, rtol=1e-9, atol=1e-9)


def test_activation() -> None:
    assert Mamba2Simple(64, activation="silu").activation == "silu"
    with pytest.raises(ConfigError, match="'swish' or 'silu'"):
        Mamba2Simple(64, activation="gelu")
    half = Mamba2Simple(64, dtype=torch.bfloat16)
    assert half.norm.weight.dtype == torch.bfloat16
    assert half.A_log.dtype == torch.float32
