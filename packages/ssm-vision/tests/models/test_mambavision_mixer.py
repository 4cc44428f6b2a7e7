"""MambaVision's mixer against its equations, and as a sequence layer."""

from __future__ import annotations

import math

import pytest
import torch
from mambavision_reference import conv_same, mixer, moved
from torch import Tensor

from ssm_core import build_mixer
from ssm_core.errors import ConfigError, UnknownNameError
from ssm_core.layers.protocol import CausalityError
from ssm_core.tower import Tower, TowerConfig
from ssm_kernels.errors import ArgumentError, ShapeError
from ssm_vision.models.mambavision_mixer import (
    MambaVisionMixer,
    MambaVisionMixerConfig,
    centred_conv1d,
)

D_MODEL = 6
CONFIGS = {
    "published": MambaVisionMixerConfig(),
    "even": MambaVisionMixerConfig(d_state=3, d_conv=4, expand=2, dt_rank=5),
    "two": MambaVisionMixerConfig(d_state=1, d_conv=2),
    "no-neighbours": MambaVisionMixerConfig(d_state=2, d_conv=1, expand=3),
    "widest": MambaVisionMixerConfig(d_conv=8),
}
each_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def layer_of(config: MambaVisionMixerConfig) -> MambaVisionMixer:
    layer = moved(MambaVisionMixer(D_MODEL, config))
    assert isinstance(layer, MambaVisionMixer)
    return layer


def random(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def offsets_of(lengths: list[int]) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0)


@each_config
@pytest.mark.parametrize("length", [0, 1, 2, 3, 9, 65])
@torch.no_grad()
def test_equations(config: MambaVisionMixerConfig, length: int) -> None:
    layer, x = layer_of(config), random(2, length, D_MODEL)
    expected = torch.stack([mixer(layer.state_dict(), tokens) for tokens in x])
    torch.testing.assert_close(layer(x), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("width", range(1, 9))
def test_convolution_sees_both_sides_of_its_own_sequence_only(width: int) -> None:
    lengths = [3, 1, 0, 7]
    x, weight = random(1, 11, D_MODEL).requires_grad_(), random(D_MODEL, width).requires_grad_()
    whole = torch.cat([centred_conv1d(piece, weight) for piece in x.split(lengths, 1)], 1)
    packed = centred_conv1d(x, weight, offsets_of(lengths))
    expected = [conv_same(piece[0], weight.unsqueeze(1)) for piece in x.split(lengths, 1)]
    torch.testing.assert_close(packed[0], torch.cat(expected))
    torch.testing.assert_close(whole, packed)
    seed = random(1, 11, D_MODEL)
    torch.testing.assert_close(
        torch.autograd.grad(whole, (x, weight), seed),
        torch.autograd.grad(packed, (x, weight), seed),
    )


def test_convolution_of_even_width_sees_one_step_more_ahead() -> None:
    impulse = torch.zeros(1, 7, 1, dtype=torch.float64)
    impulse[0, 3] = 1
    seen = centred_conv1d(impulse, torch.ones(1, 4, dtype=torch.float64))[0, :, 0] != 0
    assert seen.tolist() == [False, True, True, True, True, False, False]


@each_config
@pytest.mark.parametrize("lengths", [[3, 1, 0, 7], [65], [0, 0], []])
@torch.no_grad()
def test_packed_sequences_are_what_they_are_alone(
    config: MambaVisionMixerConfig, lengths: list[int]
) -> None:
    layer, x = layer_of(config), random(1, sum(lengths), D_MODEL)
    expected = [layer(piece) for piece in x.split(lengths, dim=1)]
    y = layer(x, cu_seqlens=offsets_of(lengths))
    torch.testing.assert_close(y, torch.cat([x[:, :0], *expected], 1), rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_padding_is_as_if_it_were_not_there() -> None:
    layer, x = layer_of(CONFIGS["even"]), random(3, 6, D_MODEL)
    x[0, :2] = math.nan  # padding may hold anything
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [0] * 6, [0, 1, 0, 1, 0, 0]]).bool()
    y = layer(x, mask=mask)
    assert not y[~mask].any()
    for i in range(3):
        alone = layer(x[i : i + 1, mask[i]])
        torch.testing.assert_close(y[i : i + 1, mask[i]], alone, rtol=1e-9, atol=1e-9)


def test_no_gradient_crosses_from_one_packed_sequence_to_another() -> None:
    layer, x = layer_of(CONFIGS["published"]), random(1, 9, D_MODEL).requires_grad_()
    y = layer(x, cu_seqlens=offsets_of([4, 5]))
    (gradient,) = torch.autograd.grad(y[:, 4:].square().sum(), x)
    assert not gradient[:, :4].any()
    assert gradient[:, 4:].any()


@each_config
def test_gradients(config: MambaVisionMixerConfig) -> None:
    layer = layer_of(config)
    names, parameters = zip(*layer.named_parameters(), strict=True)

    def run(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (random(2, 4, D_MODEL).requires_grad_(), *parameters))


def test_strides_do_not_matter() -> None:
    layer, x = layer_of(CONFIGS["published"]), random(5, D_MODEL, 4)
    torch.testing.assert_close(
        layer(x.transpose(1, 2)), layer(x.transpose(1, 2).contiguous()), rtol=1e-9, atol=1e-9
    )


def test_one_step_ahead_is_seen_and_no_state_exists() -> None:
    layer, x = layer_of(CONFIGS["published"]), random(1, 5, D_MODEL)
    other = x.clone()
    other[:, 3] += 1
    different = (layer(x) != layer(other)).any(dim=2)[0]
    assert different.tolist() == [False, False, True, True, True]
    with pytest.raises(CausalityError, match="MambaVisionMixer: a state needs a causal layer"):
        layer(x, return_state=True)
    with pytest.raises(CausalityError):
        layer.initial_state(1)
    with pytest.raises(ShapeError, match=r"expected \(b, l, d\) = \(b, l, 6\)"):
        layer(x[..., :4])
    with pytest.raises(ArgumentError, match=r"expected .* l = 5"):
        layer(x, cu_seqlens=offsets_of([4]))


def test_step_sizes_count_the_bias_twice() -> None:
    layer, x = layer_of(CONFIGS["published"]), random(2, 5, D_MODEL)
    with torch.no_grad():
        layer.x_proj.weight.zero_()
    steps = layer.step_sizes(x)
    assert steps.shape == (2, 5, D_MODEL // 2)
    expected = torch.log1p(torch.exp(2 * layer.dt_proj.bias)).expand_as(steps)
    torch.testing.assert_close(steps, expected)


def test_starts_as_published() -> None:
    layer = MambaVisionMixer(256)
    for linear in (layer.in_proj, layer.x_proj, layer.dt_proj, layer.out_proj):
        assert 0.018 < linear.weight.std() < 0.022
        assert abs(linear.weight.mean()) < 0.002
    assert not layer.dt_proj.bias.any()
    assert layer.D.eq(1).all()
    torch.testing.assert_close(layer.A_log.exp(), torch.arange(1.0, 9.0).expand(128, 8))
    for conv in (layer.conv1d_x, layer.conv1d_z):
        assert 0.9 * 3**-0.5 < conv.weight.abs().max() <= 3**-0.5
        assert conv.bias is None
    assert layer.dt_proj.weight.shape == (128, 16)
    assert layer.x_proj.weight.shape == (32, 128)


def test_by_name_and_in_a_tower() -> None:
    layer = build_mixer("mambavision", 6, {"d_state": 3, "d_conv": 5})
    assert isinstance(layer, MambaVisionMixer)
    assert layer.conv1d_x.weight.shape == (3, 1, 5)
    tower = Tower(lambda: build_mixer("mambavision", 6), TowerConfig(d_model=6))
    assert not tower.causal
    assert tower(torch.randn(2, 5, 6)).isfinite().all()


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"d_conv": 9}, ConfigError, "d_conv is 9, expected 1 to 8"),
        ({"d_state": 0}, ConfigError, "d_state is 0, expected an integer of at least 1"),
        ({"dt_rank": 0}, ConfigError, "dt_rank"),
        ({"d_stat": 2}, UnknownNameError, "d_state"),
    ],
)
def test_options_that_cannot_be(
    options: dict[str, int], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        build_mixer("mambavision", 6, options)
    assert "\n" not in str(caught.value)


def test_odd_width_cannot_be_halved() -> None:
    with pytest.raises(ConfigError, match=r"expand \* d_model is 5, expected an even number"):
        MambaVisionMixer(5)
    assert MambaVisionMixer(5, MambaVisionMixerConfig(expand=2)).D.shape == (5,)
