"""The extension modules, as the custom Functions of public models call them."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from shim_cases import ScanCase, close, gradients, leaves, scan_cases
from torch import Tensor

from ssm_kernels.compat import (
    causal_conv1d_cuda,
    selective_scan_cuda,
    selective_scan_cuda_core,
    selective_scan_cuda_oflex,
)
from ssm_kernels.compat.conv_interface import causal_conv1d_fn
from ssm_kernels.compat.conv_update import causal_conv1d_update
from ssm_kernels.compat.selective_scan import ScanTensors, selective_scan_fn

GROUPED = ScanCase(2, 6, 5, 3, (3, 3), False, (True, False, True), True, False, 1)


@given(scan_cases())
@settings(max_examples=15, deadline=None)
def test_scan_with_gate(case: ScanCase) -> None:
    mine = leaves(case.tensors())
    expected, state = selective_scan_fn(*mine, case.delta_softplus, True)
    y, x, *gated = selective_scan_cuda.fwd(*mine, case.delta_softplus)
    assert not y.requires_grad
    close(x[:, :, -1, 1::2], state)
    assert len(gated) == (mine[6] is not None)
    close(gated[0] if gated else y, expected)
    dout = torch.randn_like(expected)
    found = selective_scan_cuda.bwd(*(*mine, dout, x, y, None, case.delta_softplus, True))
    *grads, again = found
    close(again, expected)
    order = [0, 1, 2, 3, 4, 5, 7] + ([6] if gated else [])
    assert len(grads) == len(order)
    wanted = iter(gradients(expected, mine, dout))
    by_position = [None if leaf is None else next(wanted) for leaf in mine]
    for got, i in zip(grads, order, strict=True):
        assert (got is None) == (by_position[i] is None)
        if got is not None:
            close(got, by_position[i], 1e-8)


def test_the_gradient_of_the_gate_goes_where_it_is_wanted() -> None:
    case = ScanCase(1, 2, 4, 2, (1, 1), False, (True, True, True), True, False, 0)
    tensors, dz = case.tensors(), torch.zeros(1, 2, 4).double()
    dout = torch.randn(1, 2, 4).double()
    found = selective_scan_cuda.bwd(*tensors, dout, None, None, dz, True, False)
    assert found[-1] is dz
    assert dz.abs().min() > 0


def through(extension: ModuleType, extra: tuple[Any, ...]) -> Any:
    """A Function such as VMamba's, around the two calls."""

    class Scan(torch.autograd.Function):
        @staticmethod
        @torch.amp.custom_fwd(device_type="cpu")
        def forward(
            ctx: Any, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Any, bias: Any
        ) -> Tensor:
            out, x, *_ = extension.fwd(u, delta, A, B, C, D, bias, True, 1, *extra)
            ctx.save_for_backward(u, delta, A, B, C, D, bias, x)
            return out

        @staticmethod
        @torch.amp.custom_bwd(device_type="cpu")
        def backward(ctx: Any, dout: Tensor) -> Any:
            *inputs, x = ctx.saved_tensors
            return tuple(extension.bwd(*inputs, dout, x, True, 1))

    return Scan.apply


@pytest.mark.parametrize(
    ("extension", "extra"), [(selective_scan_cuda_core, ()), (selective_scan_cuda_oflex, (True,))]
)
def test_functions_of_vmamba(extension: ModuleType, extra: tuple[Any, ...]) -> None:
    mine, other = leaves(GROUPED.tensors()), leaves(GROUPED.tensors())
    del mine[6]  # no gate
    y = through(extension, extra)(*mine)
    assert y.view(2, 3, 2, 5).shape == (2, 3, 2, 5)
    expected = selective_scan_fn(*other, True)
    close(y, expected)
    dout = torch.randn_like(expected)
    for got, wanted in zip(gradients(y, mine, dout), gradients(expected, other, dout), strict=True):
        close(got, wanted, 1e-8)


@pytest.mark.parametrize("out_float", [False, True])
def test_the_result_may_be_wider(out_float: bool) -> None:
    tensors = GROUPED.tensors(torch.bfloat16)
    inputs = [x for i, x in enumerate(tensors) if i != 6]
    y, x = selective_scan_cuda_oflex.fwd(*inputs, True, 1, out_float)
    assert y.dtype is (torch.float32 if out_float else torch.bfloat16)
    wide = ScanTensors(*(None if t is None else t.float() for t in tensors))
    close(y, selective_scan_fn(*wide, True), 1e-5 if out_float else 2e-2)
    found = selective_scan_cuda_oflex.bwd(*inputs, torch.randn_like(y), x, True, 1)
    for gradient, tensor in zip(found, inputs, strict=True):
        assert (gradient.dtype, gradient.shape) == (tensor.dtype, tensor.shape)


def test_one_step_size_for_several_channels() -> None:
    tensors = GROUPED.tensors()
    few = tensors._replace(delta=tensors.delta[:, ::2], delta_bias=tensors.delta_bias[::2])
    many = tensors._replace(
        delta=few.delta.repeat_interleave(2, 1), delta_bias=few.delta_bias.repeat_interleave(2)
    )
    short = [x for i, x in enumerate(few) if i != 6]
    y, x = selective_scan_cuda_oflex.fwd(*short, True, 1, False)
    close(y, selective_scan_fn(*many, True))
    dout = torch.randn_like(y)
    found = selective_scan_cuda_oflex.bwd(*short, dout, x, True, 1)
    leaf = few.delta.detach().requires_grad_()
    bias = few.delta_bias.detach().requires_grad_()
    spread = many._replace(delta=leaf.repeat_interleave(2, 1), delta_bias=bias.repeat_interleave(2))
    wanted = torch.autograd.grad(selective_scan_fn(*spread, True), (leaf, bias), dout)
    close(found[1], wanted[0])
    close(found[6], wanted[1])


@pytest.mark.parametrize("silu", [False, True])
def test_convolution_in_all_orders_of_arguments(silu: bool) -> None:
    x, weight, bias = leaves((torch.randn(2, 3, 6), torch.randn(3, 4), torch.randn(3)))
    activation = "silu" if silu else None
    expected = causal_conv1d_fn(x, weight, bias, activation=activation)
    dout = torch.randn_like(expected)
    wanted = gradients(expected, [x, weight, bias], dout)
    for nothing in ((), (None,), (None, None, None)):  # 1.0, 1.1, 1.2 to 1.4
        y = causal_conv1d_cuda.causal_conv1d_fwd(x, weight, bias, *nothing, silu)
        assert torch.equal(y, expected)
        assert not y.requires_grad
    for options in ((None,), (None, None), (None, None, None, None, False)):
        found = causal_conv1d_cuda.causal_conv1d_bwd(x, weight, bias, dout, *options, silu)
        assert all(torch.equal(a, b) for a, b in zip(found[:3], wanted, strict=True))

    out, states = torch.empty_like(expected), torch.empty(2, 3, 3)
    last = (x, weight, bias, None, None, out.detach(), states, silu)
    assert causal_conv1d_cuda.causal_conv1d_fwd(*last) is None
    assert torch.equal(last[5], expected)
    assert torch.equal(states, x[..., 3:])
    given_to = [torch.empty_like(t.detach()) for t in (x, weight, bias)]
    inputs = (x, weight, bias, dout, None, None, None)
    assert causal_conv1d_cuda.causal_conv1d_bwd(*inputs, *given_to, None, silu) is None
    assert all(torch.equal(a, b) for a, b in zip(given_to, wanted, strict=True))


def test_gradients_of_and_from_the_states() -> None:
    x, weight, initial = leaves((torch.randn(2, 3, 6), torch.randn(3, 4), torch.randn(2, 3, 3)))
    y, final = causal_conv1d_fn(x, weight, initial_states=initial, return_final_states=True)
    dout, dfinal = torch.randn_like(y), torch.randn_like(final)
    wanted = torch.autograd.grad((y, final), (x, weight, initial), (dout, dfinal))
    found = causal_conv1d_cuda.causal_conv1d_bwd(
        x, weight, None, dout, None, initial, dfinal, None, True, False
    )
    for got, right in zip((found[0], found[1], found[3]), wanted, strict=True):
        close(got, right, 1e-6)


def test_update_in_all_orders_of_arguments() -> None:
    x, weight, bias, start = (torch.randn(*s) for s in ((2, 3, 1), (3, 4), (3,), (2, 3, 4)))
    own = start.clone()
    expected = causal_conv1d_update(x, own, weight, bias, "silu")
    for options in ((), (None,), (None, None)):
        state = start.clone()
        y = causal_conv1d_cuda.causal_conv1d_update(x, state, weight, bias, True, *options)
        assert torch.equal(y, expected)
        assert torch.equal(state, own)
    out, state = torch.empty_like(x), start.clone()
    given_to = (x, state, weight, bias, out, True, None, None)
    assert causal_conv1d_cuda.causal_conv1d_update(*given_to) is None
    assert torch.equal(out, expected)


@pytest.mark.parametrize("name", ["causal_conv1d_fwd", "causal_conv1d_bwd", "causal_conv1d_update"])
def test_another_number_of_arguments_is_an_error(name: str) -> None:
    with pytest.raises(TypeError, match=f"{name} got 3 arguments"):
        getattr(causal_conv1d_cuda, name)(1, 2, 3)
