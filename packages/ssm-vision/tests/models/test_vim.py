"""Vision Mamba against loops in float64, its sizes, initial values, options and checkpoints."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import vim_reference as reference

from ssm_core import DataInfo
from ssm_core.errors import ConfigError, UnknownNameError
from ssm_vision.models.vim import PRESETS, Vim
from ssm_vision.models.vim_config import VimConfig

INFO = DataInfo(input_shape=(3, 20, 28), n_outputs=5)
SMALL = VimConfig(
    patch_size=8, stride=4, embed_dim=16, depth=2, mixer_options={"d_state": 3}, drop_path=0.0
)


def built(info: DataInfo = INFO, **options: Any) -> Vim:
    torch.manual_seed(0)
    return Vim(replace(SMALL, **options), info)


@pytest.mark.parametrize(
    "options",
    [
        {},  # 4 x 6 patches
        {"stride": 8},  # 2 x 3
        {"stride": 5},  # 3 x 5: an odd number
        {"stride": 3, "patch_size": 7},
        {"class_token": "head"},
        {"class_token": "double"},
        {"class_token": "random"},
        {"class_token": "none", "pool": "last"},
        {"class_token": "none", "pool": "mean"},
        {"class_token": "none", "pool": "max"},
        {"class_token": "none", "pool": "all"},
        {"positions": False},
        {"norm": "layer"},
        {"mixer_options": {"d_state": 5, "d_conv": 3, "expand": 1, "divide_out": False}},
        {"mixer_options": {"d_state": 3, "layer_scale": 0.1}},
    ],
    ids=str,
)
def test_equals_loops_in_float64(options: dict[str, Any]) -> None:
    model = built(**options).double().eval()
    reference.strengthen(model)
    images = torch.randn(2, 3, 20, 28, dtype=torch.float64)
    config = model.config
    with torch.no_grad():
        y = model(images)
    for image, row in zip(images, y, strict=True):
        expected = reference.logits(
            reference.numbers(model),
            image,
            stride=config.stride,
            class_token="middle" if config.class_token == "random" else config.class_token,
            pool=config.pool,
            halve=config.mixer_options.get("divide_out", True),
        )
        torch.testing.assert_close(row, torch.from_numpy(expected), rtol=1e-9, atol=1e-9)


SIZES = {
    "vim_tiny_patch16_224": (7_148_008, 197),
    "vim_small_patch16_224": (25_796_584, 197),
    "vim_base_patch16_224": (97_598_440, 197),
    "vim_tiny_patch16_stride8_224": (7_250_344, 730),
    "vim_small_patch16_stride8_224": (26_001_256, 730),
}


@pytest.mark.parametrize("name", SIZES)
def test_published_sizes(name: str) -> None:
    """All blocks are alike: those of depth 1 and 2 say what 24 are."""
    preset, (parameters, tokens) = PRESETS[name], SIZES[name]
    info = DataInfo((3, preset.image_size, preset.image_size), preset.num_classes)
    assert preset.config.depth == 24
    with torch.device("meta"):
        one, two = (preset.build(replace(preset.config, depth=n), info) for n in (1, 2))
    sums = [sum(p.numel() for p in model.parameters()) for model in (one, two)]
    assert sums[0] + 23 * (sums[1] - sums[0]) == parameters
    keys = [len(model.state_dict()) for model in (one, two)]
    assert keys[0] + 23 * (keys[1] - keys[0]) == 415
    assert one.state_dict()["pos_embed"].shape[1] == tokens
    assert set(PRESETS) == set(SIZES)


def test_initial_values() -> None:
    torch.manual_seed(0)
    info = DataInfo(input_shape=(3, 64, 64), n_outputs=100)
    model = Vim(VimConfig(embed_dim=128, depth=9), info)
    values = dict(model.named_parameters())
    std = {name: value.std().item() for name, value in values.items() if value.numel() > 1}
    assert std["patch_embed.proj.weight"] == pytest.approx(
        math.sqrt(1 / (3 * 16**2)) / 0.87962566, rel=0.02
    )
    for name in ("head.weight", "pos_embed", "cls_token"):
        assert std[name] == pytest.approx(0.02, rel=0.2)
    for name in ("head.bias", "patch_embed.proj.bias"):
        assert (values[name] == 0).all()
    for i in (0, 8):
        at = f"layers.{i}.mixer."
        assert values[at + "out_proj.weight"].abs().max() <= 1 / math.sqrt(256) / 3
        assert std[at + "out_proj.weight"] == pytest.approx(1 / math.sqrt(3 * 256) / 3, rel=0.05)
        assert std[at + "in_proj.weight"] == pytest.approx(1 / math.sqrt(3 * 128), rel=0.05)
        for bias in ("dt_proj.bias", "dt_proj_b.bias"):
            steps = torch.nn.functional.softplus(values[at + bias])
            assert 0.9e-3 < steps.min() < steps.max() < 0.11
        assert (values[f"layers.{i}.norm.weight"] == 1).all()
    assert {"pos_embed", "cls_token"} <= model.no_weight_decay()


def test_drop_path_grows_to_the_last_block() -> None:
    rates = [block.drop_path.rate for block in built(depth=4, drop_path=0.3).layers]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert built(depth=1, drop_path=0.3).layers[0].drop_path.rate == 0.3


def test_dropout_is_one_of_tokens_in_training_only() -> None:
    model = built(dropout=0.5)
    images = torch.randn(2, 3, 20, 28)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


def test_other_image_sizes_resample_the_positions() -> None:
    model = built().eval()
    reference.strengthen(model)
    assert model.pos_embed is not None
    other = built(DataInfo(input_shape=(3, 40, 24), n_outputs=5)).eval()
    state = model.state_dict()
    own_class_row = model.pos_embed[:, 12:13]
    grid = torch.cat([model.pos_embed[:, :12], model.pos_embed[:, 13:]], dim=1)
    grid = grid.reshape(1, 4, 6, 16).permute(0, 3, 1, 2)
    grid = torch.nn.functional.interpolate(grid, (9, 5), mode="bicubic")
    rows = grid.flatten(2).transpose(1, 2)
    state["pos_embed"] = torch.cat([rows[:, :22], own_class_row, rows[:, 22:]], dim=1)
    other.load_state_dict(state)
    images = torch.randn(2, 3, 40, 24)
    torch.testing.assert_close(model(images), other(images))


def test_a_random_class_token_is_read_wherever_it_is() -> None:
    """To attention without positions the order of tokens means nothing."""
    attention = {"mixer": "attention", "mixer_options": {"causal": False}}
    model = built(class_token="random", positions=False, **attention)
    images = torch.randn(2, 3, 20, 28)
    moving = model.forward_features(images)
    torch.testing.assert_close(moving, model.eval().forward_features(images))


def test_a_random_class_token_moves_in_training_and_stands_still_in_evaluation() -> None:
    model = built(class_token="random")
    images = torch.randn(2, 3, 20, 28)
    results = {tuple(model(images)[0].tolist()) for _ in range(20)}
    assert 5 < len(results) <= 20
    torch.manual_seed(3)
    first = model(images)
    torch.manual_seed(3)
    assert torch.equal(model(images), first)
    model.eval()
    assert torch.equal(model(images), model(images))
    middle = built().eval()
    middle.load_state_dict(model.state_dict())
    assert torch.equal(model(images), middle(images))


@pytest.mark.parametrize("class_token", ["middle", "head", "double", "none", "random"])
@pytest.mark.parametrize("training", [True, False])
def test_maps_and_step_sizes_leave_class_tokens_out(class_token: str, training: bool) -> None:
    model = built(class_token=class_token).train(training)
    images = torch.randn(2, 3, 33, 24)
    torch.manual_seed(1)
    maps = model.feature_maps(images, [1, 0])
    assert [m.shape for m in maps] == [(2, 16, 7, 5)] * 2
    torch.manual_seed(1)
    tokens = model.forward_features(images)
    normed = model.norm_f(maps[0].permute(0, 2, 3, 1).flatten(1, 2))
    places = model._places(33, 24)
    torch.testing.assert_close(places.patches(tokens), normed)
    torch.manual_seed(1)
    steps = model.step_sizes(images)
    assert [s.shape for s in steps] == [(2, 7, 5)] * 2
    assert all((s > 0).all() for s in steps)


def test_step_sizes_are_those_of_the_mixers() -> None:
    model = built(depth=1).eval()
    reference.strengthen(model)
    images = torch.randn(2, 3, 20, 28)
    (steps,) = model.step_sizes(images)
    x, _, _ = model._tokens(images)
    deltas = model.layers[0].mixer.step_sizes(model.layers[0].norm(x)).mean(dim=2)
    expected = torch.cat([deltas[:, :12], deltas[:, 13:]], dim=1).reshape(2, 4, 6)
    torch.testing.assert_close(steps, expected)
    rnn = built(mixer="rnn", mixer_options={})
    assert not rnn.has_step_sizes
    with pytest.raises(ConfigError, match="'rnn' has no step sizes"):
        rnn.step_sizes(images)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"patch_size": 0}, "patch_size is 0"),
        ({"stride": 9}, "stride is 9, expected at most patch_size, 8"),
        ({"stride": -1}, "stride is -1"),
        ({"class_token": "tail"}, "class_token is 'tail', expected 'middle' or"),
        ({"pool": "sum"}, "pool is 'sum', expected 'last' or"),
        ({"norm": "batch"}, "norm is 'batch'"),
        ({"norm_eps": -1.0}, "norm_eps is -1.0"),
        ({"squeeze_excitation": "out"}, "squeeze_excitation is 'out'"),
        ({"se_reduction": 0}, "se_reduction is 0"),
        ({"depthwise": -1}, "depthwise is -1"),
        ({"depthwise_kernel": 4}, "depthwise_kernel is 4, expected an odd"),
        ({"drop_path": 1.0}, "drop_path is 1.0"),
        ({"dropout": True}, "dropout is True"),
    ],
)
def test_config_errors(option: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"VimConfig: {message}"):
        replace(SMALL, **option)


def test_errors_of_the_model() -> None:
    with pytest.raises(ConfigError, match=r"patch_size is 8, expected at most .* 4 x 9 pixels"):
        built(DataInfo((3, 4, 9), 5))
    with pytest.raises(UnknownNameError):
        built(mixer="bimambo")
    with pytest.raises(ConfigError, match="global_pool is 'avg'"):
        built().reset_classifier(3, "avg")


def test_max_pooling_and_all_tokens_without_a_head() -> None:
    images = torch.randn(2, 3, 20, 28)
    for pool, shape in (("max", (2, 16)), ("all", (2, 24, 16))):
        model = built(class_token="none", pool=pool)
        model.reset_classifier(0)
        assert model(images).shape == shape
        assert model.forward_head(model.forward_features(images), pre_logits=True).shape == shape
