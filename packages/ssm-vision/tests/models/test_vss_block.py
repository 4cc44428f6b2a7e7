"""The block of VMamba: branches, drop path, other mixers, initial values."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ssm_core import build_mixer
from ssm_vision.models.ss2d import SS2D
from ssm_vision.models.vss_block import LINEAR_STD, RowByRow, VSSBlock, init_linear_maps


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


def test_mlp_is_a_second_branch() -> None:
    x = torch.randn(2, 3, 5, 8)
    plain, block = VSSBlock(8, Doubled()), VSSBlock(8, Doubled(), mlp_hidden=20)
    assert set(plain.state_dict()) == {"norm.weight", "norm.bias"}
    assert block.mlp is not None
    assert block.norm2 is not None
    assert block.mlp.fc1.weight.shape == (20, 8)
    first = plain(x)
    torch.testing.assert_close(first, x + 2 * nn.functional.layer_norm(x, (8,)))
    torch.testing.assert_close(block(x), first + block.mlp(block.norm2(first)))


def test_drop_path_drops_both_branches_of_an_image() -> None:
    block = VSSBlock(4, Doubled(), mlp_hidden=8, drop_path=0.5).train()
    x = torch.randn(400, 1, 2, 4)
    y = block(x)
    untouched = (y == x).flatten(1).all(dim=1).float().mean().item()
    assert untouched == pytest.approx(0.25, abs=0.08)
    assert not (block.eval()(x) == x).flatten(1).all(dim=1).any()


def test_any_sequence_layer_reads_row_by_row() -> None:
    torch.manual_seed(0)
    layer = build_mixer("mamba", 8, {"d_state": 4})
    x = torch.randn(2, 3, 5, 8)
    y = RowByRow(layer)(x)
    torch.testing.assert_close(y[:, 1, 2], layer(x.reshape(2, 15, 8))[:, 7])
    changed = x.clone()
    changed[:, 1, 2] += 1
    later = (RowByRow(layer)(changed) != y).any(dim=-1)[0]
    assert not later[0].any()
    assert not later[1, :2].any()
    assert later[1, 2:].all()


def test_initial_values_of_linear_maps_only() -> None:
    mixer = SS2D(64)
    before = {name: p.clone() for name, p in mixer.named_parameters()}
    mlp = nn.Linear(64, 256)
    init_linear_maps(nn.Sequential(mixer, mlp))
    for weight in (mixer.in_proj.weight, mixer.out_proj.weight, mlp.weight):
        assert weight.std().item() == pytest.approx(LINEAR_STD, rel=0.05)
        assert abs(weight.mean().item()) < 0.002
    assert mlp.bias.count_nonzero() == 0
    for name, parameter in mixer.named_parameters():
        assert torch.equal(parameter, before[name]) == (name.partition(".")[0][-5:] != "_proj")


def test_another_layer_keeps_its_initial_values() -> None:
    """Its step sizes are the bias of a Linear: with 0 they would all be softplus(0)."""
    layer = build_mixer("mamba", 8)
    before = {name: p.clone() for name, p in layer.named_parameters()}
    init_linear_maps(nn.Sequential(VSSBlock(8, RowByRow(layer))))
    assert all(torch.equal(p, before[name]) for name, p in layer.named_parameters())
