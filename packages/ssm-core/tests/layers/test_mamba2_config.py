"""Options of Mamba-2: the parameters they lead to, their names and number, and their errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ssm_core import build_mixer
from ssm_core.errors import ConfigError
from ssm_core.layers.mamba2 import Mamba2
from ssm_core.layers.mamba2_config import Mamba2Config


def test_state_dict_has_the_official_keys() -> None:
    config = Mamba2Config(d_state=16, headdim=12, ngroups=2)
    shapes = {name: tuple(value.shape) for name, value in Mamba2(24, config).state_dict().items()}
    assert shapes == {
        "in_proj.weight": (2 * 48 + 2 * 2 * 16 + 4, 24),
        "conv1d.weight": (48 + 64, 1, 4),
        "conv1d.bias": (48 + 64,),
        "dt_bias": (4,),
        "A_log": (4,),
        "D": (4,),
        "norm.weight": (48,),
        "out_proj.weight": (24, 48),
    }
    config = Mamba2Config(
        d_state=16,
        headdim=12,
        d_ssm=36,
        D_has_hdim=True,
        rmsnorm=False,
        bias=True,
        conv_bias=False,
        learnable_init_states=True,
    )
    others = {name: tuple(value.shape) for name, value in Mamba2(24, config).state_dict().items()}
    assert others == {
        "in_proj.weight": (2 * 48 + 2 * 16 + 3, 24),
        "in_proj.bias": (2 * 48 + 2 * 16 + 3,),
        "conv1d.weight": (36 + 32, 1, 4),
        "dt_bias": (3,),
        "A_log": (3,),
        "D": (36,),
        "init_states": (3, 12, 16),
        "out_proj.weight": (24, 48),
        "out_proj.bias": (24,),
    }


@pytest.mark.parametrize(
    ("d_model", "n_layers", "total"),
    [
        (768, 24, 128_989_632),
        (1024, 48, 368_346_624),
        (1536, 48, 780_161_280),
        (2048, 48, 1_343_757_312),
        (2560, 64, 2_702_599_680),
    ],
)
def test_published_sizes(d_model: int, n_layers: int, total: int) -> None:
    with torch.device("meta"):
        layer = Mamba2(d_model)
    block = sum(p.numel() for p in layer.parameters()) + d_model  # and its norm
    assert 50288 * d_model + n_layers * block + d_model == total


def test_default_options_by_name() -> None:
    layer = build_mixer("mamba2", 64, {"dt_limit": [0.0, 0.5], "d_ssm": 64})
    assert isinstance(layer, Mamba2)
    assert layer.config == Mamba2Config(dt_limit=(0.0, 0.5), d_ssm=64)
    assert layer(torch.randn(1, 3, 64)).shape == (1, 3, 64)
    assert Mamba2(64)(torch.randn(1, 3, 64)).shape == (1, 3, 64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_state": 0}, "d_state is 0, expected an integer of at least 1"),
        ({"d_ssm": 0}, "d_ssm (a number or None) is 0, expected an integer of at least 1"),
        (
            {"chunk_size": 0},
            "chunk_size (a number or None) is 0, expected an integer of at least 1",
        ),
        ({"conv_init": 0.0}, "conv_init is 0.0, expected a number above 0 or None"),
        (
            {"A_init_range": (0.0, 1.0)},
            "A_init_range is (0.0, 1.0), expected (least, largest) with 0 < least <= largest",
        ),
        (
            {"dt_limit": (0.0, 0.0)},
            "dt_limit is (0.0, 0.0), expected (least, largest) with 0 <= least <= largest and "
            "largest above 0",
        ),
        ({"dt_min": 0.2}, "dt_min is 0.2 and dt_max 0.1, expected 0 < dt_min <= dt_max"),
        (
            {"rmsnorm": False, "norm_before_gate": True},
            "norm_before_gate is True, expected rmsnorm True with it",
        ),
    ],
)
def test_config_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Mamba2Config(**options)
    assert str(caught.value) == f"Mamba2Config: {message}"


@pytest.mark.parametrize(
    ("d_model", "options", "message"),
    [
        (
            24,
            {"headdim": 64},
            "headdim is 64, expected a divisor of expand * d_model = 48, such as 16",
        ),
        (
            64,
            {"d_ssm": 96, "headdim": 64},
            "headdim is 64, expected a divisor of d_ssm = 96, such as 32",
        ),
        (64, {"d_ssm": 192}, "d_ssm is 192, expected at most expand * d_model = 128"),
        (
            64,
            {"ngroups": 4},
            "ngroups is 4, expected a divisor of the number of heads, 128 / headdim = 2",
        ),
        (0, {}, "d_model is 0, expected an integer of at least 1"),
    ],
)
def test_sizes_that_do_not_divide(d_model: int, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Mamba2(d_model, Mamba2Config(**options))
    assert str(caught.value) == f"Mamba2: {message}"
