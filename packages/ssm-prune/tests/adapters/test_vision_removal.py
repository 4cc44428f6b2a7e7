"""A8 for the blocks of ssm-vision: removed is masked, and what is left can be built anew."""

from __future__ import annotations

import copy

import pytest
import torch
from removal_cases import half_of_the_units, with_random_values
from test_removal import (
    TOLERANCE,
    assert_every_mask_is_needed,
    assert_near,
    assert_removed_is_masked,
    masked_and_removed,
)
from vision_cases import CASES, MAP, case, convolutions, ss2d

from ssm_core.sizes import applied_sizes, replay_sizes
from ssm_prune.removal import remove_units
from ssm_vision.models.ss2d import SS2D


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", CASES)
def test_removed_is_masked(name: str, dtype: torch.dtype) -> None:
    assert_removed_is_masked(CASES[name], dtype)


@pytest.mark.parametrize("name", CASES)
def test_it_can_be_built_anew(name: str) -> None:
    _, removed, _, _ = masked_and_removed(CASES[name], torch.float32)
    removed.eval()
    again = replay_sizes(CASES[name].make(), applied_sizes(removed)).eval()
    again.load_state_dict(removed.state_dict())
    x = torch.randn(CASES[name].input_shape)
    assert torch.equal(again(x), removed(x))


def test_a_norm_counts_the_channels_of_the_whole_mixer_however_often_it_shrinks() -> None:
    torch.manual_seed(0)
    masked = with_random_values(case(ss2d(d_state=2), "channels").make(), torch.float64)
    removed = copy.deepcopy(masked)
    for _ in range(2):
        units, keep = half_of_the_units(removed, "channels")
        before = copy.deepcopy(removed)
        with torch.no_grad():
            for name, mask in units.parameter_masks(keep).items():
                before.get_parameter(name).masked_fill_(~mask, 0)
        remove_units(removed, units.groups, keep)
        x = torch.randn(MAP, dtype=torch.float64)
        assert_near(removed(x), before(x))
    mixer = removed.blocks[0].op
    assert isinstance(mixer, SS2D)
    assert (mixer.d_inner, mixer.config.norm_width) == (8, 32)
    assert mixer.out_norm.excess == 4.0


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.kind != "blocks"])
def test_every_tensor_that_is_masked_has_to_be(name: str) -> None:
    assert_every_mask_is_needed(CASES[name])


def test_rows_instead_of_columns_of_a_convolution_are_noticed() -> None:
    """The control: zeros in the rows that make a channel leave what BatchNorm adds to it."""
    torch.manual_seed(0)
    masked = with_random_values(case(convolutions(), "channels").make(), torch.float64)
    units, keep = half_of_the_units(masked, "channels")
    removed = copy.deepcopy(masked)
    with torch.no_grad():
        for i, block in enumerate(masked.blocks):
            block.conv1.weight[~keep[f"blocks.{i}"]] = 0
    remove_units(removed, units.groups, keep)
    x = torch.randn(2, 16, 5, 4, dtype=torch.float64)
    with pytest.raises(AssertionError):
        assert_near(removed(x), masked(x))
