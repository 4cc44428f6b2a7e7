"""The parts of S5's model by themselves, dropout, low precision and extreme values."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ssm_core.layers.s5 import S5
from ssm_core.layers.s5_config import S5Config
from ssm_core.layers.s5_ssm import advance, drive, read


@torch.no_grad()
def test_small_steps_keep_their_digits() -> None:
    """exp(z) - 1 as it stands would lose all of them in float32."""
    layer = S5(4, S5Config(d_state=8, activation=None))
    layer.log_step.fill_(-15.0)
    factor, gain = layer._discretized(torch.float32)
    expected_factor, expected = layer._discretized(torch.float64)
    torch.testing.assert_close(factor.to(torch.complex128), expected_factor, rtol=1e-6, atol=0)
    torch.testing.assert_close(gain.to(torch.complex128), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(
        expected, torch.full_like(expected, math.exp(-15)), rtol=1e-5, atol=0
    )


def test_real_products_are_the_complex_ones() -> None:
    p, h = 3, 4
    B, C, gain, factor = (
        torch.randn(*s, dtype=torch.complex128) for s in ((p, h), (h, p), (p,), (p,))
    )
    u = torch.randn(2, 5, h, dtype=torch.float64)
    x = torch.randn(2, 5, p, dtype=torch.complex128)
    torch.testing.assert_close(drive(u, gain, B), (u + 0j) @ (gain[:, None] * B).T)
    torch.testing.assert_close(read(x, C), (x @ C.T).real)
    y, following = advance(u[:, 0], x[:, 0], factor, gain, B, C)
    expected = factor * x[:, 0] + drive(u[:, :1], gain, B)[:, 0]
    torch.testing.assert_close(following, expected)
    torch.testing.assert_close(y, read(following, C))


def dropping(**options: object) -> S5:
    """A layer that passes its input through, so that the output shows the masks."""
    layer = S5(40, S5Config(d_state=4, dropout=0.5, **options)).train()  # type: ignore[arg-type]
    with torch.no_grad():
        layer.B.zero_()
        layer.D.fill_(100.0)  # gelu(100) = 100
    return layer


@pytest.mark.parametrize("bidirectional", [False, True])
def test_dropout_has_one_mask_for_a_feature_of_a_sequence(bidirectional: bool) -> None:
    layer = dropping(activation="gelu", bidirectional=bidirectional)
    y = layer(torch.ones(30, 6, 40)).detach()
    assert torch.equal(y, y[:, :1].expand_as(y))
    assert set(y.unique().tolist()) == {0.0, 200.0}
    assert 0.45 < (y == 0).float().mean() < 0.55
    assert not torch.equal(y[0], y[1])
    assert torch.equal(layer.eval()(torch.ones(1, 1, 40)), torch.full((1, 1, 40), 100.0))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_dropout_of_packed_sequences(dtype: torch.dtype) -> None:
    layer = dropping(activation="gelu")
    lengths = [3, 0, 1, 5]
    offsets = torch.tensor([0, 3, 3, 4, 9], dtype=dtype)
    pieces = layer(torch.ones(1, 9, 40), cu_seqlens=offsets).detach()[0].split(lengths)
    for piece in pieces:
        assert torch.equal(piece, piece[:1].expand_as(piece))
    assert not torch.equal(pieces[0][0], pieces[2][0])
    assert not torch.equal(pieces[2][0], pieces[3][0])
    mask = torch.tensor([[1, 1, 0], [0, 1, 1]]).bool()
    padded = layer(torch.ones(2, 3, 40), mask=mask).detach()
    assert torch.equal(padded[0, 0], padded[0, 1])
    assert torch.equal(padded[1, 1], padded[1, 2])
    assert padded[mask].any()


def test_dropout_behind_the_gate_has_a_mask_of_its_own() -> None:
    layer = dropping(activation="half_glu2")
    with torch.no_grad():
        layer.out2.weight.zero_()  # sigmoid(0) = 1/2
    y = layer(torch.ones(30, 2, 40)).detach()
    assert set(y.unique().tolist()) == {0.0, 100.0}  # the value path is dropped once
    layer = dropping(activation="half_glu1")
    with torch.no_grad():
        layer.out2.weight.zero_()
    y = layer(torch.ones(30, 2, 40)).detach()
    assert set(y.unique().tolist()) == {0.0, 200.0}
    assert 0.7 < (y == 0).float().mean() < 0.8  # twice: a quarter stays


def adversarial(l: int, d: int) -> dict[str, Tensor]:
    spike = torch.zeros(1, l, d)
    spike[:, l // 2] = 1e3
    return {
        "zeros": torch.zeros(1, l, d),
        "constant": torch.full((1, l, d), 30.0),
        "spike": spike,
        "tiny": torch.full((1, l, d), 1e-38),
        "alternating": torch.tensor([30.0, -30.0]).repeat(l)[:l].view(1, l, 1).expand(1, l, d),
    }


@pytest.mark.parametrize("kind", list(adversarial(4, 2)))
@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("discretization", "log_step"),
    # with larger steps the bilinear rule has a factor of -1, which resonates with an alternating
    # input beyond what float16 can hold
    [("zoh", -20.0), ("zoh", 0.0), ("zoh", 20.0), ("bilinear", -20.0), ("bilinear", 4.0)],
)
def test_autocast_stays_finite(
    kind: str, discretization: str, low: torch.dtype, log_step: float
) -> None:
    config = S5Config(d_state=16, clip_eigs=True, discretization=discretization)  # type: ignore[arg-type]
    layer = S5(8, config)
    with torch.no_grad():
        layer.log_step.fill_(log_step)
        layer.Lambda_re.copy_(-torch.logspace(-3, 4, 8))
    x = adversarial(4096, 8)[kind].clone().requires_grad_()
    with torch.autocast("cpu", low):
        y, state = layer(x, return_state=True)
    assert y.dtype is low
    assert state.x.dtype is torch.complex64
    y.float().mean().backward()
    expected = layer(x)
    difference = (y.float() - expected).abs().max()
    # what is below the least number of the low type is lost there
    assert difference <= 0.05 * expected.abs().max() + torch.finfo(low).tiny
    for name, value in [("x", x), *layer.named_parameters()]:
        assert value.grad is not None, name
        assert value.grad.isfinite().all(), name
        assert value.grad.dtype is torch.float32


@pytest.mark.parametrize("activation", ["half_glu1", "half_glu2", "full_glu", "gelu", None])
@torch.no_grad()
def test_output_has_the_type_of_a_linear_map(activation: str | None) -> None:
    config = S5Config(d_state=4, activation=activation)  # type: ignore[arg-type]
    layer, linear = S5(8, config), torch.nn.Linear(8, 8)
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        x = torch.randn(2, 5, 8).to(dtype)
        expected = layer.to(dtype)(x)
        assert expected.dtype is dtype
        for low in (torch.bfloat16, torch.float16):
            with torch.autocast("cpu", low):
                y, of_linear = layer(x), linear.to(dtype)(x)
                one, _ = layer.step(x[:, 0], layer.initial_state(2))
            assert y.dtype is one.dtype is of_linear.dtype
            assert (y.double() - expected.double()).norm() < 0.03 * expected.double().norm()


def test_model_is_computed_in_float32_whatever_the_type_of_the_parameters() -> None:
    layer = S5(4, S5Config(d_state=4)).half()
    with torch.no_grad():
        layer.log_step.fill_(12.0)  # exp(12) = 162755 is beyond float16
    layer(torch.ones(1, 3, 4, dtype=torch.float16)).sum().backward()
    assert layer.log_step.grad is not None
    assert layer.log_step.grad.isfinite().all()
