"""VM-UNet as slow as its equations: one loop per step of every route, one per pixel of a merge."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

Weights = dict[str, Tensor]


def reference_vmunet(w: Weights, images: Tensor, depths: list[int], depths_up: list[int]) -> Tensor:
    """Logits (b, classes, y, x) of images whose sides need no filling up, in their type."""
    stages = len(depths)
    x = F.conv2d(images, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=4)
    x = norm(w, "patch_embed.norm", x.permute(0, 2, 3, 1))
    skips = []
    for i in range(stages):
        skips.append(x)
        for j in range(depths[i]):
            x = block(w, f"layers.{i}.blocks.{j}", x)
        if i < stages - 1:
            x = merge(w, f"layers.{i}.downsample", x)
    for i in range(stages):
        if i > 0:
            x = expand(w, f"layers_up.{i}.upsample", x + skips[stages - i], 2)
        for j in range(depths_up[i]):
            x = block(w, f"layers_up.{i}.blocks.{j}", x)
    x = expand(w, "final_up", x, 4)
    return F.conv2d(x.permute(0, 3, 1, 2), w["final_conv.weight"], w["final_conv.bias"])


def norm(w: Weights, name: str, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return scaled * w[name + ".weight"] + w[name + ".bias"]


def merge(w: Weights, name: str, x: Tensor) -> Tensor:
    four = [x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]]
    return norm(w, name + ".norm", torch.cat(four, -1)) @ w[name + ".reduction.weight"].T


def expand(w: Weights, name: str, x: Tensor, factor: int) -> Tensor:
    wide = x @ w[name + ".expand.weight"].T
    b, rows, columns, channels = wide.shape
    d = channels // factor**2
    y = x.new_zeros(b, factor * rows, factor * columns, d)
    for p in range(factor):
        for q in range(factor):
            first = (p * factor + q) * d
            y[:, p::factor, q::factor] = wide[..., first : first + d]
    return norm(w, name + ".norm", y)


def block(w: Weights, name: str, x: Tensor) -> Tensor:
    own = {k.removeprefix(name + ".self_attention."): v for k, v in w.items() if k.startswith(name)}
    return x + ss2d(own, norm(w, name + ".ln_1", x))


def ss2d(w: Weights, x: Tensor) -> Tensor:
    rows, columns = x.shape[1:3]
    inner = w["out_norm.weight"].shape[0]
    u, z = (x @ w["in_proj.weight"].T).split(inner, -1)
    u = F.conv2d(u.permute(0, 3, 1, 2), w["conv2d.weight"], w["conv2d.bias"], 1, 1, 1, inner)
    u = u * u.sigmoid()  # (b, inner, rows, columns)
    places = [(r, c) for r in range(rows) for c in range(columns)]
    down = [(r, c) for c in range(columns) for r in range(rows)]
    total = torch.zeros_like(u)
    for k, route in enumerate([places, down, places[::-1], down[::-1]]):
        total = total + scan(w, k, u, route)
    y = norm(w, "out_norm", total.permute(0, 2, 3, 1))
    return (y * z * z.sigmoid()) @ w["out_proj.weight"].T


def scan(w: Weights, k: int, u: Tensor, route: list[tuple[int, int]]) -> Tensor:
    """One route over u (b, inner, rows, columns)."""
    b, inner = u.shape[:2]
    n = w["A_logs"].shape[1]
    rank = w["x_proj_weight"].shape[1] - 2 * n
    rows = slice(k * inner, (k + 1) * inner)
    A, D = -w["A_logs"][rows].exp(), w["Ds"][rows]
    y, h = torch.zeros_like(u), u.new_zeros(b, inner, n)
    for r, c in route:
        x = u[:, :, r, c]
        dt, B, C = (x @ w["x_proj_weight"][k].T).split([rank, n, n], 1)
        delta = F.softplus(dt @ w["dt_projs_weight"][k].T + w["dt_projs_bias"][k])
        h = (delta[:, :, None] * A).exp() * h + (delta * x)[:, :, None] * B[:, None]
        y[:, :, r, c] = (h * C[:, None]).sum(-1) + D * x
    return y


def moved(weights: Weights) -> Weights:
    """Every parameter away from its initial value, matrices of order 1 / sqrt(fan in)."""
    out = {}
    for name, tensor in weights.items():
        noise = torch.randn_like(tensor)
        if tensor.dim() >= 2 and not name.endswith(("A_logs", "dt_projs_bias")):
            out[name] = noise / tensor[0].numel() ** 0.5
        else:
            out[name] = tensor + 0.3 * noise
        if name.endswith(("x_proj_weight", "dt_projs_weight")):
            out[name] = noise / tensor.shape[-1] ** 0.5
        if name.endswith("dt_projs_bias"):
            out[name] = 0.5 * noise
    return out
