"""The scan of Mamba-2 and the inside of its block against the equations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shim_cases import close, gradients, leaves, silu
from torch import Tensor
from torch.nn import functional as F

from ssm_kernels.compat.ssd_combined import (
    mamba_chunk_scan,
    mamba_chunk_scan_combined,
    ssd_chunk_scan_combined_ref,
)
from ssm_kernels.compat.ssd_split import mamba_split_conv1d_scan_combined

LIMIT = (0.1, 1.2)


def slow_ssd(
    tensors: list[Any], ids: Tensor, softplus: bool, limit: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Return y and the state after every step, (b, l, h, p, n)."""
    x, dt, A, B, C, D, z, bias, initial = tensors
    b, l, h, p = x.shape
    times = h // B.shape[2]
    B, C = B.repeat_interleave(times, 2), C.repeat_interleave(times, 2)
    dt = dt if bias is None else dt + bias
    dt = (F.softplus(dt) if softplus else dt).clamp(*limit)
    rows, states = [], []
    for i in range(b):
        S = x.new_zeros(h, p, B.shape[3])
        if initial is not None and ids[i, 0] == 0:
            S = initial[i]
        outputs, kept = [], []
        for t in range(l):
            if t > 0 and ids[i, t] != ids[i, t - 1]:
                S = torch.zeros_like(S)
            step = dt[i, t][:, None, None]
            S = torch.exp(step * A[:, None, None]) * S
            S = S + step * x[i, t][:, :, None] * B[i, t][:, None, :]
            outputs.append((S * C[i, t][:, None, :]).sum(-1))
            kept.append(S)
        rows.append(torch.stack(outputs))
        states.append(torch.stack(kept))
    y = torch.stack(rows)
    if D is not None:
        y = y + (D if D.dim() == 2 else D[:, None]) * x
    return y if z is None else y * silu(z), torch.stack(states)


def draw_tensors(draw: st.DrawFn) -> list[Any]:
    b, p, n, g = (draw(st.integers(1, 2)) for _ in range(4))
    l, h = draw(st.integers(1, 7)), g * draw(st.integers(1, 2))
    torch.manual_seed(draw(st.integers(0, 999)))
    D = draw(st.sampled_from([None, torch.randn(h), torch.randn(h, p)]))
    z, bias, initial = (draw(st.booleans()) for _ in range(3))
    tensors = [torch.randn(b, l, h, p), torch.rand(b, l, h), -torch.rand(h)]
    tensors += [torch.randn(b, l, g, n), torch.randn(b, l, g, n), D]
    tensors += [torch.randn(b, l, h, p) if z else None, torch.rand(h) if bias else None]
    tensors += [torch.randn(b, h, p, n) if initial else None]
    return [None if x is None else x.double() for x in tensors]


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_values_states_and_gradients(data: st.DataObject) -> None:
    tensors = draw_tensors(data.draw)
    b, l = tensors[0].shape[:2]
    packed, softplus = data.draw(st.booleans()), data.draw(st.booleans())
    ids = torch.zeros(b, l, dtype=torch.int32)
    if packed:
        starts = [data.draw(st.lists(st.booleans(), min_size=l, max_size=l)) for _ in range(b)]
        ids = torch.tensor(starts).cumsum(1).to(torch.int32)
    mine, slow = leaves(tuple(tensors)), leaves(tuple(tensors))
    y, final = mamba_chunk_scan_combined(
        *mine[:5],
        256,
        *mine[5:],
        seq_idx=ids if packed else None,
        dt_softplus=softplus,
        dt_limit=LIMIT,
        return_final_states=True,
    )
    expected, states = slow_ssd(slow, ids, softplus, LIMIT)
    close(y, expected)
    close(final, states[:, -1])
    cotangent = torch.randn_like(expected)
    own = gradients((y * cotangent).sum() + final.sum(), mine, torch.ones(()).double())
    right = gradients(
        (expected * cotangent).sum() + states[:, -1].sum(), slow, torch.ones(()).double()
    )
    inputs = [leaf for leaf in mine if leaf is not None]
    for leaf, got, wanted in zip(inputs, own, right, strict=True):  # None: not used at all
        zeros = torch.zeros_like(leaf)
        close(zeros if got is None else got, zeros if wanted is None else wanted, 1e-8)


def test_states_after_every_packed_sequence() -> None:
    b, l, h, p, n = 1, 7, 2, 3, 4
    x, dt, A = torch.randn(b, l, h, p), torch.rand(b, l, h), -torch.rand(h)
    B, C, initial = torch.randn(b, l, 1, n), torch.randn(b, l, 1, n), torch.randn(b, h, p, n)
    ids = torch.tensor([[0, 0, 0, 1, 1, 1, 1]], dtype=torch.int32)
    expected, states = slow_ssd([x, dt, A, B, C, None, None, None, initial], ids, False, (0.0, 9.0))
    y, final, varlen = mamba_chunk_scan_combined(
        *(x, dt, A, B, C, 4),
        initial_states=initial,
        seq_idx=ids,
        cu_seqlens=torch.tensor([0, 3, 7], dtype=torch.int32),
        return_final_states=True,
        return_varlen_states=True,
    )
    close(y, expected, 1e-5)
    close(final, states[:, -1], 1e-5)
    close(varlen, states[0, [2, 6]], 1e-5)
    with pytest.raises(NotImplementedError, match="return_varlen_states needs cu_seqlens"):
        mamba_chunk_scan_combined(x, dt, A, B, C, 4, return_varlen_states=True)


def test_the_other_names_compute_the_same() -> None:
    tensors = (torch.randn(2, 5, 2, 3), torch.rand(2, 5, 2), -torch.rand(2))
    tensors += (torch.randn(2, 5, 1, 4), torch.randn(2, 5, 1, 4), 16, torch.randn(2))
    expected = mamba_chunk_scan_combined(*tensors, dt_softplus=True)
    close(mamba_chunk_scan(*tensors, dt_softplus=True), expected, 1e-5)
    close(ssd_chunk_scan_combined_ref(*tensors, dt_softplus=True), expected, 1e-5)


@pytest.mark.parametrize("norm", [None, "before", "after"])
@pytest.mark.parametrize("m", [0, 3])
def test_the_inside_of_a_block(norm: str | None, m: int) -> None:
    b, l, h, p, g, n, k, o = 2, 6, 4, 2, 2, 3, 4, 5
    d = h * p
    torch.set_default_dtype(torch.float64)
    try:
        zxbcdt = torch.randn(b, l, 2 * m + 2 * d + 2 * g * n + h)
        taps, bias = torch.randn(d + 2 * g * n, k), torch.randn(d + 2 * g * n)
        dt_bias, A, D = torch.rand(h), -torch.rand(h), torch.randn(h)
        weight, out, out_bias = torch.rand(d), torch.randn(o, m + d), torch.randn(o)
    finally:
        torch.set_default_dtype(torch.float32)
    y, final = mamba_split_conv1d_scan_combined(
        *(zxbcdt, taps, bias, dt_bias, A, D, 256),
        dt_limit=LIMIT,
        return_final_states=True,
        rmsnorm_weight=None if norm is None else weight,
        rmsnorm_eps=1e-5,
        outproj_weight=out,
        outproj_bias=out_bias,
        headdim=p,
        ngroups=g,
        norm_before_gate=norm == "before",
    )

    z0, x0, z, xBC, dt = zxbcdt.split([m, m, d, d + 2 * g * n, h], -1)
    padded = F.pad(xBC.transpose(1, 2), (k - 1, 0))
    xBC = silu(F.conv1d(padded, taps.unsqueeze(1), bias, groups=d + 2 * g * n)).transpose(1, 2)
    x, B, C = xBC.split([d, g * n, g * n], -1)
    heads = [x.view(b, l, h, p), dt, A, B.view(b, l, g, n), C.view(b, l, g, n), D]
    ids = torch.zeros(b, l, dtype=torch.int32)
    expected, states = slow_ssd([*heads, None, dt_bias, None], ids, True, LIMIT)
    v = expected.flatten(2)
    v = v if norm == "before" else v * silu(z)
    if norm is not None:
        groups = v.view(b, l, g, d // g)
        groups = groups / (groups.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        v = groups.flatten(2) * weight
    v = v * silu(z) if norm == "before" else v
    close(y, torch.cat([silu(z0) * x0, v], -1) @ out.T + out_bias)
    close(final, states[:, -1])


def test_headdim_must_be_known() -> None:
    with pytest.raises(ValueError, match="pass headdim"):
        mamba_split_conv1d_scan_combined(
            *(torch.randn(1, 2, 9), torch.randn(4, 2), None, torch.rand(1), -torch.rand(1)),
            *(torch.ones(1), 16),
        )
