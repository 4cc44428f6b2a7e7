"""`Mamba` of mamba_ssm and its vision forks: values, caches, initial values, refusals."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from compat_cases import random, slow_mamba, strong
from hypothesis import given, settings
from hypothesis import strategies as st

import ssm_core
from ssm_core.compat.cache import InferenceParams
from ssm_core.compat.mamba import Mamba
from ssm_core.compat.mamba2 import Mamba2
from ssm_core.compat.mamba2_simple import Mamba2Simple
from ssm_core.errors import ConfigError
from ssm_core.layers.protocol import CausalityError
from ssm_kernels.errors import ShapeError

KINDS = ["none", "v1", "v2", "v3"]


def slices_for(kind: str, slices: int) -> dict[str, int]:
    return {"nslices": slices} if kind == "v3" else {}


@given(
    kind=st.sampled_from(KINDS),
    divide=st.booleans(),
    scale=st.sampled_from([None, 0.5]),
    length=st.integers(1, 7),
    slices=st.integers(1, 3),
    d_state=st.integers(1, 4),
    d_conv=st.integers(1, 4),
    expand=st.sampled_from([1, 1.5, 2]),
)
@settings(max_examples=25, deadline=None)
def test_equals_the_equations(kind, divide, scale, length, slices, d_state, d_conv, expand) -> None:
    length = length * slices if kind == "v3" else length
    mixer = strong(
        Mamba(
            6,
            d_state,
            d_conv,
            expand,
            dt_rank=2,
            bimamba_type=kind,
            if_divide_out=divide,
            init_layer_scale=scale,
            **slices_for(kind, slices),
        )
    )
    factor = 0.5 if divide and kind == "v2" else 1.0
    x = random(2, length, 6)
    y = mixer(x)
    with torch.no_grad():
        torch.testing.assert_close(mixer(x), y, rtol=1e-10, atol=1e-10)
        for own, sequence in zip(y, x, strict=True):
            expected = slow_mamba(mixer.state_dict(), sequence, kind, factor, slices)
            torch.testing.assert_close(own, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_the_equations(kind: str) -> None:
    mixer = strong(
        Mamba(4, 3, dt_rank=2, bimamba_type=kind, init_layer_scale=0.5, **slices_for(kind, 2))
    )
    x, weight = random(1, 6, 4), random(6, 4, seed=2)
    (mixer(x)[0] * weight).sum().backward()
    tensors = {k: v.detach().clone().requires_grad_() for k, v in mixer.state_dict().items()}
    (slow_mamba(tensors, x[0], kind, 1.0, 2) * weight).sum().backward()
    assert any(name.startswith("A_b") for name in tensors) == (kind != "none")
    for name, parameter in mixer.named_parameters():
        torch.testing.assert_close(parameter.grad, tensors[name].grad, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("context", [torch.no_grad, torch.enable_grad, torch.inference_mode])
@pytest.mark.parametrize(("prompt", "d_conv"), [(1, 4), (2, 4), (6, 3), (3, 1)])
def test_prompt_then_steps_give_the_whole_sequence(context, prompt: int, d_conv: int) -> None:
    mixer = strong(Mamba(6, 4, d_conv, layer_idx=3))
    x = random(2, 9, 6)
    expected = mixer(x).detach()
    with context():
        params = InferenceParams(max_seqlen=9, max_batch_size=2)
        pieces = [mixer(x[:, :prompt], inference_params=params)]
        params.seqlen_offset += prompt
        conv_state, ssm_state = params.key_value_memory_dict[3]
        for t in range(prompt, 9):
            pieces.append(mixer(x[:, t : t + 1], inference_params=params))
            params.seqlen_offset += 1
        y = torch.cat(pieces, dim=1)
    torch.testing.assert_close(y.detach(), expected, rtol=1e-12, atol=1e-12)
    # the same tensors all the while, and in the original's layout
    assert params.key_value_memory_dict[3][0] is conv_state
    assert params.key_value_memory_dict[3][1] is ssm_state
    inner = mixer.in_proj(x)[..., :12].transpose(1, 2)
    torch.testing.assert_close(conv_state.detach(), inner[..., 9 - d_conv :].detach())


def test_prompt_shorter_than_the_convolution_is_padded_in_front() -> None:
    mixer = strong(Mamba(6, 4, layer_idx=0))
    params = InferenceParams(9, 1)
    x = random(1, 2, 6)
    with torch.no_grad():
        mixer(x, inference_params=params)
        inner = mixer.in_proj(x)[..., :12].transpose(1, 2)
    conv_state, _ = params.key_value_memory_dict[0]
    assert not conv_state[..., :2].any()
    assert torch.equal(conv_state[..., 2:], inner)


def test_second_prompt_starts_anew() -> None:
    mixer = strong(Mamba(6, layer_idx=0))
    params = InferenceParams(9, 2)
    x = random(2, 5, 6)
    with torch.no_grad():
        first = mixer(x, inference_params=params)
        assert params.key_value_memory_dict[0][1].any()
        params.reset(9, 2)
        torch.testing.assert_close(mixer(x, inference_params=params), first, rtol=0, atol=0)


def test_gradients_through_steps() -> None:
    mixer = strong(Mamba(4, 3))
    x, weight = random(2, 5, 4), random(2, 5, 4, seed=2)
    expected = torch.autograd.grad((mixer(x) * weight).sum(), list(mixer.parameters()))
    states = mixer.allocate_inference_cache(2, 5, dtype=torch.float64)
    pieces = []
    for t in range(5):
        y, *states = mixer.step(x[:, t : t + 1], *states)
        pieces.append(y)
    got = torch.autograd.grad((torch.cat(pieces, 1) * weight).sum(), list(mixer.parameters()))
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def test_states_in_half_precision_stay_the_callers() -> None:
    mixer = Mamba(8, dtype=torch.bfloat16)
    conv, ssm = mixer.allocate_inference_cache(3, 7)
    assert (conv.shape, conv.dtype) == ((3, 16, 4), torch.bfloat16)
    assert (ssm.shape, ssm.dtype) == ((3, 16, 16), torch.float32)  # bfloat16 drifts
    states = mixer.allocate_inference_cache(3, 7, dtype=torch.bfloat16)
    assert [part.dtype for part in states] == [torch.bfloat16] * 2
    with torch.no_grad():
        y, *after = mixer.step(torch.randn(3, 1, 8).bfloat16(), *states)
    assert y.dtype == torch.bfloat16
    assert all(a is b and a.any() for a, b in zip(after, states, strict=True))


def test_get_states_from_cache() -> None:
    mixer = Mamba(4, layer_idx=5)
    params = InferenceParams(9, 2)
    states = mixer._get_states_from_cache(params, 2)
    assert params.key_value_memory_dict[5] is states
    states[1].fill_(1.0)
    assert mixer._get_states_from_cache(params, 2)[1].all()
    assert not mixer._get_states_from_cache(params, 2, initialize_states=True)[1].any()


def test_state_dict_is_that_of_the_layers() -> None:
    """Names and shapes of the published checkpoints, with which our layers are tested."""
    for kind, layer in (("none", ssm_core.Mamba(8)), ("v2", ssm_core.BiMamba(8))):
        mixer = Mamba(8, bimamba_type=kind, if_divide_out=True)
        layer.load_state_dict(mixer.state_dict())
        x = torch.randn(2, 5, 8)
        torch.testing.assert_close(layer(x), mixer(x), rtol=0, atol=0)
    shared = set(Mamba(8).state_dict())
    assert set(Mamba(8, bimamba_type="v1").state_dict()) == shared | {"A_b_log"}
    assert set(Mamba(8, init_layer_scale=1e-4).state_dict()) == shared | {"gamma"}


def test_initial_values() -> None:
    torch.manual_seed(0)
    mixer = Mamba(64, bimamba_type="v2", dt_min=0.01, dt_max=0.02)
    for b in ("", "_b"):
        dt = torch.nn.functional.softplus(getattr(mixer, f"dt_proj{b}").bias)
        assert 0.0099 < dt.min() < 0.011
        assert 0.019 < dt.max() < 0.0201
        assert getattr(mixer, f"dt_proj{b}").bias._no_reinit
        A_log = mixer.A_b_log if b else mixer.A_log
        expected = torch.arange(1, 17).float().log().expand(128, 16)
        torch.testing.assert_close(A_log.detach(), expected)
        assert A_log._no_weight_decay
        assert (mixer.D_b if b else mixer.D)._no_weight_decay
    bound = 4**-0.5
    assert 0.95 * bound < mixer.dt_proj.weight.abs().max() <= bound
    scaled = Mamba(64, dt_scale=0.1).dt_proj.weight
    assert 0.095 * bound < scaled.abs().max() <= 0.1 * bound
    constant = Mamba(64, dt_init="constant", dt_scale=0.1).dt_proj.weight
    assert (constant == 0.1 * bound).all()
    assert (Mamba(8, init_layer_scale=1e-3).gamma == 1e-3).all()


def test_device_and_dtype() -> None:
    mixer = Mamba(8, bimamba_type="v2", dtype=torch.float64)
    kept = {"A_log", "A_b_log", "D", "D_b"}
    for name, parameter in mixer.named_parameters():
        assert parameter.dtype == (torch.float32 if name in kept else torch.float64), name
    assert {p.device.type for p in Mamba(8, device="meta").parameters()} == {"meta"}
    assert Mamba(8, dtype=torch.bfloat16).dt_proj.bias._no_reinit


@pytest.mark.parametrize("kind", KINDS)
def test_autocast_is_finite_with_gradients(kind: str) -> None:
    torch.manual_seed(0)
    mixer = Mamba(16, bimamba_type=kind, **slices_for(kind, 3))
    x = torch.randn(2, 33, 16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = mixer(x)
    y.float().square().sum().backward()
    torch.testing.assert_close(y.float(), mixer(x), rtol=0.1, atol=0.02)
    assert all(p.grad.isfinite().all() and p.grad.any() for p in (x, *mixer.parameters()))


def test_both_spellings_halve_the_sum() -> None:
    plain = Mamba(8, bimamba_type="v2")
    x = torch.randn(2, 5, 8)
    for name in ("if_divide_out", "if_devide_out"):
        halved = Mamba(8, bimamba_type="v2", **{name: True})
        halved.load_state_dict(plain.state_dict())
        torch.testing.assert_close(2 * halved(x), plain(x))


def test_mean_over_frames_and_sum_over_slices() -> None:
    summed = Mamba(8, bimamba_type="v3", nslices=3)
    mean = Mamba(8, bimamba_type="v3", nframes=3)
    mean.load_state_dict(summed.state_dict())
    x = torch.randn(2, 12, 8)
    torch.testing.assert_close(3 * mean(x), summed(x))
    with torch.no_grad():
        torch.testing.assert_close(3 * mean(x), summed(x))
    with pytest.raises(ShapeError, match="13 steps, expected a multiple of the 3"):
        mean(torch.randn(2, 13, 8))


def test_bimamba_is_v2() -> None:
    assert Mamba(8, bimamba=True).bimamba_type == "v2"
    assert Mamba(8, bimamba=False).bimamba_type == "none"
    assert Mamba(8, bimamba=True, bimamba_type="v2").bimamba_type == "v2"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"bimamba_type": "v3"}, "nslices .SegMamba.* or nframes .Vivim"),
        ({"bimamba_type": "v3", "nslices": 5, "nframes": 5}, "either nslices"),
        ({"bimamba_type": "v3", "nslices": 0}, "nslices"),
        ({"nslices": 5}, "nslices.*expected 'v3'"),
        ({"bimamba_type": "v4"}, "'v4', expected 'none' or 'v1' or 'v2' or 'v3'"),
        ({"bimamba": True, "bimamba_type": "v1"}, "give one of them"),
        ({"dt_init": "zeros"}, "'random' or 'constant'"),
        ({"dt_rank": "all"}, "dt_rank"),
        ({"d_state": 0}, "d_state"),
    ],
)
def test_refusals_of_the_constructor(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        Mamba(8, **arguments)
    assert "\n" not in str(caught.value)


def test_refusals_of_the_calls() -> None:
    params = InferenceParams(9, 2)
    with pytest.raises(ShapeError, match=r"expected \(b, l, d\) = \(b, l, 8\)"):
        Mamba(8)(torch.zeros(2, 8))
    with pytest.raises(ConfigError, match="layer_idx is None"):
        Mamba(8)(torch.zeros(2, 3, 8), inference_params=params)
    for kind in ("v1", "v2", "v3"):
        both = Mamba(8, layer_idx=0, bimamba_type=kind, **slices_for(kind, 3))
        with pytest.raises(CausalityError, match="later steps"):
            both(torch.zeros(2, 3, 8), inference_params=params)
        with pytest.raises(CausalityError, match="later steps"):
            both.step(torch.zeros(2, 1, 8), *both.allocate_inference_cache(2, 9))
    params.seqlen_offset = 1
    with pytest.raises(ShapeError, match=r"\(b, 1, d\)"):
        Mamba(8, layer_idx=0)(torch.zeros(2, 2, 8), inference_params=params)


def test_sizes_of_numpy() -> None:
    mixer = Mamba(np.int64(8), np.int32(4), np.int64(3), expand=np.float64(1.5), dt_rank=np.int8(2))
    assert [type(size) for size in (mixer.d_model, mixer.d_inner, mixer.dt_rank)] == [int] * 3
    assert mixer(torch.zeros(1, 2, 8)).shape == (1, 2, 8)
    two = Mamba2(np.int64(8), np.int64(4), headdim=np.int64(4), ngroups=np.int64(2))
    assert two(torch.zeros(1, 2, 8)).shape == (1, 2, 8)
    simple = Mamba2Simple(np.int64(8), np.int64(4), headdim=np.int64(4), ngroups=np.int64(2))
    assert simple(torch.zeros(1, 2, 8)).shape == (1, 2, 8)


def test_copies_are_independent() -> None:
    mixer = Mamba(8, bimamba_type="v2")
    other = copy.deepcopy(mixer)
    x = torch.randn(1, 4, 8)
    with torch.no_grad():
        other.A_log.add_(1.0)
        assert not torch.equal(other(x), mixer(x))
    assert not mixer.A_log[:, 0].any()
