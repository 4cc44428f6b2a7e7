"""Mamba-2 mixers in official names."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from official_cases import assert_reads_back, moved

from ssm_core import Mamba2, Mamba2Config, from_official
from ssm_core.errors import CheckpointError, ConfigError

OPTIONS: list[dict[str, Any]] = [
    {},
    {"ngroups": 2},
    {"rmsnorm": False, "bias": True, "conv_bias": False, "d_conv": 2},
    {"D_has_hdim": True, "d_ssm": 32},
    {"d_ssm": 32, "rmsnorm": False},
    {"norm_before_gate": True, "dt_limit": (0.01, math.inf), "chunk_size": 4},
    {"dt_limit": (0.0, 0.1), "expand": 3},
    {"learnable_init_states": True, "ngroups": 2},
    {"headdim": 1, "D_has_hdim": True},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_reads_back(options: dict[str, Any]) -> None:
    options = {"d_state": 6, "headdim": 8, **options}
    layer = moved(Mamba2(32, Mamba2Config(**options)))
    read = assert_reads_back("mamba2", layer, layer.state_dict(), **options)
    assert read.config == layer.config
    texts = {name: json.dumps(value) for name, value in options.items()}
    assert_reads_back("mamba2", layer, layer.state_dict(), **texts)


def test_sizes_need_no_options() -> None:
    layer = moved(
        Mamba2(32, Mamba2Config(d_state=6, headdim=8, d_ssm=48, learnable_init_states=True))
    )
    assert assert_reads_back("mamba2", layer, layer.state_dict()).config == layer.config
    layer = moved(Mamba2(32, Mamba2Config(d_state=6, headdim=8, ngroups=4)))
    # the number of states tells that of the groups
    assert_reads_back("mamba2", layer, layer.state_dict(), d_state=6)


def test_arguments_of_the_original_constructor() -> None:
    layer = Mamba2(64)
    words = {"d_model": 64, "d_ssm": None, "conv_init": None, "A_init_range": [1, 16]}
    assert_reads_back(
        "mamba2", layer, layer.state_dict(), **words, use_mem_eff_path=True, layer_idx=0
    )


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"ngroups": 4}, "mamba2: ngroups is 4, but conv1d.weight of shape (76, 1, 4) makes "),
        ({"ngroups": True}, "mamba2: ngroups is True, but conv1d.weight of shape (76, 1, 4) "),
        ({"ngroups": 2, "d_state": 6}, "mamba2: d_state is 6, but conv1d.weight of shape "),
        ({"headdim": 16}, "mamba2: headdim is 16, but A_log of shape (8,) makes it 8"),
        ({"rmsnorm": False}, "mamba2: rmsnorm is False, but norm.weight of shape (64,) makes it"),
        ({"d_ssm": 32}, "mamba2: d_ssm is 32, but conv1d.weight of shape (76, 1, 4) makes it 64"),
        ({"D_has_hdim": True}, "mamba2: D_has_hdim is True, but D of shape (8,) makes it False"),
        ({"dt_limit": [1, 0]}, "mamba2: Mamba2Config: dt_limit is (1.0, 0.0)"),
    ],
)
def test_contradictions(option: dict[str, Any], message: str) -> None:
    layer = Mamba2(32, Mamba2Config(d_state=6, headdim=8))
    with pytest.raises(ConfigError) as caught:
        from_official("mamba2", layer.state_dict(), **option)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_heads_must_divide_the_channels() -> None:
    tensors = dict(Mamba2(32, Mamba2Config(d_state=6, headdim=8)).state_dict())
    tensors |= {name: torch.zeros(7) for name in ("A_log", "D", "dt_bias")}
    tensors["in_proj.weight"] = torch.zeros(128 + 12 + 7, 32)
    with pytest.raises(CheckpointError, match=r"64 channels of the scan .* the 7 heads of A_log"):
        from_official("mamba2", tensors)
