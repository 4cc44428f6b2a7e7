from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from ssm_core import DataInfo
from ssm_core.errors import ConfigError, UnknownNameError
from ssm_kernels.errors import ShapeError
from ssm_vision import PatchClassifier, PatchClassifierConfig

MIXERS: dict[str, dict[str, Any]] = {
    "mamba": {"d_state": 2},
    "bimamba": {"d_state": 2},
    "mamba2": {"d_state": 2},
    "s4": {"d_state": 4, "l_max": 8},
    "s4d": {"d_state": 4, "bidirectional": True},
    "s5": {"d_state": 4, "bidirectional": True},
    "rnn": {"hidden": 5},
    "attention": {"n_heads": 2, "causal": False},
    "transformer": {"n_heads": 2},
}


def small(info: DataInfo, **options: Any) -> PatchClassifier:
    config = {"patch": 4, "d_model": 8, "n_layers": 2, "mixer_options": {"d_state": 2}, **options}
    return PatchClassifier(PatchClassifierConfig(**config), info)


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("pool", ["mean", "last"])
def test_every_mixer_runs_forward_and_backward(info: DataInfo, mixer: str, pool: str) -> None:
    model = small(info, mixer=mixer, mixer_options=MIXERS[mixer], pool=pool, mlp_hidden=6)
    logits = model(torch.randn(3, 3, 8, 12))
    assert logits.shape == (3, 5)
    F.cross_entropy(logits, torch.tensor([0, 1, 2])).backward()
    without = {n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    # the backward direction reads only the last token to write the last token: its state is unused
    expected = {"tower.layers.1.mixer.A_b_log"} if (mixer, pool) == ("bimamba", "last") else set()
    assert without == expected


def test_tokens_are_a_strided_convolution_row_by_row(info: DataInfo) -> None:
    model = small(info, positions=False)
    images = torch.randn(2, 3, 8, 12)
    kernel = model.embed.weight.view(8, 3, 4, 4)
    expected = F.conv2d(images, kernel, model.embed.bias, stride=4).flatten(2).transpose(1, 2)
    torch.testing.assert_close(model.tokens(images), expected)


def test_a_patch_becomes_the_token_of_its_place(info: DataInfo) -> None:
    model = small(info, positions=False)
    images = torch.zeros(1, 3, 8, 12)
    images[0, :, 4:8, 0:4] = 1.0  # second row, first column: token 3 of 2 x 3
    tokens = model.tokens(images)[0]
    differs = (tokens != tokens[0]).any(dim=1)
    assert differs.tolist() == [False, False, False, True, False, False]


def test_positions_are_added_and_trained(info: DataInfo) -> None:
    model = small(info)
    tokens = model.tokens(torch.zeros(2, 3, 8, 12))
    assert model.positions is not None
    torch.testing.assert_close(tokens[1], model.embed.bias + model.positions)
    assert model.positions.shape == (6, 8)
    assert model.positions._no_weight_decay
    assert small(info, positions=False).positions is None


def test_pooling(info: DataInfo) -> None:
    images = torch.randn(2, 3, 8, 12)
    for pool in ("mean", "last"):
        model = small(info, pool=pool)
        y = model.tower(model.tokens(images))
        pooled = y.mean(1) if pool == "mean" else y[:, -1]
        torch.testing.assert_close(model(images), model.head(pooled))


@given(b=st.integers(0, 3), rows=st.integers(1, 3), columns=st.integers(1, 3), c=st.integers(1, 3))
@settings(max_examples=15, deadline=None)
def test_any_grid_of_patches(b: int, rows: int, columns: int, c: int) -> None:
    info = DataInfo((c, 2 * rows, 2 * columns), n_outputs=3)
    model = small(info, patch=2)
    images = torch.randn(b, c, 2 * columns, 2 * rows).transpose(2, 3)  # not contiguous
    assert model(images).shape == (b, 3)
    torch.testing.assert_close(model(images), model(images.contiguous()))


@pytest.mark.parametrize("shape", [(2, 1, 8, 12), (2, 3, 12, 8), (3, 8, 12), (2, 3, 8, 12, 1)])
def test_wrong_images_are_refused(info: DataInfo, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError) as caught:
        small(info)(torch.zeros(shape))
    assert str(shape) in str(caught.value)
    assert "(b, 3, 8, 12)" in str(caught.value)


def test_a_patch_that_does_not_divide_the_image(info: DataInfo) -> None:
    with pytest.raises(ConfigError, match=r"model\.patch is 5, expected a divisor .* 8 x 12"):
        small(info, patch=5)


def test_data_that_are_not_images() -> None:
    with pytest.raises(ConfigError, match=r"needs images \(c, y, x\), this data set gives \(64,\)"):
        small(DataInfo(input_shape=(64,), n_outputs=3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch": 0}, "model.patch is 0, expected 1 or more"),
        ({"n_layers": 0}, "model.n_layers is 0, expected 1 or more"),
        ({"mlp_hidden": -1}, "model.mlp_hidden is -1, expected 0 or more"),
        ({"dropout": 1.0}, r"model.dropout is 1.0, expected a number in \[0, 1\)"),
        ({"pool": "first"}, "model.pool is 'first', expected 'mean' or 'last'"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PatchClassifierConfig(**options)


def test_unknown_mixer_and_unknown_mixer_option(info: DataInfo) -> None:
    with pytest.raises(UnknownNameError, match=r"'bimambo'.*'bimamba'"):
        small(info, mixer="bimambo")
    with pytest.raises(UnknownNameError, match=r"d_stat'.*d_state"):
        small(info, mixer_options={"d_stat": 3})


@pytest.mark.parametrize("mixer", ["mamba", "bimamba"])
def test_step_sizes_are_those_of_the_layers(info: DataInfo, mixer: str) -> None:
    model = small(info, mixer=mixer)
    images = torch.randn(2, 3, 8, 12)
    maps = model.step_sizes(images)
    assert [m.shape for m in maps] == [(2, 2, 3), (2, 2, 3)]
    x = model.tokens(images)
    for block, found in zip(model.tower.layers, maps, strict=True):
        delta = block.mixer.step_sizes(block.norm(x))  # (b, l, E)
        for row in range(2):
            for column in range(3):
                torch.testing.assert_close(
                    found[:, row, column], delta[:, 3 * row + column].mean(1)
                )
        x = block(x)


def test_step_sizes_leave_nothing_behind(info: DataInfo) -> None:
    model = small(info)
    images = torch.randn(2, 3, 8, 12)
    before = model(images)
    model.step_sizes(images)
    assert not any(block.mixer._forward_pre_hooks for block in model.tower.layers)
    torch.testing.assert_close(model(images), before, rtol=0, atol=0)


def test_step_sizes_need_a_mamba(info: DataInfo) -> None:
    model = small(info, mixer="rnn", mixer_options={})
    assert not model.has_step_sizes
    with pytest.raises(ConfigError, match="'rnn' has no step sizes"):
        model.step_sizes(torch.zeros(1, 3, 8, 12))
