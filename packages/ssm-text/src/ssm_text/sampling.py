"""Choosing the next token of every text of a batch from the model's logits.

The filters act in this order: repetition penalty, temperature, top-k, top-p, min-p; then one of the
tokens that are left is drawn with the probabilities that are left, made to sum to 1. Temperature 0
takes the likeliest token after the penalty. Of equally likely tokens the one with the smaller id
comes first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ssm_core.errors import ConfigError
from ssm_text.errors import GenerationError

FEW = 512


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Args:
        temperature: divides the logits; below 1 is bolder, 0 always takes the likeliest.
        top_k: choose among the k likeliest only; 0 means all.
        top_p: then among the fewest that together have this probability; 1 means all.
        seed: of the choices; the same seed gives the same text on the same machine. Text i of a
            batch (from 0) has a generator of its own with seed + i.
        min_p: then among those at least this many times as probable as the likeliest; 0 means all.
        repetition_penalty: logits of tokens that the text has already, prompt included, are divided
            by it where positive and multiplied with it where negative; 1 changes nothing.

    Sources: top_p: Holtzman et al. 2020, arXiv:1904.09751; min_p: Nguyen et al. 2024,
    arXiv:2407.01082; repetition_penalty: Keskar et al. 2019, arXiv:1909.05858, section 4.1.
    """

    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ConfigError(f"temperature is {self.temperature}, expected a number of 0 or more")
        if self.top_k < 0:
            raise ConfigError(f"top_k is {self.top_k}, expected 0 (all) or more")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p is {self.top_p}, expected a number above 0 and at most 1")
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed is {self.seed}, expected 0 to 2^63 - 1")
        if not 0 <= self.min_p <= 1:
            raise ConfigError(f"min_p is {self.min_p}, expected a number from 0 (all) to 1")
        if not (math.isfinite(self.repetition_penalty) and self.repetition_penalty > 0):
            raise ConfigError(
                f"repetition_penalty is {self.repetition_penalty}, "
                "expected a number above 0 (1: none)"
            )


def check_logits(finite: Tensor) -> None:
    """Wait for the device and refuse logits that are no numbers; `finite`: one truth for each text.

    Raises:
        GenerationError: a logit was NaN or infinite.
    """
    if not bool(finite.all()):
        raise GenerationError(
            "the model gives NaN or infinite logits: its weights are damaged or its training "
            "diverged (see train/loss in metrics.csv); train again, e.g. with a smaller optim.lr"
        )


def probabilities(logits: Tensor, sampling: Sampling, seen: Tensor | None = None) -> Tensor:
    """Probabilities (b, V) float64 of the next tokens, 0 for those that are out of the choice.

    Args:
        logits: (b, V), any floating type, finite.
        seen: (b, V) bool, True for tokens that the text has; None: there are none.

    Cost: O(b V) time, and for `top_p` without `top_k` up to a sort of V numbers per text.
    """
    logits = penalised(logits, sampling, seen).double()
    if sampling.temperature == 0:
        return torch.zeros_like(logits).scatter_(1, logits.argmax(1, keepdim=True), 1.0)
    # the largest becomes 0 before the division, so that a tiny temperature cannot overflow
    scaled = (logits - logits.amax(1, keepdim=True)) / sampling.temperature
    if sampling.top_k or sampling.top_p < 1:
        likeliest, chances = _likeliest(scaled, sampling)
        before = chances.cumsum(1) - chances  # probability of all that are likelier
        # the first has exactly 0 before it and stays; without top_p all of them do
        some = sampling.top_p < 1
        kept = (before < sampling.top_p).sum(1) if some else likeliest.shape[1]
        scaled = _first_only(scaled, likeliest, kept)
    chances = scaled.softmax(1)
    if sampling.min_p:
        least = sampling.min_p * chances.amax(1, keepdim=True)
        chances = torch.where(chances >= least, chances, 0.0)
    return chances / chances.sum(1, keepdim=True)


def penalised(logits: Tensor, sampling: Sampling, seen: Tensor | None) -> Tensor:
    """The logits (b, V), those of tokens that the text has made less likely (then float64)."""
    penalty = sampling.repetition_penalty
    if seen is None or penalty == 1:
        return logits
    logits = logits.double()
    return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


def _likeliest(scaled: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """The greatest of `scaled` (b, V) in falling order, and their probabilities, both (b, k).

    As many as top_k leaves, or enough for top_p.
    """
    size = scaled.shape[1]
    if sampling.top_k:
        likeliest = scaled.topk(min(sampling.top_k, size), dim=1).values
        return likeliest, likeliest.softmax(1)
    total = scaled.logsumexp(1, keepdim=True)
    # a few mostly do, and the rest of a large vocabulary takes long to sort; on an accelerator
    # looking would take longer
    if size > FEW and scaled.device.type == "cpu":
        likeliest = scaled.topk(FEW, dim=1).values
        chances = (likeliest - total).exp()
        if bool((chances.sum(1) > sampling.top_p).all()):
            return likeliest, chances
    likeliest = scaled.sort(dim=1, descending=True).values
    return likeliest, (likeliest - total).exp()


def _first_only(scaled: Tensor, likeliest: Tensor, kept: Tensor | int) -> Tensor:
    """`scaled` (b, V) with -inf for all but the `kept` (b,) likeliest, of equal ones the first.

    Args:
        likeliest: (b, k) the greatest of `scaled`, in falling order.
    """
    if isinstance(kept, int):
        kept = torch.full((len(scaled),), kept, device=scaled.device)
    kept = kept.clamp(min=1).unsqueeze(1)  # 0 where NaN compares with nothing
    least = likeliest.gather(1, kept - 1)
    more, equal = scaled > least, scaled == least
    room = kept - more.sum(1, keepdim=True)
    return scaled.masked_fill(~(more | (equal & (equal.cumsum(1) <= room))), -torch.inf)


def generators(sampling: Sampling, batch: int) -> list[torch.Generator]:
    """One random generator per text of a batch, on the CPU: text i has seed + i."""
    seeds = ((sampling.seed + i) % 2**63 for i in range(batch))
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def draw(
    logits: Tensor,
    sampling: Sampling,
    generators: Sequence[torch.Generator],
    seen: Tensor | None = None,
) -> Tensor:
    """One id for each text, (b,), drawn from `probabilities(logits, sampling, seen)`.

    Every text draws one number with its own generator (none at temperature 0), and so what it would
    draw alone. The device is not waited for. Where logits are not finite, the id means nothing.
    """
    if sampling.temperature == 0:
        return penalised(logits, sampling, seen).argmax(1)
    cumulative = probabilities(logits, sampling, seen).cumsum(1)
    drawn = [torch.rand(1, dtype=torch.float64, generator=own) for own in generators]
    total = cumulative[:, -1:]
    aim = torch.stack(drawn).to(logits.device, non_blocking=True) * total
    # rounding may lift it to the total itself, which lies behind every token
    aim = torch.minimum(aim, torch.nextafter(total, torch.zeros_like(total)))
    ids = torch.searchsorted(cumulative, aim, right=True).squeeze(1)
    return ids.clamp_(max=logits.shape[1] - 1)  # NaN lies behind every token too
