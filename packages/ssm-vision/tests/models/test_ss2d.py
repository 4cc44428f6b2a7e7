"""SS2D against its equations, and what it promises beside them."""

from __future__ import annotations

import math

import pytest
import torch
import vmamba_reference
from hypothesis import given, settings
from hypothesis import strategies as st

from ssm_core.errors import ConfigError
from ssm_vision.models.ss2d import SS2D, V0, V05_NOZ, SS2DConfig

configs = st.builds(
    SS2DConfig,
    d_state=st.sampled_from([1, 3, 4, 16]),
    ssm_ratio=st.sampled_from([1.0, 1.5, 2.0]),
    dt_rank=st.sampled_from([None, 2]),
    gated=st.booleans(),
    conv_bias=st.booleans(),
    float32_scan=st.booleans(),
)


def layer(d_model: int, config: SS2DConfig) -> SS2D:
    mixer = SS2D(d_model, config).double()
    vmamba_reference.jitter(mixer)
    return mixer


@given(configs, st.integers(1, 6), st.integers(1, 6), st.sampled_from([2, 5, 18]))
@settings(max_examples=25, deadline=None)
def test_every_form_is_its_equations(
    config: SS2DConfig, rows: int, columns: int, d_model: int
) -> None:
    mixer = layer(d_model, config)
    x = torch.randn(2, rows, columns, d_model, dtype=torch.float64)
    with torch.no_grad():
        expected = vmamba_reference.ss2d(x, dict(mixer.named_parameters()))
        torch.testing.assert_close(mixer(x), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("config", [V0, V05_NOZ], ids=["v0", "v05_noz"])
def test_gradients_of_input_and_of_every_parameter(config: SS2DConfig) -> None:
    mixer = layer(5, config)
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64, requires_grad=True)
    weights = dict(mixer.named_parameters())
    leaves = [x, *weights.values()]
    grad_y = torch.randn(x.shape, dtype=x.dtype)
    expected = torch.autograd.grad(vmamba_reference.ss2d(x, weights), leaves, grad_y)
    found = torch.autograd.grad(mixer(x), leaves, grad_y)
    for name, value, exact in zip(["x", *weights], found, expected, strict=True):
        scale = exact.abs().max().item()
        assert scale > 1e-6, name
        torch.testing.assert_close(value, exact, rtol=0, atol=1e-8 * scale, msg=name)


def test_float32_and_any_layout_of_the_input() -> None:
    mixer = layer(6, V0)
    x = torch.randn(2, 4, 7, 6, dtype=torch.float64)
    with torch.no_grad():
        expected = mixer(x).float()
        mixer = mixer.float()
        y = mixer(x.float())
        channel_first = x.float().permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
        torch.testing.assert_close(mixer(channel_first), y, rtol=1e-5, atol=1e-5)
        wide = torch.randn(2, 4, 9, 6)
        torch.testing.assert_close(mixer(wide[:, :, 1:8]), mixer(wide[:, :, 1:8].contiguous()))
    assert (y - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("config", [V0, V05_NOZ], ids=["v0", "v05_noz"])
def test_half_precision(config: SS2DConfig) -> None:
    mixer = layer(16, config).float()
    x = torch.randn(2, 5, 7, 16)
    with torch.no_grad():
        full = mixer(x)
        with torch.autocast("cpu", torch.bfloat16):
            autocast = mixer(x)
        whole = mixer.bfloat16()(x.bfloat16())
    assert autocast.dtype is whole.dtype is torch.bfloat16
    for half in (autocast.float(), whole.float()):
        assert 0 < (half - full).norm() <= 0.05 * full.norm()


def test_scan_reads_float32_under_autocast_if_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def scan(u: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        seen.append(u.dtype)
        return u

    monkeypatch.setattr("ssm_vision.models.ss2d.selective_scan_directions", scan)
    for float32_scan in (True, False):
        with torch.autocast("cpu", torch.bfloat16):
            SS2D(8, SS2DConfig(float32_scan=float32_scan))(torch.randn(1, 2, 3, 8))
    assert seen == [torch.float32, torch.bfloat16]


def test_empty_batch() -> None:
    x = torch.zeros(0, 3, 4, 8, requires_grad=True)
    y = SS2D(8)(x)
    y.sum().backward()
    assert y.shape == x.shape
    assert x.grad is not None


def test_initial_values() -> None:
    mixer = SS2D(64)
    inner, rank, n = 128, 4, 16
    assert mixer.x_proj_weight.shape == (4, rank + 2 * n, inner)
    assert mixer.dt_projs_weight.shape == (4, inner, rank)
    for weight, bound in (
        (mixer.x_proj_weight, inner**-0.5),
        (mixer.dt_projs_weight, rank**-0.5),
    ):
        assert weight.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
    steps = torch.nn.functional.softplus(mixer.dt_projs_bias.detach())
    assert 0.00099 <= steps.min() < 0.0015
    assert 0.07 < steps.max() <= 0.101
    assert steps.log().mean().item() == pytest.approx(math.log(0.01), abs=0.3)
    expected = torch.arange(1.0, n + 1).expand(4 * inner, n)
    torch.testing.assert_close(mixer.A_logs.detach().exp(), expected)
    assert SS2D(4, V05_NOZ).A_logs.count_nonzero() == 0
    assert (mixer.Ds == 1).all()
    # decayed as published
    assert not any(getattr(p, "_no_weight_decay", False) for p in mixer.parameters())


def test_rank_comes_from_the_width_of_the_map() -> None:
    assert SS2D(17, SS2DConfig(ssm_ratio=2.0)).dt_rank == 2
    assert SS2D(17, SS2DConfig(dt_rank=5)).dt_projs_weight.shape == (4, 34, 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_state": 0}, "d_state is 0, expected an integer of at least 1"),
        ({"dt_rank": 0}, r"dt_rank \(a number or None\) is 0, expected an integer of at least 1"),
        ({"ssm_ratio": 0.0}, "ssm_ratio is 0.0, expected a number above 0"),
        ({"ssm_ratio": math.inf}, "ssm_ratio is inf"),
        ({"ssm_ratio": 0.1}, "d_inner is 0, expected an integer of at least 1"),
    ],
)
def test_options_that_cannot_be(options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        SS2D(8, SS2DConfig(**options))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
