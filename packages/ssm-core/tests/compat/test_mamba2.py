"""`Mamba2` of mamba_ssm: values, packed sequences, caches, initial values, refusals."""

from __future__ import annotations

import math

import pytest
import torch
from compat_cases import random, slow_convolution, slow_scan, strong
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

import ssm_core
from ssm_core.compat.cache import InferenceParams
from ssm_core.compat.mamba2 import Mamba2
from ssm_core.errors import ConfigError, SsmError
from ssm_kernels.errors import DTypeError, ShapeError

OPTIONS = [
    {},
    {"ngroups": 2, "norm_before_gate": True},
    {"rmsnorm": False, "d_ssm": 8, "D_has_hdim": True},
    {"dt_limit": (0.5, 1.5), "bias": True, "expand": 1.5, "d_conv": 2},
]


def make(**options: object) -> Mamba2:
    torch.manual_seed(0)
    return strong(Mamba2(8, **{"d_state": 3, "headdim": 4, "layer_idx": 2, **options}))


def slow_mamba2(mixer: Mamba2, x: Tensor) -> Tensor:
    """What the equations say of one sequence x (l, d), channel by channel as a selective scan."""
    sd, p, g, n = mixer.state_dict(), mixer.headdim, mixer.ngroups, mixer.d_state
    m, d_ssm, heads = mixer.d_inner - mixer.d_ssm, mixer.d_ssm, mixer.nheads
    rows = F.linear(x, sd["in_proj.weight"], sd.get("in_proj.bias"))
    z0, x0, z, xBC, dt = rows.split([m, m, d_ssm, d_ssm + 2 * g * n, heads], dim=1)
    xBC = slow_convolution(xBC, sd["conv1d.weight"], sd["conv1d.bias"])
    u, B, C = xBC.split([d_ssm, g * n, g * n], dim=1)
    dt = F.softplus(dt + sd["dt_bias"]).clamp(*mixer.dt_limit)
    parts = []
    for h in range(heads):
        own, group = slice(h * p, h * p + p), slice(h * g // heads * n, (h * g // heads + 1) * n)
        A = -sd["A_log"][h].exp().expand(p, n)
        D = sd["D"][own] if mixer.D_has_hdim else sd["D"][h].expand(p)
        steps = dt[:, h : h + 1].expand(-1, p)
        parts.append(slow_scan(u[:, own], steps, A, B[:, group], C[:, group], D))
    y = torch.cat(parts, dim=1)
    if not mixer.rmsnorm:
        y = y * F.silu(z)
    else:
        y = y if mixer.norm_before_gate else y * F.silu(z)
        y = y.unflatten(1, (g, -1))
        y = y / (y.square().mean(dim=2, keepdim=True) + 1e-5).sqrt()
        y = y.flatten(1) * sd["norm.weight"]
        y = y * F.silu(z) if mixer.norm_before_gate else y
    y = torch.cat([F.silu(z0) * x0, y], dim=1)
    return F.linear(y, sd["out_proj.weight"], sd.get("out_proj.bias"))


@pytest.mark.parametrize("options", OPTIONS)
def test_equals_the_equations(options: dict[str, object]) -> None:
    mixer, x = make(**options), random(2, 6, 8)
    with torch.no_grad():
        expected = torch.stack([slow_mamba2(mixer, own) for own in x])
        torch.testing.assert_close(mixer(x), expected, rtol=1e-9, atol=1e-9)
        flat = mixer(x.flatten(0, 1), seqlen=6)
        torch.testing.assert_close(flat, expected.flatten(0, 1), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("context", [torch.no_grad, torch.enable_grad])
def test_prompt_then_steps_give_the_whole_sequence(context, options: dict[str, object]) -> None:
    mixer, x = make(**options), random(2, 7, 8)
    expected = mixer(x).detach()
    with context():
        params = InferenceParams(max_seqlen=7, max_batch_size=2)
        pieces = [mixer(x[:, :3], inference_params=params)]
        params.seqlen_offset = 3
        conv_state, ssm_state = params.key_value_memory_dict[2]
        for t in range(3, 7):
            pieces.append(mixer(x[:, t : t + 1], inference_params=params))
            params.seqlen_offset += 1
    y = torch.cat(pieces, dim=1).detach()
    torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-9)
    assert params.key_value_memory_dict[2][0] is conv_state
    assert params.key_value_memory_dict[2][1] is ssm_state
    m = 2 * (mixer.d_inner - mixer.d_ssm) + mixer.d_ssm
    xBC = mixer.in_proj(x).detach()[..., m : -mixer.nheads].transpose(1, 2)
    torch.testing.assert_close(conv_state.detach(), xBC[..., 7 - mixer.d_conv :])


def test_gradients_through_steps() -> None:
    mixer, x, weight = make(), random(2, 5, 8), random(2, 5, 8, seed=2)
    expected = torch.autograd.grad((mixer(x) * weight).sum(), list(mixer.parameters()))
    states = mixer.allocate_inference_cache(2, 5, dtype=torch.float64)
    pieces = []
    for t in range(5):
        y, *states = mixer.step(x[:, t : t + 1], *states)
        pieces.append(y)
    got = torch.autograd.grad((torch.cat(pieces, 1) * weight).sum(), list(mixer.parameters()))
    torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-8)


@given(
    lengths=st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=3), min_size=1, max_size=2)
)
@settings(max_examples=15, deadline=None)
def test_packed_sequences_do_not_reach_each_other(lengths: list[list[int]]) -> None:
    """Rows of equal length, each cut into sequences of its own."""
    longest = max(sum(row) for row in lengths)
    rows = [[*row, longest - sum(row)] if sum(row) < longest else row for row in lengths]
    mixer, x = make(), random(len(rows), longest, 8)
    seq_idx = torch.stack(
        [torch.repeat_interleave(torch.arange(len(row)), torch.tensor(row)) for row in rows]
    )
    with torch.no_grad():
        y = mixer(x, seq_idx=seq_idx.int())
        for own, steps, row in zip(y, x, rows, strict=True):
            for got, alone in zip(own.split(row), steps.split(row), strict=True):
                expected = mixer(alone.unsqueeze(0))[0]
                torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    if longest > 1 and any(len(row) > 1 for row in rows):
        assert not torch.allclose(y, mixer(x))


@pytest.mark.parametrize("padding", [0, 4])
def test_states_of_packed_sequences_continue(padding: int) -> None:
    mixer, x = make(), random(1, 8 + padding, 8)
    starts, new = [0, 1, 3, 8], random(3, 1, 8, seed=3)
    params = InferenceParams(9, 3)
    with torch.no_grad():
        read = mixer(x, cu_seqlens=torch.tensor(starts), inference_params=params)
        assert read.shape == x.shape
        params.seqlen_offset = 1
        y = mixer(new, inference_params=params)
        for i in range(3):
            whole = torch.cat([x[:, starts[i] : starts[i + 1]], new[i : i + 1]], dim=1)
            torch.testing.assert_close(y[i], mixer(whole)[0, -1:], rtol=1e-9, atol=1e-9)


def test_cache() -> None:
    mixer = Mamba2(8, 5, headdim=4, dtype=torch.bfloat16, layer_idx=0)
    conv, ssm = mixer.allocate_inference_cache(3, 9)
    assert (conv.shape, conv.dtype, conv.stride(1)) == ((3, 26, 4), torch.bfloat16, 1)
    assert (ssm.shape, ssm.dtype) == ((3, 4, 4, 5), torch.float32)
    params = InferenceParams(9, 3)
    states = mixer._get_states_from_cache(params, 3)
    states[0].fill_(1.0)
    assert mixer._get_states_from_cache(params, 3)[0].all()
    assert not mixer._get_states_from_cache(params, 3, initialize_states=True)[0].any()


@pytest.mark.parametrize("options", [{}, {"ngroups": 2, "d_ssm": 8, "rmsnorm": False}])
def test_state_dict_is_that_of_the_layer(options: dict[str, object]) -> None:
    mixer = Mamba2(8, 5, headdim=4, **options)
    config = ssm_core.Mamba2Config(d_state=5, headdim=4, **options)
    layer = ssm_core.Mamba2(8, config)
    layer.load_state_dict(mixer.state_dict())
    x = torch.randn(2, 5, 8)
    torch.testing.assert_close(layer(x), mixer(x), rtol=0, atol=0)


def test_initial_values_device_and_dtype() -> None:
    mixer = Mamba2(256, A_init_range=(2, 3), dt_min=0.01, dt_max=0.02, conv_init=0.01)
    dt = F.softplus(mixer.dt_bias)
    assert 0.0099 < dt.min() < dt.max() < 0.0201
    assert math.log(2) <= mixer.A_log.min() < mixer.A_log.max() <= math.log(3)
    assert mixer.conv1d.weight.abs().max() <= 0.01
    assert all(p._no_weight_decay for p in (mixer.A_log, mixer.D, mixer.dt_bias))
    half = Mamba2(32, dtype=torch.bfloat16)
    kept = {"A_log", "D", "dt_bias"}
    for name, parameter in half.named_parameters():
        assert parameter.dtype == (torch.float32 if name in kept else torch.bfloat16), name
    assert half(torch.randn(1, 3, 32).bfloat16()).dtype == torch.bfloat16
    assert {p.device.type for p in Mamba2(32, device="meta").parameters()} == {"meta"}


def test_autocast_is_finite_with_gradients() -> None:
    mixer = Mamba2(32, headdim=16, d_state=8)
    x = torch.randn(2, 33, 32, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = mixer(x)
    y.float().square().sum().backward()
    torch.testing.assert_close(y.float(), mixer(x), rtol=0.1, atol=0.05)
    assert all(p.grad.isfinite().all() and p.grad.any() for p in (x, *mixer.parameters()))


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="process_group"):
        Mamba2(32, process_group=object())
    with pytest.raises(ConfigError, match="headdim"):
        Mamba2(8)
    mixer, x = Mamba2(32), torch.zeros(2, 3, 32)
    with pytest.raises(ConfigError, match="layer_idx is None"):
        mixer(x, inference_params=InferenceParams(9, 2))
    with pytest.raises(ShapeError, match="seq_idx has shape"):
        mixer(x, seq_idx=torch.zeros(2, 4).int())
    with pytest.raises(DTypeError, match="expected integers"):
        mixer(x, seq_idx=torch.zeros(2, 3))
    with pytest.raises(ShapeError, match=r"\(b, l, 32\)"):
        mixer(torch.zeros(2, 3, 31))
    with pytest.raises(SsmError, match="cu_seqlens"):
        mixer(x[:1], cu_seqlens=torch.tensor([0, 7]))
    with pytest.raises(SsmError, match="cu_seqlens"):
        mixer(x[:1], cu_seqlens=[0, 3])
    with pytest.raises(ShapeError, match=r"\(b, 1, d\)"):
        mixer.step(x, *mixer.allocate_inference_cache(2, 9))
