"""A8: a model without its units computes what the model with masked units computes."""

from __future__ import annotations

import copy

import pytest
import torch
from removal_cases import CASES, RemovalCase, half_of_the_units, with_random_values
from torch import Tensor, nn

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
    with torch.no_grad():
        for name, mask in units.parameter_masks(keep).items():
            masked.get_parameter(name).masked_fill_(~mask, 0)
    return masked, removed, remove_units(removed, units.groups, keep), units


def assert_near(ours: Tensor, expected: Tensor) -> None:
    assert ours.shape == expected.shape
    error = float((ours - expected).detach().abs().max() / expected.detach().abs().max())
    assert error <= TOLERANCE[expected.dtype], error


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", CASES)
def test_removed_is_masked(name: str, dtype: torch.dtype) -> None:
    case = CASES[name]
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
            left = UnitMasks(removed, case.kind, _ask()).groups[fqn].count
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


def _ask():
    from ssm_prune.loader import PrunePlugins

    return PrunePlugins(load_entry_points=False).hook.ssm_prune_adapter
