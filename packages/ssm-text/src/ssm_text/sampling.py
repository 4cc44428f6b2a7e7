"""Choosing the next character from logits: greedy, temperature, top-k, top-p."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ssm_core.errors import ConfigError
from ssm_text.errors import GenerationError


@dataclass(frozen=True)
class Sampling:
    """How the next character is chosen.

    Args:
        temperature: divides the logits; below 1 is bolder, 0 always takes the likeliest.
        top_k: choose among the k likeliest only; 0 means all.
        top_p: then among the fewest that together have this probability; 1 means all.
        seed: of the choices; the same seed gives the same text on the same machine.

    Source of top_p: Holtzman et al. 2020, arXiv:1904.09751.
    """

    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ConfigError(f"temperature is {self.temperature}, expected a number of 0 or more")
        if self.top_k < 0:
            raise ConfigError(f"top_k is {self.top_k}, expected 0 (all) or more")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p is {self.top_p}, expected a number above 0 and at most 1")
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed is {self.seed}, expected 0 to 2^63 - 1")


def probabilities(logits: Tensor, sampling: Sampling) -> Tensor:
    """Probabilities (V,) float64 of the next character, 0 for those that are out of the choice.

    Args:
        logits: (V,) any floating type.
    Raises:
        GenerationError: a logit is NaN or infinite.
    """
    logits = logits.double()
    if not torch.isfinite(logits).all():
        raise GenerationError(
            "the model gives NaN or infinite logits: its weights are damaged or its training "
            "diverged (see train/loss in metrics.csv); train again, e.g. with a smaller optim.lr"
        )
    likeliest_first = logits.sort(descending=True, stable=True)
    if sampling.temperature == 0:
        return torch.zeros_like(logits).index_fill_(0, likeliest_first.indices[:1], 1.0)
    # the largest becomes 0 before the division, so that a tiny temperature cannot overflow
    scaled = (likeliest_first.values - likeliest_first.values[0]) / sampling.temperature
    chosen = scaled.softmax(0)
    if sampling.top_k:
        chosen[sampling.top_k :] = 0
        chosen /= chosen.sum()
    if sampling.top_p < 1:
        before = chosen.cumsum(0) - chosen  # probability of all that are likelier
        chosen[before >= sampling.top_p] = 0  # the first has exactly 0 before it and stays
    return torch.zeros_like(chosen).index_copy_(0, likeliest_first.indices, chosen / chosen.sum())


def draw(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """One id, drawn from `probabilities(logits, sampling)` with `generator` (on the CPU)."""
    chances = probabilities(logits.detach().cpu(), sampling)
    if sampling.temperature == 0:
        return int(chances.argmax())
    return int(torch.multinomial(chances, 1, generator=generator))
