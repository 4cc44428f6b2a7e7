"""Blocks: the residual formula, float32 residual, dropout and drop path."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from ssm_core.block import MLP, Block, DropPath
from ssm_core.errors import ConfigError
from ssm_core.layers.bimamba import BiMamba
from ssm_core.layers.mamba import Mamba
from ssm_core.norm import LayerNorm, RMSNorm


@torch.no_grad()
def test_equals_the_residual_formula() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 5, 8)
    plain = Block(8, Mamba(8))
    torch.testing.assert_close(plain(x), x + plain.mixer(plain.norm(x)))

    block = Block(8, Mamba(8), mlp_hidden=12, norm="layer")
    assert block.mlp is not None
    assert block.norm2 is not None
    middle = x + block.mixer(block.norm(x))
    hidden = F.gelu(block.norm2(middle) @ block.mlp.fc1.weight.T + block.mlp.fc1.bias)
    expected = middle + hidden @ block.mlp.fc2.weight.T + block.mlp.fc2.bias
    torch.testing.assert_close(block(x), expected)


def test_norm_choice_and_keys() -> None:
    assert isinstance(Block(8, Mamba(8)).norm, RMSNorm)
    assert isinstance(Block(8, Mamba(8), norm="layer").norm, LayerNorm)
    keys = {k for k in Block(8, Mamba(8), mlp_hidden=4).state_dict() if "mixer" not in k}
    assert keys == {
        "norm.weight",
        "norm2.weight",
        *(f"mlp.{fc}.{kind}" for fc in ("fc1", "fc2") for kind in ("weight", "bias")),
    }


@pytest.mark.parametrize("mlp_hidden", [0, 16])
def test_residual_is_float32_under_autocast_and_in_bfloat16(mlp_hidden: int) -> None:
    torch.manual_seed(0)
    block = Block(8, BiMamba(8), mlp_hidden)
    x = 1000 + torch.randn(2, 5, 8)  # in bfloat16 neighbours here are 4 apart
    with torch.autocast("cpu", torch.bfloat16):
        y = block(x)
    assert y.dtype == torch.float32
    assert (y - x).abs().max() < 3
    assert (y - block(x)).abs().max() < 0.1
    y = block.bfloat16()(x.bfloat16())
    assert y.dtype == torch.float32


def test_gradients_reach_every_parameter() -> None:
    block = Block(8, BiMamba(8), mlp_hidden=4)
    block(torch.randn(2, 5, 8)).square().sum().backward()
    for name, parameter in block.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_drop_path_drops_whole_sequences_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    drop = DropPath(0.25)
    y = drop(torch.ones(4000, 3, 2))
    assert y.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert torch.equal(y, y[:, :1, :1].expand_as(y))
    assert abs(y.mean().item() - 1) < 0.05
    assert torch.equal(drop.eval()(torch.ones(8, 3, 2)), torch.ones(8, 3, 2))
    assert repr(drop) == "DropPath(rate=0.25)"


def test_dropout_and_drop_path_act_on_branches_in_training_only() -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 3, 8)
    dropped = Block(8, BiMamba(8), drop_path=0.5)
    same = (dropped(x) == x).all(dim=(1, 2))
    assert 10 < same.sum() < 54
    assert not (dropped.eval()(x) == x).all(dim=(1, 2)).any()
    noisy = Block(8, BiMamba(8), mlp_hidden=4, dropout=0.5)
    assert not torch.equal(noisy(x), noisy(x))
    noisy.eval()
    assert torch.equal(noisy(x), noisy(x))


def test_biases_can_be_left_out() -> None:
    block = Block(8, Mamba(8), mlp_hidden=12, norm="layer", bias=False)
    names = [name for name, _ in block.named_parameters() if not name.startswith("mixer.")]
    assert names == ["norm.weight", "norm2.weight", "mlp.fc1.weight", "mlp.fc2.weight"]
    same = Block(8, Mamba(8), mlp_hidden=12, norm="layer")  # whose biases are zero
    for part in (same.norm, same.norm2, same.mlp.fc1, same.mlp.fc2):
        torch.nn.init.zeros_(part.bias)
    same.load_state_dict(block.state_dict(), strict=False)
    x = torch.randn(2, 5, 8)
    torch.testing.assert_close(block(x), same(x))
    assert list(dict(block.mlp.resized({"hidden": 3}).named_parameters())) == [
        "fc1.weight",
        "fc2.weight",
    ]
    smaller = LayerNorm(5, width=12, bias=False)
    torch.testing.assert_close(smaller(x[..., :5]), LayerNorm(5, width=12)(x[..., :5]))


def test_mlp_number_of_parameters() -> None:
    assert sum(p.numel() for p in MLP(8, 12).parameters()) == 2 * 8 * 12 + 12 + 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mlp_hidden": -1}, "Block: mlp_hidden is -1, expected an integer of at least 0"),
        ({"dropout": 1.5}, "Block: dropout is 1.5, expected a number in [0, 1)"),
        ({"drop_path": -0.1}, "DropPath: rate is -0.1, expected a number in [0, 1)"),
        ({"norm": "none"}, "make_norm: name is 'none', expected 'rms' or 'layer'"),
    ],
)
def test_errors(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Block(8, Mamba(8), **options)  # type: ignore[arg-type]
    assert str(caught.value) == message
