"""Forward and backward passes on their own, as Functions of other projects call them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from shim_cases import close
from torch import Tensor

from ssm_kernels.compat.layer_norm import layer_norm_fn
from ssm_kernels.compat.layer_norm_raw import _layer_norm_fwd as _sum_norm_fwd
from ssm_kernels.compat.layernorm_gated import layernorm_fn
from ssm_kernels.compat.layernorm_gated_raw import _layer_norm_bwd, _layer_norm_fwd, rms_norm_ref
from ssm_kernels.compat.ssd_combined import mamba_chunk_scan_combined
from ssm_kernels.compat.ssd_raw import (
    _mamba_chunk_scan_combined_bwd,
    _mamba_chunk_scan_combined_fwd,
)

NAMES = ("x", "dt", "A", "B", "C", "D", "z", "dt_bias", "initial_states")


def ssd_tensors(absent: set[str]) -> dict[str, Any]:
    torch.manual_seed(0)
    b, l, h, p, n = 2, 9, 4, 3, 5
    made = (
        *(torch.randn(b, l, h, p), torch.rand(b, l, h), -torch.rand(h), torch.randn(b, l, 2, n)),
        *(torch.randn(b, l, 2, n), torch.randn(h), torch.randn(b, l, h, p), torch.rand(h)),
        torch.randn(b, h, p, n),
    )
    pairs = zip(NAMES, made, strict=True)
    return {k: None if k in absent else v.double().requires_grad_() for k, v in pairs}


@pytest.mark.parametrize("absent", [set(), {"D", "z", "dt_bias", "initial_states"}])
@pytest.mark.parametrize("ids", [None, torch.tensor([[0] * 4 + [1] * 5, [0] * 9])])
def test_scan_of_mamba2(absent: set[str], ids: Tensor | None) -> None:
    tensors = ssd_tensors(absent)
    options: dict[str, Any] = {"seq_idx": ids, "dt_softplus": True, "dt_limit": (0.5, 0.9)}
    y, states = mamba_chunk_scan_combined(
        **tensors, chunk_size=4, return_final_states=True, **options
    )
    out, out_x, *kept, final = _mamba_chunk_scan_combined_fwd(**tensors, chunk_size=4, **options)
    close(out, y)
    close(final, states)
    assert kept == [None] * 3
    assert (out_x is None) == (tensors["z"] is None)
    assert not out.requires_grad
    dout, dfinal = torch.randn_like(y), torch.randn_like(states)
    given = [value for value in tensors.values() if value is not None]
    expected = iter(torch.autograd.grad([y, states], given, [dout, dfinal]))
    dx = torch.empty_like(tensors["x"])
    found = _mamba_chunk_scan_combined_bwd(
        **{"dout": dout, "out": out, "dfinal_states": dfinal, **tensors},
        chunk_size=4,
        dx=dx,
        recompute_output=True,
        **options,
    )
    assert found[0] is dx
    close(found[-1], y)
    for name, own in zip(NAMES, found[:-1], strict=True):
        assert (own is None) == (tensors[name] is None)
        if own is not None:
            close(own, next(expected), 1e-8)


def test_states_after_packed_sequences() -> None:
    tensors = ssd_tensors({"initial_states"})
    for name in ("x", "dt", "B", "C", "z"):
        tensors[name] = tensors[name].detach()[:1]
    offsets = torch.tensor([0, 4, 9], dtype=torch.int32)
    *_, varlen = _mamba_chunk_scan_combined_fwd(**tensors, chunk_size=4, cu_seqlens=offsets)
    *_, expected = mamba_chunk_scan_combined(
        **tensors, chunk_size=4, cu_seqlens=offsets, return_varlen_states=True
    )
    assert varlen.shape[0] == 2
    close(varlen, expected)


@pytest.mark.parametrize("is_rms", [False, True])
@pytest.mark.parametrize("group_size", [None, 3])
@pytest.mark.parametrize("gate", [None, False, True])
def test_gated_norm(is_rms: bool, group_size: int | None, gate: bool | None) -> None:
    torch.manual_seed(0)
    x, weight, bias, z = (torch.randn(*shape).double() for shape in ((5, 6), (6,), (6,), (5, 6)))
    leaves = [x, weight, bias, *([] if gate is None else [z])]
    for leaf in leaves:
        leaf.requires_grad_()
    given = z if gate is not None else None
    y = layernorm_fn(x, weight, bias, given, 1e-3, group_size, bool(gate), is_rms)
    place = torch.empty_like(x)
    out, mean, rstd = _layer_norm_fwd(
        x, weight, bias, 1e-3, given, place, group_size, bool(gate), is_rms
    )
    assert out is place
    close(out, y)
    read = x.detach() if gate is not False else (x * torch.nn.functional.silu(z)).detach()
    rows = torch.cat(read.split(group_size or 6, dim=1))  # group by group
    variance = rows.square().mean(1) if is_rms else rows.var(1, correction=0)
    close(rstd, (variance + 1e-3) ** -0.5)
    assert mean is None if is_rms else torch.allclose(mean, rows.mean(1))
    dy = torch.randn_like(y)
    expected = list(torch.autograd.grad(y, leaves, dy))
    dz, again = torch.empty_like(z), torch.empty_like(x)
    *found, recomputed = _layer_norm_bwd(
        *(dy, x, weight, bias, 1e-3, mean, rstd, given, group_size, bool(gate), is_rms),
        recompute_output=True,
        dz=None if gate is None else dz,
        out=again,
    )
    assert recomputed is again
    close(again, y)
    assert found[3] is (None if gate is None else dz)
    for own, right in zip(found, expected, strict=False):
        close(own, right, 1e-8)
    if is_rms:
        reference = rms_norm_ref(x, weight, bias, given, 1e-3, group_size, bool(gate))
        close(reference, y)


@pytest.mark.parametrize("is_rms", [False, True])
def test_norm_of_a_sum(is_rms: bool) -> None:
    torch.manual_seed(0)
    x, x1, residual = (torch.randn(5, 6).bfloat16() for _ in range(3))
    weight, bias, weight1 = (torch.randn(6) for _ in range(3))
    given = {"residual": residual.float(), "x1": x1, "weight1": weight1}
    y, y1, mean, rstd, total, seeds, *masks = _sum_norm_fwd(
        x, weight, bias, 1e-3, **given, out_dtype=torch.float64, is_rms_norm=is_rms
    )
    expected = layer_norm_fn(x, weight, bias, **given, eps=1e-3, prenorm=True, is_rms_norm=is_rms)
    for own, right in zip((y, y1, total), expected, strict=True):
        close(own.to(right.dtype), right)
    assert (y.dtype, total.dtype) == (torch.float64, torch.float32)
    variance = total.square().mean(1) if is_rms else total.var(1, correction=0)
    close(rstd, (variance + 1e-3) ** -0.5, 1e-6)
    assert mean is None if is_rms else torch.allclose(mean, total.mean(1))
    assert [seeds, *masks] == [None] * 3
    alone = _sum_norm_fwd(x, weight, bias, 1e-3, residual_dtype=torch.float32)
    assert alone[4].dtype == torch.float32
    dropped = _sum_norm_fwd(x, weight, None, 1e-3, dropout_p=0.5, return_dropout_mask=True)
    assert torch.equal(dropped[4] != 0, dropped[6])


@pytest.mark.usefixtures("shim")
def test_decorators_of_functions() -> None:
    from mamba_ssm.utils.torch import custom_bwd, custom_fwd

    class Doubled(torch.autograd.Function):
        @staticmethod
        @custom_fwd
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return 2 * x

        @staticmethod
        @custom_bwd
        def backward(ctx: Any, dy: Tensor) -> Tensor:
            return 2 * dy

    x = torch.ones(3, requires_grad=True)
    Doubled.apply(x).sum().backward()
    assert x.grad.tolist() == [2.0] * 3
    assert custom_fwd(cast_inputs=torch.float32)(lambda ctx, x: x)(x, x) is x
