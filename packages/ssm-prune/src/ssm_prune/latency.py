"""How long two models take, measured side by side.

Runs alternate between the two, so that a machine that slows down in between slows both.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ssm_prune.costs import evaluation

WARM_UP = 3
LEAST_REPETITIONS = 5
DRAWS = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Comparison:
    """Medians of two models and how many times quicker the second one is.

    Attributes:
        first_ms, second_ms: median time of a forward pass of the batch.
        ratio: first_ms / second_ms.
        low, high: bounds of the ratio, 95 % of bootstrap samples lie between them.
        repetitions: runs of each.
    """

    first_ms: float
    second_ms: float
    ratio: float
    low: float
    high: float
    repetitions: int


def compare(
    models: tuple[nn.Module, nn.Module],
    inputs: tuple[Tensor, Tensor],
    repetitions: int,
    budget_s: float = float("inf"),
) -> Comparison:
    """Time forward passes of two models without gradients, in evaluation mode.

    Args:
        inputs: a batch for each, on the device of its model.
        budget_s: stop earlier once so much time has gone, after at least `LEAST_REPETITIONS`.
    """

    def runner(model: nn.Module, batch: Tensor) -> Callable[[], object]:
        def run() -> None:
            model(batch)
            if batch.device.type == "cuda":
                torch.cuda.synchronize(batch.device)

        return run

    pair = [runner(model, batch) for model, batch in zip(models, inputs, strict=True)]
    with evaluation(models[0]), evaluation(models[1]), torch.inference_mode():
        first, second = _alternate(pair, repetitions, budget_s)
    medians = statistics.median(first), statistics.median(second)
    low, high = bootstrap(first, second)
    ratio = medians[0] / medians[1]
    return Comparison(medians[0] * 1e3, medians[1] * 1e3, ratio, low, high, len(first))


def bootstrap(
    first: Sequence[float], second: Sequence[float], seed: int = 0
) -> tuple[float, float]:
    """Bounds of median(first) / median(second): the middle 95 % of `DRAWS` bootstrap samples.

    Runs that were made together are drawn together, because they share what disturbed them.
    Source: Efron & Tibshirani 1993, "An Introduction to the Bootstrap", section 13.3 (percentiles).
    """
    generator = random.Random(seed)
    pairs = list(zip(first, second, strict=True))
    ratios = []
    for _ in range(DRAWS):
        drawn = generator.choices(pairs, k=len(pairs))
        ratios.append(
            statistics.median(a for a, _ in drawn) / statistics.median(b for _, b in drawn)
        )
    ratios.sort()
    outside = round((1 - CONFIDENCE) / 2 * DRAWS)
    return ratios[outside], ratios[-1 - outside]


def _alternate(
    pair: Sequence[Callable[[], object]], repetitions: int, budget_s: float
) -> tuple[list[float], list[float]]:
    """Seconds of each; who goes first changes every time."""
    for _ in range(WARM_UP):
        for run in pair:
            run()
    seconds: tuple[list[float], list[float]] = ([], [])
    end = time.perf_counter() + budget_s
    for repetition in range(repetitions):
        if repetition >= LEAST_REPETITIONS and time.perf_counter() > end:
            break
        for place in (0, 1) if repetition % 2 == 0 else (1, 0):
            began = time.perf_counter()
            pair[place]()
            seconds[place].append(time.perf_counter() - began)
    return seconds
