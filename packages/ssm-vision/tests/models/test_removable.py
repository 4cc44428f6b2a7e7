"""What modules say about their units fits them; a block whose branches are silent is the identity.

That a model without units computes what it should is tested with the tool that removes them.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from model_cases import CASES, INFO
from torch import nn

from ssm_core.errors import ConfigError
from ssm_core.units import HasUnits
from ssm_vision.models.depthwise import InvertedResidual
from ssm_vision.models.mambavision_blocks import Attention, ConvBlock, Mlp
from ssm_vision.models.mambavision_config import MambaVisionConfig
from ssm_vision.models.s4nd import S4ND
from ssm_vision.models.ss2d import SS2D
from ssm_vision.models.vmunet_parts import UNetBlock
from ssm_vision.models.vss_block import VSSBlock

OPTIONS = MambaVisionConfig(dim=4, in_dim=4)


def prunable(name: str) -> Iterator[nn.Module]:
    model = CASES[name].build(INFO)
    yield from (module for module in model.modules() if isinstance(module, HasUnits))


@pytest.mark.parametrize("name", CASES)
def test_the_resized_module_has_what_is_left_of_every_tensor(name: str) -> None:
    for module in prunable(name):
        assert isinstance(module, HasUnits)
        for group in module.removable_units().groups:
            keep = torch.arange(group.count) % (group.count // group.parts) == 0
            expected = {n: list(t.shape) for n, t in module.state_dict().items()}
            assert {part.parameter for part in (*group.masked, *group.scored)} <= set(expected)
            for part in group.removed:
                gone = part.places_of(~keep)
                assert len(gone.unique()) == len(gone)
                assert (
                    not len(gone)
                    or int(gone.max()) < module.state_dict()[part.parameter].shape[part.dim]
                )
                expected[part.parameter][part.dim] -= len(gone)
            small = module.resized(group.sizes(keep.nonzero().flatten().tolist()))
            assert {n: list(t.shape) for n, t in small.state_dict().items()} == expected


@pytest.mark.parametrize("block", [VSSBlock(6, SS2D(6), 8), UNetBlock(6, SS2D(6), 0.0)])
def test_without_its_branches_a_block_is_the_identity(block: nn.Module) -> None:
    x = torch.randn(2, 3, 4, 6)
    assert not torch.equal(block(x), x)
    with torch.no_grad():
        for name in block.branches:
            for parameter in block.get_submodule(name).parameters():
                parameter.zero_()
    assert torch.equal(block(x), x)


def test_parts_keep_what_is_not_resized() -> None:
    branch = InvertedResidual(8, 2, 3, "rms")
    branch.norm.eps = 0.25
    assert branch.resized({"hidden": 5}).norm.eps == 0.25
    attention = Attention(16, 4, OPTIONS).resized({"n_heads": 3})
    assert attention.resized({"n_heads": 2}).proj.weight.shape == (16, 8)
    block = ConvBlock(8, 0.25, 0.5).resized({"hidden": 3})
    assert block.drop_path.rate == 0.25
    assert block.gamma is not None


@pytest.mark.parametrize(
    "part",
    [ConvBlock(4, 0.0, None), Attention(4, 2, OPTIONS), Mlp(4, OPTIONS), S4ND(4), SS2D(4)],
)
def test_other_sizes_are_refused_in_one_line(part: nn.Module) -> None:
    for sizes in ({"width": 3}, {"hidden": 0}, {"n_heads": -1, "hidden": 2}):
        with pytest.raises(ConfigError) as caught:
            part.resized(sizes)
        assert "\n" not in str(caught.value)
