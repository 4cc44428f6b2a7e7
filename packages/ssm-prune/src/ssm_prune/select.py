"""Exactly k lowest scores, with ties broken by (score, tensor name, index).

Never by threshold: half-precision weights have so few distinct values, and pruned ones are all
zero, that `score < threshold` removes too many or too few.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ssm_core.errors import ConfigError


def target_count(sparsity: float, size: int) -> int:
    """How many of `size` weights a sparsity removes: the nearest integer, halves to even."""
    return round(sparsity * size)


def lowest(scores: Tensor, count: int) -> Tensor:
    """Mark the `count` lowest scores; among equal ones the first.

    Args:
        scores: (n,), any float type, infinities allowed, no NaN.
    Returns:
        Boolean tensor (n,) with exactly `count` True. Linear time.
    """
    if count <= 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    if count >= scores.numel():
        return torch.ones_like(scores, dtype=torch.bool)
    threshold = scores.kthvalue(count).values
    marked = scores < threshold
    ties = (scores == threshold).nonzero().squeeze(1)
    marked[ties[: count - int(marked.sum())]] = True
    return marked


def keep_globally(
    scores: Mapping[str, Tensor], count: int, limits: Mapping[str, int]
) -> dict[str, Tensor]:
    """Remove the `count` lowest scores of all tensors together.

    Args:
        scores: tensor name -> score of each weight; -inf removes first, NaN is refused.
        count: how many weights of all tensors together to remove.
        limits: tensor name -> how many of its weights may be removed at most.
    Returns:
        Tensor name -> boolean mask of its shape, True where the weight is kept.
    Raises:
        ConfigError: `count` is more than the limits allow.
    """
    names = sorted(scores)
    possible = sum(min(limits[name], scores[name].numel()) for name in names)
    if count > possible:
        raise ConfigError(f"{count} weights are to be removed, but limits allow {possible}")
    ranked = []
    for name in names:
        flat = _comparable(scores, name)
        if limits[name] < flat.numel():
            flat = flat.masked_fill(~lowest(flat, limits[name]), torch.inf)
        ranked.append(flat)
    if not ranked:
        return {}
    dropped = lowest(torch.cat(ranked), count).split([flat.numel() for flat in ranked])
    return {name: ~part.view(scores[name].shape) for name, part in zip(names, dropped, strict=True)}


def keep_per_layer(scores: Mapping[str, Tensor], counts: Mapping[str, int]) -> dict[str, Tensor]:
    """Remove the `counts[name]` lowest scores of each tensor; masks as `keep_globally`."""
    return {
        name: ~lowest(_comparable(scores, name), counts[name]).view(scores[name].shape)
        for name in sorted(scores)
    }


def layer_counts(
    sizes: Mapping[str, int], limits: Mapping[str, int], sparsity: float
) -> dict[str, int]:
    """How many weights each tensor loses when all lose the same fraction.

    A tensor whose limit is below that fraction loses its limit, and the others share the rest, so
    that the sum is `sparsity` of all weights (up to rounding within each tensor).
    """
    wanted = sparsity * sum(sizes.values())
    at_limit: dict[str, int] = {}
    while True:
        rest = {name: size for name, size in sizes.items() if name not in at_limit}
        rate = max(0.0, (wanted - sum(at_limit.values())) / max(1, sum(rest.values())))
        counts = {name: target_count(rate, size) for name, size in rest.items()}
        over = {name: limits[name] for name, count in counts.items() if count > limits[name]}
        if not over:
            return counts | at_limit
        at_limit |= over


def erk_counts(
    shapes: Mapping[str, torch.Size], limits: Mapping[str, int], sparsity: float
) -> dict[str, int]:
    """How many weights each tensor loses with Erdos-Renyi-Kernel densities.

    What a tensor keeps grows with the sum of its dimensions, not with their product: its density is
    min(1, scale * sum(shape) / product(shape)), so that larger tensors become sparser (Evci et al.
    2020, section 3). One scale for all makes the sum `sparsity` of all weights, up to rounding
    within each tensor. A tensor whose limit forbids its density loses its limit.
    """
    sizes = {name: max(1, shape.numel()) for name, shape in shapes.items()}
    slopes = {name: sum(shape) / sizes[name] for name, shape in shapes.items()}
    lowest_density = {name: 1 - limits[name] / sizes[name] for name in shapes}

    def densities(scale: float) -> dict[str, float]:
        return {n: min(1.0, max(lowest_density[n], scale * slopes[n])) for n in shapes}

    def kept(scale: float) -> float:
        found = densities(scale)
        return sum(found[name] * sizes[name] for name in shapes)

    # what is kept is piecewise linear in the scale; it bends where a tensor reaches a bound
    bends = sorted({0.0} | {b / slopes[n] for n in shapes for b in (lowest_density[n], 1.0)})
    wanted = (1 - sparsity) * sum(sizes.values())
    upper = next((i for i, bend in enumerate(bends) if kept(bend) >= wanted), len(bends) - 1)
    low, high = bends[max(0, upper - 1)], bends[upper]
    rise = kept(high) - kept(low)
    scale = low + (high - low) * (wanted - kept(low)) / rise if rise > 0 else high
    return {
        name: min(limits[name], target_count(1 - density, shapes[name].numel()))
        for name, density in densities(scale).items()
    }


def _comparable(scores: Mapping[str, Tensor], name: str) -> Tensor:
    """Flat scores in float64 or float32, which holds every half-precision value exactly."""
    flat = scores[name].detach().flatten()
    wide = any(score.dtype == torch.float64 for score in scores.values())
    flat = flat.to(torch.float64 if wide else torch.float32)
    if bool(flat.isnan().any()):
        raise ConfigError(f"the scores of {name} hold NaN, expected numbers")
    return flat
