"""Costs counted by hand: parameters, zeros, bytes and operations."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ssm_core import DataInfo, build_mixer
from ssm_prune.costs import count_costs, count_flops, example_input
from ssm_prune.errors import PruneError


class TwoInputs(nn.Linear):
    def forward(self, x: Tensor, t: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x) + t


@settings(max_examples=15, deadline=None)
@given(d=st.integers(1, 9), e=st.integers(1, 9), l=st.integers(1, 5))
def test_a_linear_layer_costs_two_operations_per_weight_and_row(d: int, e: int, l: int) -> None:
    model = nn.Linear(d, e, bias=False)
    assert sum(count_flops(model, torch.randn(3, l, d)).values()) == 2 * 3 * l * d * e


def test_zeros_change_only_the_count_of_non_zero_ones() -> None:
    model, info = nn.Linear(6, 4, dtype=torch.float64), DataInfo((5, 6), 4)
    before = count_costs(model, info)
    assert (before.parameters, before.nonzero, before.bytes) == (28, 28, 28 * 8)
    with torch.no_grad():
        model.weight[0] = 0
    after = count_costs(model, info)
    assert after.nonzero == 22
    assert (after.parameters, after.bytes, after.flops) == (28, 28 * 8, before.flops)


@pytest.mark.parametrize("d_state", [4, 8])
def test_mamba_by_hand(d_state: int) -> None:
    d, E, k, R, n, l = 16, 32, 4, 1, d_state, 10
    model = build_mixer("mamba", d, {"d_state": d_state})
    shares = count_flops(model, torch.randn(1, l, d))
    assert shares["ssm_kernels.selective_scan_forward"] == l * E * (7 * n + 1 + 2 + 2)
    assert shares["ssm_kernels.causal_conv1d_forward"] == l * E * (2 * k + 1)
    products = sum(count for name, count in shares.items() if name.startswith("aten."))
    assert products == 2 * l * (d * 2 * E + E * (R + 2 * n) + R * E + E * d)


@pytest.mark.parametrize("mixer", ["s4d", "s4", "s5", "mamba2", "bimamba"])
def test_operators_of_every_mixer_are_counted(mixer: str) -> None:
    model = build_mixer(mixer, 16, {})
    shares = count_flops(model, torch.randn(1, 12, 16))
    scans = {name: count for name, count in shares.items() if name.startswith("ssm_kernels.")}
    assert scans
    assert min(shares.values()) > 0
    twice = count_flops(model, torch.randn(2, 12, 16))
    for name, count in shares.items():
        kernel = name.endswith(("vandermonde_forward", "cauchy_forward", "_fft_c2r", "_fft_r2c"))
        # kernels of convolutions are made once per batch
        assert twice[name] == 2 * count or kernel or mixer == "s5"


def test_training_mode_and_gradients_are_left_alone() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5))
    model[1].eval()
    count_costs(model, DataInfo((4, 3), 2))
    assert model.training
    assert not model[1].training
    assert model[0].weight.grad is None


def test_inputs_follow_the_data() -> None:
    text = example_input(nn.Embedding(7, 2), DataInfo((9,), 7), 3)
    assert text.shape == (3, 9)
    assert not text.is_floating_point()
    assert 0 <= int(text.min()) <= int(text.max()) < 7
    images = example_input(nn.Linear(4, 4, dtype=torch.float64), DataInfo((1, 4, 4), 10), 2)
    assert (images.shape, images.dtype) == ((2, 1, 4, 4), torch.float64)
    assert torch.equal(images, example_input(nn.Linear(4, 4).double(), DataInfo((1, 4, 4), 9), 2))


def test_a_model_of_two_inputs_is_counted_without_operations() -> None:
    with pytest.raises(PruneError, match="TwoInputs needs t beside its input"):
        example_input(TwoInputs(2, 2), DataInfo((3, 2), 2), 1)
    costs = count_costs(TwoInputs(2, 2), DataInfo((3, 2), 2))
    assert costs.flops is None
    assert costs.parameters == 6
    assert "needs t" in costs.note
