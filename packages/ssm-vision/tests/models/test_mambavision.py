"""MambaVision against loops from its equations; its sizes, initial values and options."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from mambavision_reference import Sizes, maps_and_logits, moved
from torch import Tensor, nn

from ssm_core import DataInfo, make_config
from ssm_core.block import DropPath
from ssm_core.errors import ConfigError, UnknownNameError
from ssm_vision.models.mambavision import PRESETS, MambaVision, mixers_of
from ssm_vision.models.mambavision_blocks import Attention
from ssm_vision.models.mambavision_config import MambaVisionConfig
from ssm_vision.models.mambavision_mixer import MambaVisionMixer

INFO = DataInfo(input_shape=(3, 64, 64), n_outputs=5)
SMALL = MambaVisionConfig(
    dim=4, in_dim=3, depths=(2, 1, 3, 4), num_heads=(2, 4), windows=(3, 2), mlp_ratio=2.0
)
#: 5 x 7 positions in level 2 and 3 x 4 in level 3
IMAGES = (2, 3, 76, 100)


def small(**options: Any) -> MambaVision:
    return MambaVision(replace(SMALL, **options), INFO)


def sizes_of(config: MambaVisionConfig) -> Sizes:
    sliding = config.attention_window, config.attention_dilation
    return Sizes(config.depths, config.num_heads, config.windows, sliding)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"layer_scale": 1e-5, "layer_scale_conv": 1e-5, "windows": (4, 5)},
        {"windows": (5, 4), "mixer_options": {"d_conv": 4, "d_state": 3, "expand": 2}},
        {"windows": (9, 8), "depths": (1, 1, 1, 2)},
        {"attention_window": 3},
        {"attention_window": 5, "attention_dilation": 2, "layer_scale": 0.1},
    ],
    ids=["plain", "scales", "even", "one-window", "sliding", "dilated"],
)
def test_equations(options: dict[str, Any]) -> None:
    model = moved(small(**options)).eval()
    assert isinstance(model, MambaVision)
    images = torch.randn(IMAGES, dtype=torch.float64)
    expected_maps, expected = maps_and_logits(model.state_dict(), images, sizes_of(model.config))
    with torch.no_grad():
        maps = model.forward_intermediates(images, intermediates_only=True)
        logits = model(images)
    assert expected.std() > 0.1
    for got, wanted in zip([*maps, logits], [*expected_maps, expected], strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)


def test_wide_sliding_window_of_one_window_is_plain_attention() -> None:
    model = moved(small(windows=(7, 4))).eval()
    wide = small(windows=(7, 4), attention_window=15).double().eval()
    wide.load_state_dict(model.state_dict())
    images = torch.randn(1, 3, 112, 112, dtype=torch.float64)
    torch.testing.assert_close(wide(images), model(images), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "parameters", "entries"),
    [
        ("mambavision_tiny", 31_794_248, 252),
        ("mambavision_tiny2", 35_104_008, 298),
        ("mambavision_small", 50_140_584, 285),
        ("mambavision_base", 97_685_288, 356),
        ("mambavision_large", 227_961_048, 356),
        ("mambavision_large2", 241_554_824, 389),
    ],
)
def test_published_sizes(name: str, parameters: int, entries: int) -> None:
    preset = PRESETS[name]
    with torch.device("meta"):
        model = preset.build(preset.config, DataInfo((3, 224, 224), preset.num_classes))
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert len(model.state_dict()) == entries


def test_maps_of_the_tiny_model() -> None:
    preset = PRESETS["mambavision_tiny"]
    with torch.device("meta"):
        model = preset.build(preset.config, DataInfo((3, 224, 224), 1000)).eval()
    assert [stage[:2] for stage in model.stages] == [(80, 4), (160, 8), (320, 16), (640, 32)]
    blocks = model.get_submodule("levels.2.blocks")
    assert [type(b.mixer) for b in blocks] == [MambaVisionMixer] * 4 + [Attention] * 4
    heads = [block.mixer.n_heads for block in [*blocks, *model.levels[3].blocks][-2:]]
    assert heads == [16, 16]


@pytest.mark.parametrize(
    ("depth", "mixers"),
    [(3, 2), (4, 2), (5, 3), (7, 4), (8, 4), (10, 5), (11, 6), (12, 6), (20, 10)],
)
def test_first_half_has_the_mixer(depth: int, mixers: int) -> None:
    assert mixers_of(depth) == mixers
    model = small(depths=(1, 1, depth, 2))
    kinds = [type(block.mixer) for block in model.levels[2].blocks]
    assert kinds == [MambaVisionMixer] * mixers + [Attention] * (depth - mixers)


def test_maps_are_taken_before_the_downsampling() -> None:
    model = small().eval()
    outputs: dict[str, Tensor] = {}
    for stage in model.stages:
        model.get_submodule(stage.name).register_forward_hook(
            lambda module, inputs, output, name=stage.name: outputs.update({name: output})
        )
    maps = model.forward_intermediates(torch.randn(IMAGES), intermediates_only=True)
    assert [m.shape[1:] for m in maps] == [(4, 19, 25), (8, 10, 13), (16, 5, 7), (32, 3, 4)]
    for stage, feature_map in zip(model.stages, maps, strict=True):
        assert torch.equal(outputs[stage.name], feature_map)


def test_starts_as_published() -> None:
    config = replace(SMALL, dim=48, num_heads=(2, 4), layer_scale=1e-5, layer_scale_conv=0.5)
    model = MambaVision(config, INFO)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            if module.weight.numel() > 5000:
                assert 0.018 < module.weight.std() < 0.022, name
            assert module.weight.abs().max() < 0.15
            assert module.bias is None or not module.bias.any()
        elif isinstance(module, nn.BatchNorm2d):
            assert module.eps == (1e-4 if name.startswith("patch_embed") else 1e-5)
            assert module.momentum == 0.1
            assert module.weight.eq(1).all()
        elif isinstance(module, nn.Conv2d):
            bound = module.weight[0].numel() ** -0.5
            assert 0.8 * bound < module.weight.abs().max() <= bound
    sd = model.state_dict()
    assert sd["levels.2.blocks.0.gamma_1"].eq(1e-5).all()
    assert sd["levels.3.blocks.3.gamma_2"].eq(1e-5).all()
    assert sd["levels.0.blocks.1.gamma"].eq(0.5).all()
    assert model.no_weight_decay() == set()


def test_branches_are_dropped_per_window_and_more_often_with_depth() -> None:
    model = small(drop_path=0.3).train()
    rates = [m.rate for m in model.modules() if isinstance(m, DropPath)]
    torch.testing.assert_close(rates, torch.linspace(0, 0.3, 10).tolist())
    first_axes = []
    for level in model.levels:
        level.blocks[0].drop_path.register_forward_hook(
            lambda module, inputs, output: first_axes.append(inputs[0].shape[0])
        )
    model(torch.randn(IMAGES))
    assert first_axes[:2] == [2, 2]  # images
    assert set(first_axes[2:4]) == {2 * 2 * 3}  # windows of level 2, once per branch
    assert set(first_axes[4:]) == {2 * 2 * 2}


def test_dropout_is_for_training_only() -> None:
    model = small(dropout=0.5, attention_dropout=0.5, drop_path=0.0, depths=(1, 1, 2, 2))
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eval()
    images = torch.randn(IMAGES)
    attention = model.levels[2].blocks[1].mixer
    attention.drop.p = 0.0
    tokens = torch.randn(1, 9, 16)
    assert not torch.equal(attention(tokens), attention(tokens))
    assert not torch.equal(model.train()(images), model(images))
    assert torch.equal(model.eval()(images), model(images))


@pytest.mark.parametrize(
    ("mixer", "options"),
    [
        ("s4", {"d_state": 4, "bidirectional": True}),
        ("s4d", {"d_state": 4, "bidirectional": True}),
        ("s5", {"d_state": 4, "bidirectional": True}),
        ("mamba", {"d_state": 3}),
        ("bimamba", {"d_state": 3}),
        ("mamba2", {"d_state": 4}),
        ("rnn", {}),
        ("attention", {"n_heads": 2, "causal": False}),
    ],
)
def test_any_mixer_before_the_attention(mixer: str, options: dict[str, Any]) -> None:
    depths = (1, 1, 2, 2)
    published = small(depths=depths).state_dict()
    model = small(depths=depths, mixer=mixer, mixer_options=options).train()
    own = model.state_dict()
    replaced = {k for k in published if "blocks.0.mixer." in k}
    assert {k for k in own if "blocks.0.mixer." not in k} == published.keys() - replaced
    assert {k for k in own if "blocks.0.mixer." in k} != replaced
    model(torch.randn(2, 3, 44, 60)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_options_that_are_off_change_nothing() -> None:
    torch.manual_seed(1)
    plain = small()
    torch.manual_seed(1)
    explicit = small(attention_window=0, attention_dilation=3, mixer="mambavision")
    for (name, value), (same, other) in zip(
        plain.state_dict().items(), explicit.state_dict().items(), strict=True
    ):
        assert name == same
        assert torch.equal(value, other)


def test_very_small_images_by_the_strides_of_the_stem() -> None:
    model = small(stem_strides=(1, 1)).eval()
    maps = model.forward_intermediates(torch.randn(1, 3, 32, 24), intermediates_only=True)
    assert [m.shape[2:] for m in maps] == [(32, 24), (16, 12), (8, 6), (4, 3)]
    assert [stage.stride for stage in model.stages] == [1, 2, 4, 8]
    assert model(torch.randn(1, 3, 1, 1)).isfinite().all()


def test_traced_as_one_graph() -> None:
    model = small(depths=(1, 1, 2, 2), attention_window=3).eval()
    images = torch.randn(IMAGES)
    with torch.no_grad():
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(images), model(images))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_weights_of_another_type(dtype: torch.dtype) -> None:
    model = small().eval()
    images = torch.randn(IMAGES)
    with torch.no_grad():
        expected = model(images)
        y = model.to(dtype)(images.to(dtype))
    assert y.dtype is dtype
    torch.testing.assert_close(y.float(), expected, rtol=0.1, atol=0.02)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"dim": 0}, ConfigError, "dim is 0, expected an integer of at least 1"),
        ({"depths": [1, 1, 1]}, ConfigError, "depths"),
        ({"windows": [0, 7]}, ConfigError, "windows is 0, expected an integer of at least 1"),
        ({"num_heads": [7, 16]}, ConfigError, "num_heads is 7 in level 2, expected a divisor of"),
        ({"drop_path": 1.0}, ConfigError, r"drop_path is 1.0, expected a number in \[0, 1\)"),
        ({"mlp_ratio": 0.0}, ConfigError, "mlp_ratio is 0.0, expected a positive number"),
        ({"attention_window": 4}, ConfigError, "attention_window is 4, expected an odd number"),
        ({"attention_dilation": 0}, ConfigError, "attention_dilation is 0"),
        ({"attention_windows": 3}, UnknownNameError, "attention_window"),
    ],
)
def test_options_that_cannot_be(
    options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        make_config(MambaVisionConfig, options, "model")
    assert "\n" not in str(caught.value)


def test_mixer_that_does_not_exist() -> None:
    with pytest.raises(UnknownNameError, match="mambavision"):
        small(mixer="mambavison")
