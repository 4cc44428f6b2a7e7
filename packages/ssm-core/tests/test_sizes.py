"""Parts of a model get other sizes, and files carry them to whoever loads the model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from ssm_core import S4D, Mamba, MambaConfig, S4DConfig, Tower, TowerConfig
from ssm_core.errors import CheckpointError, ConfigError, UnknownNameError
from ssm_core.norm import GatedRMSNorm, LayerNorm
from ssm_core.sizes import (
    METADATA_KEY,
    applied_sizes,
    apply_sizes,
    replay_sizes,
    sizes_in,
    sizes_metadata,
)
from ssm_core.train.checkpoint import load_weights, save_weights

SMALLER = {"layers.1.mixer": {"d_inner": 6, "d_state": 2}, "layers": {"kept": [1, 2]}}


def tower() -> Tower:
    return Tower(lambda: Mamba(8, MambaConfig(d_state=4)), TowerConfig(8, 3, mlp_hidden=12))


def test_names_are_those_before_the_call_whatever_the_order() -> None:
    for sizes in (SMALLER, dict(reversed(SMALLER.items()))):
        model = apply_sizes(tower(), sizes)
        assert isinstance(model, Tower)
        assert len(model.layers) == 2
        first, second = (block.mixer for block in model.layers)
        assert first.config.d_inner == 6
        assert first.A_log.shape == (6, 2)
        assert second.A_log.shape == (16, 4)
        assert model(torch.randn(2, 5, 8)).shape == (2, 5, 8)


def test_replayed_and_loaded_models_have_the_same_values(tmp_path: Path) -> None:
    model = apply_sizes(tower(), SMALLER)
    apply_sizes(model, {"layers.0.mlp": {"hidden": 5}, "layers": {"kept": [0]}})
    save_weights(tmp_path / "small.safetensors", model, {"recipe": "none"})
    weights, metadata = load_weights(tmp_path / "small.safetensors")
    other = replay_sizes(tower(), sizes_in(metadata, "small"))
    other.load_state_dict(weights)
    x = torch.randn(2, 5, 8)
    assert torch.equal(model(x), other(x))
    assert applied_sizes(other) == applied_sizes(model)
    assert METADATA_KEY not in sizes_metadata(tower())


def test_new_parts_are_like_the_old_ones_and_draw_nothing() -> None:
    model = tower().to(torch.bfloat16).eval()
    model.layers[0].mixer.in_proj.weight.requires_grad_(False)
    before = torch.get_rng_state()
    apply_sizes(model, {"layers.0.mixer": {"d_inner": 6}})
    assert torch.equal(before, torch.get_rng_state())
    mixer = model.layers[0].mixer
    assert {p.dtype for p in mixer.parameters()} == {torch.bfloat16}
    assert not mixer.training
    assert [n for n, p in mixer.named_parameters() if not p.requires_grad] == ["in_proj.weight"]


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"layers.7.mixer": {"d_inner": 6}}, "no part 'layers.7.mixer'"),
        ({"layers.0.mixer": {"d_inner": 0}}, "d_inner"),
        ({"layers.0.mixer": {"inner": 6}}, "inner"),
        ({"layers.0.mlp": {"width": 6}}, "hidden"),
        ({"norm_f": {"d_model": 6}}, "RMSNorm, which cannot be given other sizes"),
        ({"layers": {"kept": [2, 1]}}, "ascending places from 0 to 2"),
        ({"layers": {"kept": [3]}}, "ascending places from 0 to 2"),
        ({"layers": {"count": 1}}, "'kept'"),
    ],
)
def test_sizes_of_another_model_are_refused(
    sizes: dict[str, dict[str, object]], words: str
) -> None:
    model = tower()
    with pytest.raises(ConfigError, match=words):
        apply_sizes(model, {"layers.2.mixer": {"d_inner": 6}, **sizes})
    assert model.layers[2].mixer.A_log.shape == (16, 4)
    assert applied_sizes(model) == []


def test_layers_without_a_configuration_say_how_to_be_resized() -> None:
    with pytest.raises(UnknownNameError, match="d_state"):
        S4D(8, S4DConfig(d_state=8)).resized({"dstate": 4})
    layer = S4D(8, S4DConfig(d_state=8)).resized({"d_state": 4})
    assert layer.kernel.C.shape == (1, 8, 2, 2)
    layer.config = None
    with pytest.raises(ConfigError, match="implement `resized`"):
        layer.resized({"d_state": 4})


def test_damaged_sizes_are_reported() -> None:
    for text in ("[", "{}", "[1]"):
        with pytest.raises(CheckpointError, match="small: its 'sizes' are damaged"):
            sizes_in({METADATA_KEY: text}, "small")


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
def test_norm_of_a_width_counts_missing_channels_as_zeros(before: bool, groups: int) -> None:
    torch.manual_seed(0)
    whole = GatedRMSNorm(12, groups, before).double()
    nn.init.normal_(whole.weight)
    kept = torch.tensor([0, 2, 3, 6, 8, 11] if groups == 2 else [1, 4, 5, 9, 10, 11])
    part = GatedRMSNorm(6, groups, before, width=12).double()
    part.weight.data = whole.weight.data[kept]
    y, z = torch.randn(3, 12, dtype=torch.double), torch.randn(3, 12, dtype=torch.double)
    removed = torch.ones(12, dtype=torch.bool)
    removed[kept] = False
    y[:, removed] = 0
    torch.testing.assert_close(part(y[:, kept], z[:, kept]), whole(y, z)[:, kept])


def test_layer_norm_of_a_width_counts_missing_channels_as_zeros() -> None:
    torch.manual_seed(0)
    whole, part = LayerNorm(12).double(), LayerNorm(5, width=12).double()
    nn.init.normal_(whole.weight)
    nn.init.normal_(whole.bias)
    x = torch.randn(3, 12, dtype=torch.double) + 3
    x[:, 5:] = 0
    part.weight.data, part.bias.data = whole.weight.data[:5], whole.bias.data[:5]
    torch.testing.assert_close(part(x[:, :5]), whole(x)[:, :5])
    with pytest.raises(ConfigError, match="width is 3, expected at least d_model = 5"):
        LayerNorm(5, width=3)
