"""MambaVision as its equations say, one token, window, head and neighbour at a time, in float64."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Tensors = Mapping[str, Tensor]


class Sizes(NamedTuple):
    """What the tensors do not say."""

    depths: tuple[int, ...]
    heads: tuple[int, int]
    windows: tuple[int, int]
    sliding: tuple[int, int] = (0, 1)


def moved(module: nn.Module) -> nn.Module:
    """Move every number off its initial value, so that each one matters, and go to float64."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, t in module.state_dict().items():
            if t.dtype is torch.int64:
                continue
            noise = torch.randn(t.shape, generator=generator)
            fan_in = max(t[0].numel(), 1) if t.dim() > 1 else 4
            if name.endswith("running_var"):
                t.mul_(0.5 + torch.rand(t.shape, generator=generator))
            elif t.dim() > 1 and not name.endswith("A_log"):
                t.copy_(noise * fan_in**-0.5)
            else:
                t.add_(0.5 * noise)
    return module.double()


def part(sd: Tensors, prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v.double() for k, v in sd.items() if k.startswith(prefix)}


def batch_norm(sd: Tensors, x: Tensor, eps: float) -> Tensor:
    w, b, mean, var = (
        sd[k].double().view(-1, 1, 1) for k in ("weight", "bias", "running_mean", "running_var")
    )
    return (x - mean) / torch.sqrt(var + eps) * w + b


def layer_norm(sd: Tensors, x: Tensor) -> Tensor:
    x = x - x.mean()
    return x / torch.sqrt((x**2).mean() + 1e-5) * sd["weight"] + sd["bias"]


def conv_block(sd: Tensors, x: Tensor) -> Tensor:
    y = F.conv2d(x, sd["conv1.weight"], sd["conv1.bias"], padding=1)
    y = batch_norm(part(sd, "norm1."), y, 1e-5)
    y = 0.5 * y * (1 + torch.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y**3)))
    y = F.conv2d(y, sd["conv2.weight"], sd["conv2.bias"], padding=1)
    y = batch_norm(part(sd, "norm2."), y, 1e-5)
    return x + (y * sd["gamma"].view(-1, 1, 1) if "gamma" in sd else y)


def conv_same(x: Tensor, weight: Tensor) -> Tensor:
    """x (l, d): zeros outside, the odd one of an even width's zeros on the right; then SiLU."""
    width = weight.shape[2]
    left = (width - 1) // 2
    y = torch.zeros_like(x)
    for t in range(x.shape[0]):
        for j in range(width):
            if 0 <= t - left + j < x.shape[0]:
                y[t] += weight[:, 0, j] * x[t - left + j]
    return y * torch.sigmoid(y)


def mixer(sd: Tensors, tokens: Tensor) -> Tensor:
    """Mix the tokens (l, d) of one sequence."""
    half, n = sd["A_log"].shape
    rank = sd["dt_proj.weight"].shape[1]
    both = tokens @ sd["in_proj.weight"].T
    x = conv_same(both[:, :half], sd["conv1d_x.weight"])
    z = conv_same(both[:, half:], sd["conv1d_z.weight"])
    A, h, rows = -torch.exp(sd["A_log"]), torch.zeros(half, n, dtype=torch.float64), []
    for t in range(len(tokens)):
        dt, B, C = (sd["x_proj.weight"] @ x[t]).split([rank, n, n])
        step = sd["dt_proj.weight"] @ dt + sd["dt_proj.bias"] + sd["dt_proj.bias"]
        delta = torch.log1p(torch.exp(step)).unsqueeze(1)
        h = torch.exp(delta * A) * h + delta * B * x[t].unsqueeze(1)
        rows.append(torch.cat([h @ C + sd["D"] * x[t], z[t]]) @ sd["out_proj.weight"].T)
    return torch.stack(rows) if rows else tokens


def attention(sd: Tensors, tokens: Tensor, heads: int, seen: list[list[int]]) -> Tensor:
    """Attend from every token (l, d) to those of its list."""
    d = tokens.shape[1]
    p = d // heads
    qkv = tokens @ sd["qkv.weight"].T + sd["qkv.bias"]
    y = torch.zeros_like(tokens)
    for h in range(heads):
        q, k, v = (qkv[:, i * d + h * p : i * d + (h + 1) * p] for i in range(3))
        for t, others in enumerate(seen):
            scores = torch.stack([q[t] @ k[s] for s in others]) / math.sqrt(p)
            for weight, s in zip(torch.softmax(scores, 0), others, strict=True):
                y[t, h * p : (h + 1) * p] += weight * v[s]
    return y @ sd["proj.weight"].T + sd["proj.bias"]


def mixed_block(sd: Tensors, tokens: Tensor, heads: int, seen: list[list[int]]) -> Tensor:
    own = part(sd, "mixer.")
    y = torch.stack([layer_norm(part(sd, "norm1."), t) for t in tokens])
    y = attention(own, y, heads, seen) if "qkv.weight" in own else mixer(own, y)
    tokens = tokens + y * sd.get("gamma_1", 1.0)
    rows = []
    for t in tokens:
        y = sd["mlp.fc1.weight"] @ layer_norm(part(sd, "norm2."), t) + sd["mlp.fc1.bias"]
        y = sd["mlp.fc2.weight"] @ (0.5 * y * (1 + torch.erf(y / math.sqrt(2))))
        rows.append(t + (y + sd["mlp.fc2.bias"]) * sd.get("gamma_2", 1.0))
    return torch.stack(rows)


def neighbours(rows: int, columns: int, window: int, dilation: int) -> list[list[int]]:
    """Of every position, those at up to (window - 1) / 2 dilations in rows and in columns."""
    offsets = [dilation * i for i in range(-(window // 2), window // 2 + 1)]
    return [
        [
            (y + dy) * columns + x + dx
            for dy in offsets
            for dx in offsets
            if 0 <= y + dy < rows and 0 <= x + dx < columns
        ]
        for y in range(rows)
        for x in range(columns)
    ]


def windowed_level(sd: Tensors, x: Tensor, level: int, sizes: Sizes) -> Tensor:
    """One image's map (d, y, x) through the blocks of a level."""
    side, heads = sizes.windows[level - 2], sizes.heads[level - 2]
    d, rows, columns = x.shape
    depth = sizes.depths[level]
    n_mixers = depth - depth // 2
    blocks = [part(sd, f"blocks.{j}.") for j in range(depth)]
    in_windows = blocks[:n_mixers] if sizes.sliding[0] else blocks
    everyone = [list(range(side * side))] * (side * side)
    y = torch.zeros_like(x)
    for top in range(0, rows, side):
        for left in range(0, columns, side):
            tokens = torch.zeros(side * side, d, dtype=torch.float64)
            places = [(top + i // side, left + i % side) for i in range(side * side)]
            inside = [(i, a, b) for i, (a, b) in enumerate(places) if a < rows and b < columns]
            for i, a, b in inside:
                tokens[i] = x[:, a, b]
            for block in in_windows:
                tokens = mixed_block(block, tokens, heads, everyone)
            for i, a, b in inside:
                y[:, a, b] = tokens[i]
    if sizes.sliding[0]:
        tokens = y.reshape(d, rows * columns).T
        for block in blocks[n_mixers:]:
            tokens = mixed_block(block, tokens, heads, neighbours(rows, columns, *sizes.sliding))
        y = tokens.T.reshape(d, rows, columns)
    return y


@torch.no_grad()
def maps_and_logits(sd: Tensors, images: Tensor, sizes: Sizes) -> tuple[list[Tensor], Tensor]:
    """The maps of the four levels, and the logits (b, classes)."""
    sd = {k: v.double() for k, v in sd.items()}
    x = images.double()
    for i in (0, 3):
        x = F.conv2d(x, sd[f"patch_embed.conv_down.{i}.weight"], stride=2, padding=1)
        x = torch.relu(batch_norm(part(sd, f"patch_embed.conv_down.{i + 1}."), x, 1e-4))
    maps = []
    for level in range(4):
        own = part(sd, f"levels.{level}.")
        if level < 2:
            for j in range(sizes.depths[level]):
                x = conv_block(part(own, f"blocks.{j}."), x)
        else:
            x = torch.stack([windowed_level(own, image, level, sizes) for image in x])
        maps.append(x)
        if level < 3:
            x = F.conv2d(x, own["downsample.reduction.0.weight"], stride=2, padding=1)
    pooled = batch_norm(part(sd, "norm."), x, 1e-5).mean(dim=(2, 3))
    return maps, pooled @ sd["head.weight"].T + sd["head.bias"]
