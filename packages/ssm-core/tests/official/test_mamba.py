"""Mamba mixers in official names."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from official_cases import assert_reads_back, moved

from ssm_core import Mamba, MambaConfig, from_official
from ssm_core.errors import CheckpointError, ConfigError


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"d_state": 3, "d_conv": 2, "expand": 3, "dt_rank": 5},
        {"bias": True, "conv_bias": False, "dt_min": 1e-4},
    ],
)
def test_reads_back(options: dict[str, Any]) -> None:
    layer = moved(Mamba(24, MambaConfig(**options)))
    read = assert_reads_back("mamba", layer, layer.state_dict(), **options)
    expected = {"dt_rank": 2, **options}
    assert read.config == MambaConfig(**expected)
    assert_reads_back("mamba", layer, layer.state_dict())


def test_arguments_of_the_original_constructor() -> None:
    layer = Mamba(24)
    words = {"d_model": 24, "dt_rank": "auto", "dt_init": "random", "dt_scale": 1.0}
    assert_reads_back("mamba", layer, layer.state_dict(), **words, use_fast_path=True, layer_idx=3)
    with pytest.raises(ConfigError, match=r"^mamba: dt_rank is 2, but dt_proj.weight of shape"):
        from_official("mamba", Mamba(64).state_dict(), dt_rank=2)


def test_width_must_be_a_multiple() -> None:
    tensors = dict(Mamba(24).state_dict())
    tensors["in_proj.weight"] = torch.zeros(96, 25)
    tensors["out_proj.weight"] = torch.zeros(25, 48)
    with pytest.raises(CheckpointError, match=r"^mamba: out_proj.weight has shape \(25, 48\), "):
        from_official("mamba", tensors)


def test_one_bias_asks_for_both() -> None:
    tensors = dict(Mamba(8, MambaConfig(bias=True)).state_dict())
    del tensors["in_proj.bias"]
    with pytest.raises(CheckpointError, match=r"missing in_proj\.bias$"):
        from_official("mamba", tensors)
