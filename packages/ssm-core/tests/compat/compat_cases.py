"""Mixers whose every parameter matters, and the scan written the slow way."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Module = TypeVar("Module", bound=nn.Module)


def strong(module: Module, seed: int = 0) -> Module:
    """Move every parameter off its initial value: weights of order 1, float64."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return module.double()


def random(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_scan(u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """One step after the other: u, dt (l, E), A (E, n), B, C (l, n), D (E,) -> (l, E)."""
    h, ys = torch.zeros_like(A), []
    for t in range(len(u)):
        h = torch.exp(dt[t].unsqueeze(1) * A) * h + (dt[t] * u[t]).unsqueeze(1) * B[t]
        ys.append(h @ C[t] + D * u[t])
    return torch.stack(ys)


def slow_convolution(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x (l, E), weight (E, 1, k): y[t] = silu(bias + sum_j weight[j] x[t - (k-1) + j])."""
    k, ys = weight.shape[2], []
    for t in range(len(x)):
        y = bias.clone()
        for j in range(k):
            if t - (k - 1) + j >= 0:
                y = y + weight[:, 0, j] * x[t - (k - 1) + j]
        ys.append(F.silu(y))
    return torch.stack(ys)


def slow_mamba(
    sd: dict[str, Tensor], x: Tensor, bimamba_type: str, factor: float, slices: int = 1
) -> Tensor:
    """What the equations say of one sequence x (l, d), for the tensors `sd` of a mixer."""
    n = sd["A_log"].shape[1]

    def prepared(u: Tensor, b: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        u = slow_convolution(u, sd[f"conv1d{b}.weight"], sd[f"conv1d{b}.bias"])
        row = u @ sd[f"x_proj{b}.weight"].T
        dt, B, C = row[:, : -2 * n], row[:, -2 * n : -n], row[:, -n:]
        dt = F.softplus(dt @ sd[f"dt_proj{b}.weight"].T + sd[f"dt_proj{b}.bias"])
        return u, dt, B, C

    projected = x @ sd["in_proj.weight"].T
    u, z = projected.chunk(2, dim=1)
    A = -sd["A_log"].exp()
    forward = prepared(u, "")
    y = slow_scan(*forward[:2], A, *forward[2:], sd["D"]) * F.silu(z)
    if bimamba_type == "v1":  # the same convolution and projections, read backwards
        back = [part.flip(0) for part in forward]
        own = slow_scan(*back[:2], -sd["A_b_log"].exp(), *back[2:], sd["D"])
        y = y + (own * F.silu(z.flip(0))).flip(0)
    elif bimamba_type != "none":  # all of it on the reversed sequence, with its own parameters
        u, dt, B, C = prepared(u.flip(0), "_b")
        own = slow_scan(u, dt, -sd["A_b_log"].exp(), B, C, sd["D_b"])
        y = y + (own * F.silu(z.flip(0))).flip(0)
    if bimamba_type == "v3":  # once more, the first step of every slice before the second of any
        order = [s * (len(x) // slices) + m for m in range(len(x) // slices) for s in range(slices)]
        inner, gate = projected[order].chunk(2, dim=1)
        u, dt, B, C = prepared(inner, "_s")
        own = slow_scan(u, dt, -sd["A_s_log"].exp(), B, C, sd["D_s"]) * F.silu(gate)
        y = y + torch.stack([own[order.index(t)] for t in range(len(x))])
    y = y * factor
    y = y @ sd["out_proj.weight"].T
    return y * sd["gamma"] if "gamma" in sd else y
