"""Whole models of ssm-vision without some of their units: they compute what the masked model
computes, and everything that works on a model works on them, also after loading by name."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from model_cases import CASES, INFO
from removal_cases import half_of_the_units, with_random_values
from test_removal import assert_near
from torch import Tensor, nn

from ssm_core.errors import CheckpointError
from ssm_core.sizes import applied_sizes
from ssm_core.train.checkpoint import save_weights
from ssm_prune.removal import remove_units
from ssm_prune.units import UNIT_KINDS
from ssm_vision import create_model
from ssm_vision.models.image_model import ImageModel

#: kinds of units that the small models offer
OFFERED = {
    "mambavision": {"channels", "states", "heads", "blocks"},
    "mambavision-scales-sliding": {"channels", "states", "heads", "blocks"},
    "mambavision-s4d": {"channels", "states", "heads", "blocks"},
    "vim": {"channels", "states", "blocks"},
    "vim-overlapping": {"channels", "states", "blocks"},
    "vim-max": {"channels", "states", "blocks"},
    "vim-experiments": {"channels", "states", "blocks"},
    "vim-mamba2": {"channels", "states", "blocks"},  # a single head
    "vmamba-v0": {"channels", "states", "blocks"},
    "vmamba-noz": {"channels", "blocks"},
    "vmamba-s4d": {"states", "blocks"},
    "vmunet": {"channels", "states", "blocks"},
    "vmunet_patch2_s4d": {"states"},
    "s4nd-vit": {"channels", "states", "blocks"},
    "s4nd-vit-s4-rank-2": {"channels", "blocks"},
    "s4nd-vit-sequence": {"channels", "blocks"},
}
PAIRS = [(name, kind) for name, kinds in OFFERED.items() for kind in sorted(kinds)]
IMAGES = (1, 3, 33, 47)


def build(name: str) -> ImageModel:
    torch.manual_seed(0)
    model = with_random_values(CASES[name].build(INFO), torch.float64).eval()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2.0)
    assert isinstance(model, ImageModel)
    return model


def without_half(model: ImageModel, kind: str) -> tuple[ImageModel, ImageModel]:
    """The model with masked units, and a copy without them."""
    units, keep = half_of_the_units(model, kind)
    removed = copy.deepcopy(model)
    with torch.no_grad():
        for name, mask in units.parameter_masks(keep).items():
            model.get_parameter(name).masked_fill_(~mask, 0)
    remove_units(removed, units.groups, keep)
    return model, removed


def test_every_small_model_is_in_the_table() -> None:
    assert OFFERED.keys() == CASES.keys()


@pytest.mark.parametrize("name", OFFERED)
def test_what_a_model_offers(name: str) -> None:
    model = CASES[name].build(INFO)
    assert {kind for kind in UNIT_KINDS if half_of_the_units(model, kind)[1]} == OFFERED[name]


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_removed_is_masked(name: str, kind: str) -> None:
    masked, removed = without_half(build(name), kind)
    images = torch.randn(IMAGES, dtype=torch.float64)
    with torch.no_grad():
        assert_near(removed(images), masked(images))
        if kind == "blocks" and not masked.hierarchical:
            check_blocks_left(masked, removed, images)
        else:
            stages = range(len(masked.stages))
            assert removed.stages == masked.stages
            pairs = zip(
                removed.feature_maps(images, stages),
                masked.feature_maps(images, stages),
                strict=True,
            )
            for ours, expected in pairs:
                assert_near(ours, expected)
        check_step_sizes(removed, images)
    check_names(removed)
    assert count(removed) < count(masked)


def check_blocks_left(masked: ImageModel, removed: ImageModel, images: Tensor) -> None:
    """Every block is a stage."""
    (kept,) = [values["kept"] for values in applied_sizes(removed)[0].values()]
    assert len(removed.stages) == len(kept) < len(masked.stages)
    last = removed.feature_maps(images, [len(kept) - 1])[0]
    assert_near(last, masked.feature_maps(images, [len(masked.stages) - 1])[0])


def check_step_sizes(model: ImageModel, images: Tensor) -> None:
    if getattr(model, "has_step_sizes", False):
        maps: list[Tensor] = model.step_sizes(images)  # type: ignore[operator]
        assert len(maps) == len(model.stages)
        assert all(bool((steps > 0).all()) for steps in maps)


def check_names(model: ImageModel) -> None:
    """Layers have numbers without gaps, for learning rates by layer and for timm."""
    names = [name for name, _ in model.named_parameters()]
    for number in (model.layer_of, model.group_matcher()):
        numbers = {number(name) for name in names}
        assert numbers == set(range(max(numbers) + 1))


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("mixed", ["mixer", "attention"])
def test_a_sliding_window_follows_the_blocks_that_stay(mixed: str) -> None:
    model = build("mambavision-scales-sliding")
    model.levels[2].blocks.append(copy.deepcopy(model.levels[2].blocks[1]))
    units, keep = half_of_the_units(model, "blocks")
    keep = {name: torch.ones_like(mask) for name, mask in keep.items()}
    keep["levels.2.blocks"] = torch.tensor([mixed != "mixer", mixed == "mixer", mixed == "mixer"])
    removed = copy.deepcopy(model)
    with torch.no_grad():
        for name, mask in units.parameter_masks(keep).items():
            model.get_parameter(name).masked_fill_(~mask, 0)
        remove_units(removed, units.groups, keep)
        images = torch.randn(2, 3, 80, 112, dtype=torch.float64)
        assert_near(removed(images), model(images))


NAMED: dict[str, dict[str, Any]] = {
    "vim_tiny_patch16_224": {"embed_dim": 16, "depth": 3, "mixer_options": {"d_state": 4}},
    "mambavision_tiny": {
        **{"dim": 8, "in_dim": 4, "depths": (2, 1, 3, 2), "num_heads": (2, 2)},
        **{"windows": (3, 2)},
    },
    "vanilla_vmamba_tiny": {"depths": (1, 2), "dims": (8, 16), "d_state": 3},
    "vmunet": {"dims": (16, 24), "depths": (1, 2), "depths_decoder": (2, 1), "d_state": 4},
    "s4nd_vit_base_2d": {
        **{"patch": 8, "d_model": 8, "n_layers": 2, "mixer_options": {"d_state": 4}},
    },
}


@pytest.mark.parametrize("name", NAMED)
def test_a_smaller_model_loads_by_name(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    size = {"img_size": 32, "num_classes": 3, **NAMED[name]}
    model = create_model(name, **size).eval()
    for kind in ("channels", "states", "blocks"):  # one after the other
        units, keep = half_of_the_units(model, kind)
        remove_units(model, units.groups, keep)
    save_weights(tmp_path / "model.safetensors", model, {})
    loaded = create_model(name, checkpoint=tmp_path / "model.safetensors", **size)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded(images), model(images))
    assert count(loaded) == count(model) < count(create_model(name, **size))


def test_without_its_sizes_a_smaller_model_does_not_load(tmp_path: Path) -> None:
    """The control: it is the sizes in the file that make it fit."""
    size = {"img_size": 32, "num_classes": 3, **NAMED["vim_tiny_patch16_224"]}
    model = create_model("vim_tiny_patch16_224", **size)
    units, keep = half_of_the_units(model, "states")
    remove_units(model, units.groups, keep)
    del model.applied_sizes
    save_weights(tmp_path / "model.safetensors", model, {})
    with pytest.raises(CheckpointError):
        create_model("vim_tiny_patch16_224", checkpoint=tmp_path / "model.safetensors", **size)
