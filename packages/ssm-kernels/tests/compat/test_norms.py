"""The norms against their equations: residuals, two branches, dropout, groups and gates."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shim_cases import close, gradients, leaves, silu
from torch import Tensor

from ssm_kernels.compat import layer_norm, layernorm, layernorm_gated


def slow_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float, is_rms: bool) -> Tensor:
    centred = x if is_rms else x - x.mean(-1, keepdim=True)
    y = centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt() * weight
    return y if bias is None else y + bias


def drawn(draw: st.DrawFn, *shape: int) -> Tensor | None:
    return torch.randn(*shape).double() if draw(st.booleans()) else None


@given(st.data())
@settings(max_examples=30, deadline=None)
@pytest.mark.parametrize("is_rms", [False, True])
def test_add_and_norm(is_rms: bool, data: st.DataObject) -> None:
    torch.manual_seed(data.draw(st.integers(0, 999)))
    shape, d = (2, 3, 4), 4
    x, weight = torch.randn(shape).double(), torch.rand(d).double()
    bias, bias1, weight1 = (drawn(data.draw, d) for _ in range(3))
    residual, x1 = drawn(data.draw, *shape), drawn(data.draw, *shape)
    rowscale = drawn(data.draw, *shape[:2]) if x1 is None else None
    mine = leaves((x, weight, bias, residual, x1, weight1, bias1))
    slow = leaves((x, weight, bias, residual, x1, weight1, bias1))
    found = layer_norm.layer_norm_fn(
        *mine, 1e-5, rowscale=rowscale, prenorm=True, is_rms_norm=is_rms
    )
    x, weight, bias, residual, x1, weight1, bias1 = slow
    total = x if rowscale is None else x * rowscale[..., None]
    total = sum((t for t in (x1, residual) if t is not None), total)
    expected = [slow_norm(total, weight, bias, 1e-5, is_rms)]
    if weight1 is not None:
        expected.append(slow_norm(total, weight1, bias1, 1e-5, is_rms))
    expected.append(total)
    assert isinstance(found, tuple)
    assert len(found) == len(expected)
    cotangents = [torch.randn_like(y) for y in expected]
    for got, wanted in zip(found, expected, strict=True):
        close(got, wanted)
    sums = [
        torch.stack([(y * g).sum() for y, g in zip(ys, cotangents, strict=True)]).sum()
        for ys in (found, expected)
    ]
    for got, wanted in zip(
        gradients(sums[0], mine, torch.ones(()).double()),
        gradients(sums[1], slow, torch.ones(()).double()),
        strict=True,
    ):
        assert (got is None) == (wanted is None)
        if got is not None:
            close(got, wanted, 1e-8)


@pytest.mark.parametrize("in_fp32", [False, True])
def test_types_of_the_residual_stream(in_fp32: bool) -> None:
    x, weight = torch.randn(2, 8).bfloat16(), torch.ones(8)
    y, stream = layer_norm.rms_norm_fn(x, weight, None, prenorm=True, residual_in_fp32=in_fp32)
    assert y.dtype is torch.bfloat16
    assert stream.dtype is (torch.float32 if in_fp32 else torch.bfloat16)
    residual = torch.randn(2, 8)
    y, stream = layer_norm.rms_norm_fn(x, weight, None, residual, prenorm=True)
    assert (y.dtype, stream.dtype) == (torch.bfloat16, torch.float32)
    assert torch.equal(stream, x.float() + residual)


def test_dropout_says_what_it_kept() -> None:
    x, weight = torch.full((40, 25), 3.0), torch.ones(25)
    y, total, mask, mask1 = layer_norm.layer_norm_fn(
        x, weight, None, x1=x, dropout_p=0.25, prenorm=True, return_dropout_mask=True
    )
    assert torch.equal(total, 4.0 * mask + 4.0 * mask1)
    assert 0.65 < mask.float().mean() < 0.85
    assert not torch.equal(mask, mask1)
    close(y, slow_norm(total, weight, None, 1e-6, False), 1e-5)
    kept = layer_norm.rms_norm_fn(x, weight, None, return_dropout_mask=True)
    assert kept[1:] == (None, None)


def test_rowscale_and_a_second_branch_are_refused() -> None:
    x, weight = torch.randn(2, 4), torch.ones(4)
    with pytest.raises(NotImplementedError, match="rowscale"):
        layer_norm.layer_norm_fn(x, weight, None, x1=x, rowscale=torch.ones(2))


@pytest.mark.parametrize("module", [layer_norm, layernorm])
def test_the_module(module: Any) -> None:
    norm = module.RMSNorm(6, eps=1e-3, dtype=torch.float64)
    assert list(norm.state_dict()) == ["weight"]
    assert norm.bias is None
    torch.nn.init.normal_(norm.weight)
    x, residual = torch.randn(2, 3, 6).double(), torch.randn(2, 3, 6).double()
    close(norm(x), slow_norm(x, norm.weight, None, 1e-3, True))
    y, total = norm(x, residual, prenorm=True, residual_in_fp32=True)
    assert torch.equal(total, x + residual)
    close(y, slow_norm(total, norm.weight, None, 1e-3, True))
    with torch.no_grad():  # another kernel
        close(norm(x), slow_norm(x, norm.weight, None, 1e-3, True))


def test_dropout_of_the_module_rests_outside_training() -> None:
    norm, x = layer_norm.RMSNorm(50, dropout_p=0.5), torch.randn(4, 50)
    assert not torch.equal(norm(x), norm.eval()(x))
    close(norm(x), slow_norm(x, norm.weight, None, 1e-5, True), 1e-5)


def test_the_older_order_of_arguments() -> None:
    x, weight = torch.randn(2, 4), torch.rand(4)
    residual = torch.randn(2, 4)
    y, total = layernorm.rms_norm_fn(x, weight, None, residual, True, False, 1e-2)
    close(y, slow_norm(x + residual, weight, None, 1e-2, True), 1e-5)
    assert torch.equal(total, x + residual)
    close(
        layernorm.layer_norm_fn(x, weight, weight), slow_norm(x, weight, weight, 1e-6, False), 1e-5
    )


@pytest.mark.parametrize("is_rms", [False, True])
def test_norm_then_linear(is_rms: bool) -> None:
    x, weight, matrix = torch.randn(2, 4), torch.rand(4), torch.randn(3, 4)
    y, total = layer_norm.layer_norm_linear_fn(
        x, weight, None, matrix, torch.ones(3), residual=x, prenorm=True, is_rms_norm=is_rms
    )
    assert torch.equal(total, 2 * x)
    close(y, slow_norm(2 * x, weight, None, 1e-6, is_rms) @ matrix.T + 1, 1e-5)


@pytest.mark.parametrize("gate", [None, True, False])
@pytest.mark.parametrize("group_size", [None, 2])
@pytest.mark.parametrize("is_rms", [False, True])
def test_groups_and_gate(is_rms: bool, group_size: int | None, gate: bool | None) -> None:
    shape = (2, 3, 6)
    tensors = (torch.randn(shape), torch.rand(6), torch.randn(6), torch.randn(shape))
    tensors = tuple(x.double() for x in tensors)
    x, weight, bias, z = leaves(tensors)
    z = None if gate is None else z
    y = layernorm_gated.layernorm_fn(x, weight, bias, z, 1e-5, group_size, gate is True, is_rms)
    x2, weight2, bias2, z2 = leaves(tensors)
    v = x2 if gate is not False else x2 * silu(z2)
    ones = torch.ones(group_size or 6).double()
    v = slow_norm(v.view(2, 3, -1, group_size or 6), ones, None, 1e-5, is_rms).view(shape)
    v = v * weight2 + bias2
    v = v * silu(z2) if gate is True else v
    close(y, v)
    cotangent = torch.randn_like(v)
    for got, wanted in zip(
        gradients(y, [x, weight, bias, z], cotangent),
        gradients(v, [x2, weight2, bias2, None if gate is None else z2], cotangent),
        strict=True,
    ):
        close(got, wanted, 1e-8)


def test_the_gated_modules() -> None:
    x, z = torch.randn(2, 6), torch.randn(2, 6)
    rms = layernorm_gated.RMSNorm(6, group_size=3, norm_before_gate=False)
    assert list(rms.state_dict()) == ["weight"]
    assert torch.equal(
        rms(x, z), layernorm_gated.rmsnorm_fn(x, rms.weight, None, z, 1e-5, 3, False)
    )
    full = layernorm_gated.LayerNorm(6)
    assert list(full.state_dict()) == ["weight", "bias"]
    close(full(x, z), slow_norm(x, full.weight, full.bias, 1e-5, False) * silu(z), 1e-5)
