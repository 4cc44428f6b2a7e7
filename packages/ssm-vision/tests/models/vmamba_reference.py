"""VMamba written from its equations, one pixel after another: slow and in float64.

Everything is read from tensors under their official names: which form a model has, and its sizes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

Weights = dict[str, Tensor]


def below(weights: Weights, prefix: str) -> Weights:
    return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}


def norm(x: Tensor, weights: Weights, name: str) -> Tensor:
    """LayerNorm over the last axis."""
    centred = x - x.mean(-1, keepdim=True)
    x = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def routes(rows: int, columns: int) -> list[list[tuple[int, int]]]:
    by_rows = [(r, c) for r in range(rows) for c in range(columns)]
    by_columns = [(r, c) for c in range(columns) for r in range(rows)]
    return [by_rows, by_columns, by_rows[::-1], by_columns[::-1]]


def ss2d(x: Tensor, weights: Weights) -> Tensor:
    """x (b, y, x, d) -> (b, y, x, d)."""
    xz = x @ weights["in_proj.weight"].mT
    inner = weights["out_proj.weight"].shape[1]
    x, z = xz[..., :inner], xz[..., inner:]
    x = F.silu(depthwise(x, weights["conv2d.weight"], weights.get("conv2d.bias")))
    rank, n = weights["dt_projs_weight"].shape[2], weights["A_logs"].shape[1]
    total: dict[tuple[int, int], Tensor] = {}
    for k, route in enumerate(routes(*x.shape[1:3])):
        A = -weights["A_logs"][k * inner : (k + 1) * inner].exp()
        D = weights["Ds"][k * inner : (k + 1) * inner]
        h = x.new_zeros(x.shape[0], inner, n)
        for row, column in route:
            u = x[:, row, column]
            p = u @ weights["x_proj_weight"][k].mT
            dt, B, C = p[:, :rank], p[:, rank : rank + n], p[:, rank + n :]
            dt = dt @ weights["dt_projs_weight"][k].mT + weights["dt_projs_bias"][k]
            step = (1 + dt.exp()).log()
            h = (step[..., None] * A).exp() * h + (step * u)[..., None] * B[:, None]
            y = (h * C[:, None]).sum(-1) + D * u
            total[row, column] = total.get((row, column), 0.0) + y
    rows = [torch.stack([total[r, c] for c in range(x.shape[2])], dim=1) for r in range(x.shape[1])]
    y = norm(torch.stack(rows, dim=1), weights, "out_norm")
    if z.shape[-1]:
        y = y * (z / (1 + (-z).exp()))
    return y @ weights["out_proj.weight"].mT


def depthwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """3x3 filters, one per channel of x (b, y, x, d), zeros around the map."""
    rows, columns = x.shape[1:3]
    padded = F.pad(x, (0, 0, 1, 1, 1, 1))
    y = sum(
        padded[:, i : i + rows, j : j + columns] * weight[:, 0, i, j]
        for i in range(3)
        for j in range(3)
    )
    assert isinstance(y, Tensor)
    return y if bias is None else y + bias


def merged(x: Tensor, weights: Weights) -> Tensor:
    """Four neighbours become one pixel; zeros beyond the last row and column."""
    b, rows, columns, d = x.shape
    padded = x.new_zeros(b, rows + rows % 2, columns + columns % 2, d)
    padded[:, :rows, :columns] = x
    pixels = [padded[:, i::2, j::2] for i, j in ((0, 0), (1, 0), (0, 1), (1, 1))]
    return norm(torch.cat(pixels, dim=-1), weights, "norm") @ weights["reduction.weight"].mT


def convolved(x: Tensor, weights: Weights, name: str, padded: bool) -> Tensor:
    """A convolution of stride 2 over x (b, y, x, d), or of patches that do not overlap."""
    weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    stride = 2 if padded else weight.shape[2]
    y = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, stride, padding=1 if padded else 0)
    return y.permute(0, 2, 3, 1)


def block(x: Tensor, weights: Weights) -> Tensor:
    x = x + ss2d(norm(x, weights, "norm"), below(weights, "op."))
    if "mlp.fc1.weight" in weights:
        h = norm(x, weights, "norm2") @ weights["mlp.fc1.weight"].mT + weights["mlp.fc1.bias"]
        h = h * (1 + torch.erf(h / 2**0.5)) / 2
        x = x + h @ weights["mlp.fc2.weight"].mT + weights["mlp.fc2.bias"]
    return x


def vmamba(images: Tensor, weights: Weights) -> list[Tensor]:
    """The map (b, y, x, d) of every stage, and at last the logits."""
    x = images.permute(0, 2, 3, 1)
    if "patch_embed.5.weight" in weights:
        x = norm(convolved(x, weights, "patch_embed.0", padded=True), weights, "patch_embed.2")
        x = convolved(F.gelu(x), weights, "patch_embed.5", padded=True)
        x = norm(x, weights, "patch_embed.7")
    else:
        x = norm(convolved(x, weights, "patch_embed.0", padded=False), weights, "patch_embed.2")
    maps = []
    i = 0
    while stage := below(weights, f"layers.{i}."):
        j = 0
        while one := below(stage, f"blocks.{j}."):
            x = block(x, one)
            j += 1
        maps.append(x)
        down = below(stage, "downsample.")
        if "reduction.weight" in down:
            x = merged(x, down)
        elif down:
            x = norm(convolved(x, down, "1", padded=down["1.weight"].shape[2] == 3), down, "3")
        i += 1
    pooled = norm(x, weights, "classifier.norm").mean(dim=(1, 2))
    head = weights["classifier.head.weight"]
    return [*maps, pooled @ head.mT + weights["classifier.head.bias"]]


@torch.no_grad()
def jitter(module: torch.nn.Module) -> None:
    """Weights of order 1 / sqrt(fan_in), and everything else well off its initial value.

    Near the initial values a route that is mixed up moves the result by less than rounding.
    """
    for name, parameter in module.named_parameters():
        if parameter.dim() >= 2 and not name.endswith(("A_logs", "dt_projs_bias")):
            fan_in = parameter[0].numel() if parameter.dim() != 3 else parameter.shape[2]
            parameter.normal_(std=fan_in**-0.5)
        else:
            parameter.add_(0.5 * torch.randn_like(parameter))
