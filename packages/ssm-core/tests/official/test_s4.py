"""S4 and S4D in the names of the full implementation, as a block and as the convolution alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from official_cases import assert_reads_back, golden, moved
from torch import Tensor

from ssm_core import S4, S4D, S4Config, S4DConfig, SequenceLayer, from_official
from ssm_core.errors import CheckpointError, ConfigError, UnknownNameError

BARE: dict[str, Any] = {"activation": None, "final_act": None}
OPTIONS: list[dict[str, Any]] = [
    {},
    {"bidirectional": True, "channels": 2},
    {"n_ssm": 2, "dt_tie": False, "dt_transform": "softplus", "real_transform": "relu"},
    {**BARE},
    {**BARE, "bidirectional": True, "n_ssm": 1},
    {"activation": "gelu", "final_act": None},
    {"activation": None},
]


def official(layer: SequenceLayer) -> dict[str, Tensor]:
    """The state dict of the block, whose convolution is called `layer`."""
    return {
        name if name.startswith("output_linear") else f"layer.{name}": value
        for name, value in layer.state_dict().items()
    }


@pytest.mark.parametrize("options", OPTIONS)
def test_dplr_reads_back(options: dict[str, Any]) -> None:
    layer = moved(S4(6, S4Config(d_state=4, l_max=16, **options)))
    config = {"d_state": 4, "l_max": 16, "mode": "dplr", "rank": 1, "init": "legs", **options}
    read = assert_reads_back("s4", layer, official(layer), **config)
    assert isinstance(read, S4)
    assert read.config == S4Config(d_state=4, l_max=16, **{"n_ssm": 6, **options})
    assert read.kernel.length == 16
    assert_reads_back("s4", layer, layer.state_dict(), **config)


@pytest.mark.parametrize("options", [*OPTIONS, {"disc": "bilinear"}])
def test_diag_reads_back(options: dict[str, Any]) -> None:
    layer = moved(S4D(6, S4DConfig(d_state=4, **options)))
    for family in ("s4", "s4d"):
        config = {"d_state": 4, "mode": "diag", "l_max": 16, "init": "diag-lin", **options}
        read = assert_reads_back(family, layer, official(layer), **config)
        assert isinstance(read, S4D)
        assert read.config == S4DConfig(d_state=4, **{"n_ssm": 6, **options})
        assert_reads_back(family, layer, layer.state_dict(), **options)


def test_kernel_that_was_never_called_holds_the_true_coefficients() -> None:
    """l_kernel 0: then one kernel, of whatever length it is made."""
    state_dict = golden("s4_dplr_uni").state_dict | {"kernel.l_kernel": torch.tensor(0)}
    x = torch.randn(1, 30, 8, dtype=torch.float64)
    state_dict = {k: v.double() if v.is_floating_point() else v for k, v in state_dict.items()}
    results = []
    for l_max in (32, 50):
        layer = from_official("s4", state_dict, l_max=l_max)
        assert isinstance(layer, S4)
        assert layer.kernel.length == l_max == int(layer.kernel.l_kernel)
        results.append(layer(x))
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-9)


def test_original_names_and_constants() -> None:
    layer = moved(S4D(6, S4DConfig(d_state=4)))
    words = {
        "H": 6,
        "N": 4,
        "postact": "glu",
        "transposed": True,
        "n_ssm": None,
        "rate": 1.0,
        "bandlimit": None,
    }
    assert_reads_back("s4", layer, official(layer), mode="diag", imag_transform="none", **words)
    bare = moved(S4D(6, S4DConfig(d_state=4, **BARE)))
    assert_reads_back("s4", bare, bare.state_dict(), activation="id", postact=None)


@pytest.mark.parametrize(
    ("family", "config", "message"),
    [
        ("s4", {"d_state": 8}, "s4: d_state is 8, but layer.kernel.C of shape (1, 6, 2, 2) makes "),
        ("s4", {"bidirectional": True}, "s4: bidirectional is True, but layer.kernel.C of shape"),
        ("s4", {"channels": 2}, "s4: channels is 2, but layer.D of shape (1, 6) makes it 1"),
        ("s4", {"n_ssm": 1}, "s4: n_ssm is 1, but layer.kernel.A_real of shape (6, 2) makes it 6"),
        ("s4", {"final_act": None}, "s4: final_act is None, but output_linear.0.weight of shape "),
        ("s4", {"rate": 2}, "s4: rate is 2, expected 1"),
        ("s4", {"activation": "silu"}, ""),
        ("s4", {"mode": "nplr"}, "s4: mode is 'nplr', expected 'dplr' or 'diag'"),
        ("s4d", {"mode": "dplr"}, "s4d: mode is 'dplr', expected 'diag'"),
    ],
)
def test_contradictions(family: str, config: dict[str, Any], message: str) -> None:
    tensors = official(S4(6, S4Config(d_state=4, l_max=16)))
    if family == "s4d":
        tensors = official(S4D(6, S4DConfig(d_state=4)))
    with pytest.raises(ConfigError) as caught:
        from_official(family, tensors, **config)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_mode_decides_which_parameters_must_be_there() -> None:
    diagonal, low_rank = golden("s4_diag_uni").state_dict, golden("s4_dplr_uni").state_dict
    with pytest.raises(CheckpointError, match=r"missing kernel\.P, kernel\.l_kernel$"):
        from_official("s4", diagonal, mode="dplr")
    for config in ({"family": "s4", "mode": "diag"}, {"family": "s4d"}):
        with pytest.raises(CheckpointError, match=r"unexpected kernel\.P, kernel\.l_kernel$"):
            from_official(state_dict=low_rank, **config)


def test_tensors_without_axes() -> None:
    tensors = dict.fromkeys(golden("s4_diag_uni").state_dict, torch.tensor(1.0))
    with pytest.raises(CheckpointError, match=r"fit: D has shape \(\), expected \(c, h\), kernel"):
        from_official("s4", tensors)


def test_low_rank_part_has_rank_1() -> None:
    tensors = golden("s4_dplr_uni").state_dict | {"kernel.P": torch.zeros(2, 8, 8, 2)}
    with pytest.raises(CheckpointError, match=r"kernel\.P has shape \(2, 8, 8, 2\), exp"):
        from_official("s4", tensors)


def test_unknown_option_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"'dt_transfrom': did you mean 'dt_transform'"):
        from_official("s4", golden("s4_diag_uni").state_dict, dt_transfrom="exp")


def test_deeper_layer_is_found_and_its_prefix_told() -> None:
    tensors = official(S4D(6, S4DConfig(d_state=4)))
    deep = {f"s4_layers.1.{name}": value for name, value in tensors.items()}
    with pytest.raises(CheckpointError, match=r"pass prefix='s4_layers\.1\.' if that"):
        from_official("s4", deep)
    bare = {f"conv.{name}": value for name, value in golden("s4_dplr_uni").state_dict.items()}
    with pytest.raises(CheckpointError, match=r"pass prefix='conv\.' if that"):
        from_official("s4", bare)
    assert isinstance(from_official("s4", bare, prefix="conv."), S4)
