"""A8: a model without its units computes what the model with masked units computes."""

from __future__ import annotations

import copy

import pytest
import torch
from removal_cases import (
    CASES,
    RemovalCase,
    half_of_the_units,
    tower,
    units_of,
    with_random_values,
)
from torch import Tensor, nn

from ssm_core import build_mixer
from ssm_core.block import Block
from ssm_core.layers.protocol import SequenceLayer
from ssm_core.sizes import applied_sizes, replay_sizes
from ssm_prune.removal import Removal, remove_units
from ssm_prune.unit_masks import UnitMasks

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}


def masked_and_removed(
    case: RemovalCase, dtype: torch.dtype
) -> tuple[nn.Module, nn.Module, Removal, UnitMasks]:
    torch.manual_seed(0)
    masked = with_random_values(case.make(), dtype)
    units, keep = half_of_the_units(masked, case.kind)
    assert any(not mask.all() for mask in keep.values())
    removed = copy.deepcopy(masked)
    zero(masked, units.parameter_masks(keep))
    return masked, removed, remove_units(removed, units.groups, keep), units


@torch.no_grad()
def zero(module: nn.Module, masks: dict[str, Tensor]) -> None:
    for name, mask in masks.items():
        module.get_parameter(name).masked_fill_(~mask, 0)


def assert_near(ours: Tensor, expected: Tensor) -> None:
    assert ours.shape == expected.shape
    error = float((ours - expected).detach().abs().max() / expected.detach().abs().max())
    assert error <= TOLERANCE[expected.dtype], error


def assert_removed_is_masked(case: RemovalCase, dtype: torch.dtype) -> None:
    """Outputs, gradients of the input and of what is left of the parameters."""
    masked, removed, removal, _ = masked_and_removed(case, dtype)
    x = torch.randn(case.input_shape, dtype=dtype)
    copies = [x.clone().requires_grad_() for _ in range(2)]
    outputs = [masked(copies[0]), removed(copies[1])]
    assert_near(outputs[1], outputs[0])
    weights = torch.randn_like(outputs[0])
    for output in outputs:
        (output * weights).sum().backward()
    assert_near(copies[1].grad, copies[0].grad)
    whole = dict(masked.named_parameters())
    for new, parameter in removed.named_parameters():
        old = removal.old_names[new]
        expected = removal.cut(old, whole[old].grad)
        scale = max(float(p.grad.abs().max()) for p in removed.parameters())
        worst = float((parameter.grad - expected).abs().max()) / scale
        assert worst <= TOLERANCE[dtype], (new, worst)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", CASES)
def test_removed_is_masked(name: str, dtype: torch.dtype) -> None:
    assert_removed_is_masked(CASES[name], dtype)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.causal])
def test_removed_is_masked_step_by_step(name: str) -> None:
    case = CASES[name]
    masked, removed, _, _ = masked_and_removed(case, torch.float64)
    x = torch.randn(case.input_shape, dtype=torch.float64)
    with torch.no_grad():
        whole = masked(x)
        assert isinstance(removed, SequenceLayer)
        state = removed.initial_state(x.shape[0])
        for t in range(x.shape[1]):
            y, state = removed.step(x[:, t], state)
            assert_near(y, whole[:, t])


@pytest.mark.parametrize("name", CASES)
def test_it_is_smaller_and_can_be_built_anew(name: str) -> None:
    case = CASES[name]
    masked, removed, _, units = masked_and_removed(case, torch.float32)
    assert sum(p.numel() for p in removed.parameters()) < sum(
        p.numel() for p in masked.parameters()
    )
    again = replay_sizes(case.make(), applied_sizes(removed))
    again.load_state_dict(removed.state_dict())
    x = torch.randn(case.input_shape)
    assert torch.equal(again(x), removed(x))
    if case.kind != "blocks":
        for fqn, group in units.groups.items():
            left = units_of(removed, case.kind).groups[fqn].count
            assert 0 < left < group.count


def test_masking_something_else_is_noticed() -> None:
    """The control: zeros in the rows that make a channel, which leave its bias, are not removal."""
    case = CASES["mamba-channels"]
    torch.manual_seed(0)
    masked = with_random_values(case.make(), torch.float64)
    units, keep = half_of_the_units(masked, "channels")
    removed = copy.deepcopy(masked)
    with torch.no_grad():
        masked.mixer.in_proj.weight[:32][~keep["mixer"]] = 0
    remove_units(removed, units.groups, keep)
    x = torch.randn(case.input_shape, dtype=torch.float64)
    with pytest.raises(AssertionError):
        assert_near(removed(x), masked(x))


def assert_every_mask_is_needed(case: RemovalCase) -> None:
    """The control of each adapter: with one of its tensors left as it is, the outputs differ."""
    torch.manual_seed(0)
    whole = with_random_values(case.make(), torch.float64)
    units, keep = half_of_the_units(whole, case.kind)
    removed = copy.deepcopy(whole)
    remove_units(removed, units.groups, keep)
    masks = units.parameter_masks(keep)
    x = torch.randn(case.input_shape, dtype=torch.float64)
    for left_out in masks:
        masked = copy.deepcopy(whole)
        zero(masked, {name: mask for name, mask in masks.items() if name != left_out})
        with torch.no_grad(), pytest.raises(AssertionError):
            assert_near(removed(x), masked(x))


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.kind != "blocks"])
def test_every_tensor_that_is_masked_has_to_be(name: str) -> None:
    assert_every_mask_is_needed(CASES[name])


TWICE = {name: case for name, case in CASES.items() if case.kind != "blocks"} | {
    "tower-blocks": RemovalCase(tower(d_state=4, n_layers=5), "blocks")
}


@pytest.mark.parametrize("name", TWICE)
def test_removing_twice_is_masking_both(name: str) -> None:
    case = TWICE[name]
    torch.manual_seed(0)
    whole = with_random_values(case.make(), torch.float64)
    removed = copy.deepcopy(whole)
    units, first = half_of_the_units(removed, case.kind, rounded=False)
    remove_units(removed, units.groups, first)
    rest, second = half_of_the_units(removed, case.kind, rounded=False)
    assert rest.total < units.total
    assert any(not mask.all() for mask in second.values())
    remove_units(removed, rest.groups, second)
    both = {fqn: mask.clone() for fqn, mask in first.items()}
    for fqn, mask in both.items():
        mask[mask.nonzero().flatten()[~second[fqn]]] = False
    masked, at_once = copy.deepcopy(whole), copy.deepcopy(whole)
    zero(masked, units.parameter_masks(both))
    remove_units(at_once, units.groups, both)
    x = torch.randn(case.input_shape, dtype=torch.float64)
    with torch.no_grad():
        assert_near(removed(x), masked(x))
        assert torch.equal(removed(x), at_once(x))
    again = replay_sizes(case.make(), applied_sizes(removed)).double()
    again.load_state_dict(removed.state_dict())
    assert torch.equal(again(x), removed(x))


@pytest.mark.parametrize("name", CASES)
def test_state_matrices_stay_stable(name: str) -> None:
    """A9: every eigenvalue of the smaller model is one of the larger one's, below zero."""
    case = CASES[name]
    torch.manual_seed(0)
    whole = case.make()
    removed = copy.deepcopy(whole)
    units, keep = half_of_the_units(whole, case.kind)
    remove_units(removed, units.groups, keep)
    before, after = decay_rates(whole), decay_rates(removed)
    assert bool((after < 0).all())
    assert set(after.tolist()) <= set(before.tolist())
    has_none = any(word in name for word in ("mamba3", "attention", "rnn"))
    assert has_none == (len(after) == 0)


def decay_rates(module: nn.Module) -> Tensor:
    """The real parts of the eigenvalues of all state matrices that are parameters."""
    rates = [torch.empty(0)]
    for name, parameter in module.named_parameters():
        leaf = name.rpartition(".")[2]
        if leaf in ("A_log", "A_b_log", "A_real"):
            rates.append(-parameter.detach().exp().flatten())
        elif leaf == "Lambda_re":
            rates.append(parameter.detach())
    return torch.cat(rates)


def test_a_request_that_is_no_multiple_is_rounded() -> None:
    units = units_of(Block(16, build_mixer("mamba", 16, {"d_inner": 40})), "channels")
    scores = {"mixer.in_proj.weight": torch.rand(80, 16)}
    scores |= {
        "mixer.x_proj.weight": torch.rand(33, 40),
        "mixer.out_proj.weight": torch.rand(16, 40),
    }
    for sparsity, left in ((0.3, 32), (0.5, 24), (0.69, 16), (0.99, 8)):
        assert int(units.choose(scores, sparsity, "layer")["mixer"].sum()) == left
    assert units.rounding == 4
