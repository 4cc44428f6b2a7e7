"""SS2D with four copies of the map before its projections, as in the published formulation.

    map -> rows, columns and the reverse of both, stacked -> projections per route -> one scan over
    4 E channels with a B and a C per route -> put back in order and summed

Source: Liu et al. 2024, arXiv:2401.10166, section 4.2 (cross-scan and cross-merge). Each takes x
(b, y, x, d) and the weights of `ssm_vision.models.ss2d.SS2D` by name; with a gate if in_proj has
rows for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ssm_kernels import selective_scan

Weights = dict[str, Tensor]
Scan = Callable[..., Any]


def channels_last(x: Tensor, weights: Weights, scan: Scan = selective_scan) -> Tensor:
    """Copies (b, l, k, E): the layout that this project's operators want."""
    x, z = _convolved(x, weights)
    both = torch.stack([x.flatten(1, 2), x.transpose(1, 2).flatten(1, 2)], dim=2)
    u = torch.cat([both, both.flip(1)], dim=2)
    p = torch.einsum("blki, kri -> blkr", u, weights["x_proj_weight"])
    dt, B, C = p.split(_widths(weights), dim=3)
    delta = torch.einsum("blkr, kdr -> blkd", dt, weights["dt_projs_weight"])
    y = _scanned(scan, u.flatten(2), delta.flatten(2), B, C, weights).unflatten(2, (4, -1))
    y_rows, y_columns = (y[:, :, :2] + y[:, :, 2:].flip(1)).unbind(2)
    y = y_rows.unflatten(1, x.shape[1:3])
    y = y + y_columns.unflatten(1, (x.shape[2], x.shape[1])).transpose(1, 2)
    return _projected(y, z, weights)


def channels_first(x: Tensor, weights: Weights, scan: Scan = selective_scan) -> Tensor:
    """Copies (b, k, E, l): the layout of the published code."""
    x, z = _convolved(x, weights)
    planes = x.permute(0, 3, 1, 2)
    both = torch.stack([planes.flatten(2), planes.transpose(2, 3).flatten(2)], dim=1)
    u = torch.cat([both, both.flip(3)], dim=1)
    p = torch.einsum("bkil, kri -> bkrl", u, weights["x_proj_weight"])
    dt, B, C = p.split(_widths(weights), dim=2)
    delta = torch.einsum("bkrl, kdr -> bkdl", dt, weights["dt_projs_weight"])
    y = _scanned(
        scan,
        u.flatten(1, 2).mT,
        delta.flatten(1, 2).mT,
        B.permute(0, 3, 1, 2),
        C.permute(0, 3, 1, 2),
        weights,
    )
    y = y.mT.unflatten(1, (4, -1))
    y_rows, y_columns = (y[:, :2] + y[:, 2:].flip(3)).unbind(1)
    y = y_rows.unflatten(2, x.shape[1:3])
    y = y + y_columns.unflatten(2, (x.shape[2], x.shape[1])).transpose(2, 3)
    return _projected(y.permute(0, 2, 3, 1), z, weights)


def _convolved(x: Tensor, weights: Weights) -> tuple[Tensor, Tensor | None]:
    inner = weights["out_proj.weight"].shape[1]
    xz = F.linear(x, weights["in_proj.weight"])
    z = xz[..., inner:] if xz.shape[-1] > inner else None
    planes = xz[..., :inner].permute(0, 3, 1, 2)
    weight, bias = weights["conv2d.weight"], weights.get("conv2d.bias")
    return F.silu(F.conv2d(planes, weight, bias, padding=1, groups=inner)).permute(0, 2, 3, 1), z


def _widths(weights: Weights) -> list[int]:
    rank, n = weights["dt_projs_weight"].shape[2], weights["A_logs"].shape[1]
    return [rank, n, n]


def _scanned(scan: Scan, *arguments: Any) -> Tensor:
    """One scan over 4 E channels; B and C (b, l, k, n) are those of groups of E channels."""
    u, delta, B, C, weights = arguments
    A, bias = -torch.exp(weights["A_logs"]), weights["dt_projs_bias"].flatten()
    y: Tensor = scan(u, delta, A, B, C, weights["Ds"], None, bias, True)
    return y


def _projected(y: Tensor, z: Tensor | None, weights: Weights) -> Tensor:
    y = F.layer_norm(y, y.shape[-1:], weights["out_norm.weight"], weights["out_norm.bias"])
    return F.linear(y if z is None else y * F.silu(z), weights["out_proj.weight"])
