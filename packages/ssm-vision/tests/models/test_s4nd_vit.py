from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from ssm_core import DataInfo, plugin_host
from ssm_core.errors import ConfigError, UnknownNameError
from ssm_vision.models.s4nd import S4ND
from ssm_vision.models.s4nd_vit import PRESETS, S4NDViT, S4NDViTConfig

INFO = DataInfo((3, 16, 24), 5)


def small(mixer: str = "s4nd", **options: object) -> S4NDViT:
    torch.manual_seed(0)
    return S4NDViT(S4NDViTConfig(8, 12, 2, 2, mixer, {"d_state": 4, **options}), INFO).eval()


@pytest.mark.parametrize(("name", "parameters"), [
    ("s4nd_vit_base", 88_786_408), ("s4nd_vit_base_2d", 88_794_856),
])  # fmt: skip
def test_published_size(name: str, parameters: int) -> None:
    """The paper says 88.8 million of S4ND-ViT-B; all blocks are alike, so one tells of twelve."""
    preset = PRESETS[name]
    info = DataInfo((3, preset.image_size, preset.image_size), preset.num_classes)
    model = preset.build(replace(preset.config, n_layers=1), info)
    block = sum(p.numel() for p in model.blocks[0].parameters())
    rest = sum(p.numel() for p in model.parameters()) - block
    assert preset.config.n_layers == 12
    assert rest + 12 * block == parameters
    assert round(parameters / 1e6, 1) == 88.8


def test_places_are_mixed_and_not_told_apart_otherwise() -> None:
    """There is no position embedding: if mixers do nothing, moved patches change nothing."""
    model, images = small(), torch.randn(1, 3, 16, 24)
    moved = images.roll((8, 8), dims=(2, 3))
    with torch.no_grad():
        unlike = model.forward_features(images) - model.forward_features(moved).roll(
            (-1, -1), (1, 2)
        )
        assert unlike.abs().max() > 1e-3
        for block in model.blocks:
            block.mixer.output_linear[0].weight.zero_()
        torch.testing.assert_close(model(images), model(moved))


def test_every_place_sees_every_other() -> None:
    model = small()
    map_in = torch.randn(1, 3, 4, 12, requires_grad=True)
    for row, column in [(0, 0), (2, 3), (1, 1)]:
        (gradient,) = torch.autograd.grad(model.blocks[0](map_in)[0, row, column].sum(), map_in)
        assert (gradient.abs().sum(-1) > 0).all()


def test_padding_is_black_on_the_right_and_below() -> None:
    model, images = small(), torch.randn(2, 3, 13, 20)
    padded = torch.zeros(2, 3, 16, 24)
    padded[:, :, :13, :20] = images
    with torch.no_grad():
        torch.testing.assert_close(model(images), model(padded))
        assert model.forward_features(images).shape == (2, 2, 3, 12)


@pytest.mark.parametrize("mixer", ["s4", "s4d", "s5", "mamba", "bimamba", "rnn", "attention"])
def test_any_sequence_layer_takes_the_places_row_by_row(mixer: str) -> None:
    torch.manual_seed(0)
    model = S4NDViT(S4NDViTConfig(8, 12, 1, 2, mixer), INFO).eval()
    x = torch.randn(2, 2, 3, 12)
    with torch.no_grad():
        block = model.blocks[0]
        rows = x + block.mixer(block.norm1(x).reshape(2, 6, 12)).view_as(x)
        torch.testing.assert_close(block(x), rows + block.mlp(block.norm2(rows)))
        assert model(torch.randn(2, 3, 16, 24)).shape == (2, 5)


def test_initial_values_are_those_of_vit_and_of_the_mixer() -> None:
    torch.manual_seed(0)
    model = S4NDViT(S4NDViTConfig(8, 64, 2, 2), INFO)
    linears = [model.head, *(m for block in model.blocks for m in (block.mlp.fc1, block.mlp.fc2))]
    for part in linears:
        assert isinstance(part, nn.Linear)
        assert not part.bias.detach().any()
        assert 0.018 < part.weight.detach().std().item() < 0.022
    for block in model.blocks:
        assert isinstance(block.mixer, S4ND)
        assert block.mixer.output_linear[0].bias.detach().any()


def test_drop_path_grows_with_depth() -> None:
    model = S4NDViT(S4NDViTConfig(8, 4, 3, drop_path=0.3, mixer_options={"d_state": 2}), INFO)
    assert [block.drop.rate for block in model.blocks] == pytest.approx([0, 0.15, 0.3])


def test_options_are_checked() -> None:
    with pytest.raises(ConfigError, match="s4nd-vit: patch is 0"):
        S4NDViTConfig(patch=0)
    with pytest.raises(ConfigError, match=r"drop_path is 1\.0"):
        S4NDViTConfig(drop_path=1.0)
    with pytest.raises(UnknownNameError, match=r"mixer_options\.d_stat"):
        small(d_stat=4)
    with pytest.raises(UnknownNameError, match="s4ndd"):
        small("s4ndd")


def test_registered() -> None:
    spec = plugin_host().get("models", "s4nd-vit")
    assert spec.build is S4NDViT
    assert spec.config is S4NDViTConfig
