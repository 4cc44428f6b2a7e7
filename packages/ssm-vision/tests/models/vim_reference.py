"""Vision Mamba as slow, obvious loops in float64, from the equations."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

Array = NDArray[np.float64]
Weights = Mapping[str, Array]


def strengthen(model: nn.Module) -> None:
    """Give every parameter a value at which a mistake shows: weights of order 1/sqrt(fan_in)."""
    for name, parameter in model.named_parameters():
        value = parameter.data
        if name.endswith(("A_log", "A_b_log")):
            value.uniform_(-1.0, 1.0)
        elif name.endswith(("dt_proj.bias", "dt_proj_b.bias")):
            value.uniform_(-0.5, 0.5)
        elif value.dim() < 2 or "pos_embed" in name or "cls_token" in name:
            value.uniform_(0.5, 1.5).mul_(1.0 if "norm" in name else 0.7)
        else:
            value.normal_(std=1 / math.sqrt(value[0].numel()))


def numbers(model: nn.Module) -> dict[str, Array]:
    return {name: v.detach().double().numpy() for name, v in model.state_dict().items()}


def logits(
    w: Weights,
    image: Tensor,
    *,
    stride: int,
    class_token: str = "middle",
    pool: str = "mean",
    halve: bool = True,
) -> Array:
    """Logits (classes,) of one image (c, y, x); (l, classes) with pool "all"."""
    tokens = patches(image.double().numpy(), w, stride)
    p = len(tokens)
    if class_token == "middle":
        place = [p // 2]
        tokens = [*tokens[: p // 2], w["cls_token"][0, 0], *tokens[p // 2 :]]
    elif class_token == "head":
        place = [0]
        tokens = [w["cls_token"][0, 0], *tokens]
    elif class_token == "double":
        place = [0, p + 1]
        tokens = [w["cls_token_head"][0, 0], *tokens, w["cls_token_tail"][0, 0]]
    x = np.stack(tokens)
    if "pos_embed" in w:
        x = x + w["pos_embed"][0]
    residual, hidden, i = None, x, 0
    while f"layers.{i}.norm.weight" in w:
        residual = hidden if residual is None else residual + hidden
        hidden = mixer(part(w, f"layers.{i}.mixer."), norm(residual, w, f"layers.{i}.norm"), halve)
        i += 1
    x = norm(residual + hidden, w, "norm_f")

    def head(x: Array) -> Array:
        return x @ w["head.weight"].T + w["head.bias"]

    if class_token != "none":
        return head(sum(x[t] for t in place) / len(place))
    if pool == "last":
        return head(x[-1])
    if pool == "mean":
        return head(x.mean(axis=0))
    return head(x).max(axis=0) if pool == "max" else head(x)


def patches(image: Array, w: Weights, stride: int) -> list[Array]:
    kernel, bias = w["patch_embed.proj.weight"], w["patch_embed.proj.bias"]
    size = kernel.shape[2]
    return [
        np.array([(image[:, y : y + size, x : x + size] * k).sum() for k in kernel]) + bias
        for y in range(0, image.shape[1] - size + 1, stride)
        for x in range(0, image.shape[2] - size + 1, stride)
    ]


def norm(x: Array, w: Weights, name: str) -> Array:
    if name + ".bias" in w:
        x = x - x.mean(axis=1, keepdims=True)
    x = x / np.sqrt((x**2).mean(axis=1, keepdims=True) + 1e-5) * w[name + ".weight"]
    return x + w.get(name + ".bias", 0.0)


def mixer(w: Weights, u: Array, halve: bool) -> Array:
    E = w["out_proj.weight"].shape[1]
    xz = u @ w["in_proj.weight"].T
    x, z = xz[:, :E], xz[:, E:]
    there = direction(w, x, z, "", "A_log")
    back = direction(w, x[::-1], z[::-1], "_b", "A_b_log")[::-1]
    y = (there + back) / (2 if halve else 1)
    return y @ w["out_proj.weight"].T * w.get("gamma", 1.0)


def direction(w: Weights, x: Array, z: Array, suffix: str, A_name: str) -> Array:
    kernel = w[f"conv1d{suffix}.weight"][:, 0]  # (E, k)
    A = -np.exp(w[A_name])
    n, rank = A.shape[1], w[f"dt_proj{suffix}.weight"].shape[1]
    h, ys = np.zeros_like(A), []
    for t in range(len(x)):
        convolved = np.array(w[f"conv1d{suffix}.bias"])
        for back in range(kernel.shape[1]):
            if t - back >= 0:
                convolved = convolved + kernel[:, -1 - back] * x[t - back]
        u = silu(convolved)
        dt, B, C = np.split(w[f"x_proj{suffix}.weight"] @ u, [rank, rank + n])
        dt = w[f"dt_proj{suffix}.weight"] @ dt + w[f"dt_proj{suffix}.bias"]
        delta = np.log1p(np.exp(dt))[:, None]
        h = np.exp(delta * A) * h + delta * B * u[:, None]
        ys.append((h @ C + w["D" + suffix] * u) * silu(z[t]))
    return np.stack(ys)


def silu(x: Array) -> Array:
    return x / (1 + np.exp(-x))


def part(w: Weights, prefix: str) -> dict[str, Array]:
    return {name.removeprefix(prefix): v for name, v in w.items() if name.startswith(prefix)}
