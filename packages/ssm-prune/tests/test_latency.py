"""Side-by-side timing: order, bounds, and that a slower model is seen."""

from __future__ import annotations

import random
import statistics
import time

import torch
from torch import Tensor, nn

from ssm_prune.latency import LEAST_REPETITIONS, WARM_UP, bootstrap, compare


class Sleeper(nn.Module):
    def __init__(self, seconds: float, log: list[float]) -> None:
        super().__init__()
        self.seconds, self.log = seconds, log

    def forward(self, x: Tensor) -> Tensor:
        assert not self.training
        assert torch.is_inference_mode_enabled()
        self.log.append(self.seconds)
        time.sleep(self.seconds)
        return x


def test_the_slower_model_is_seen_and_runs_alternate() -> None:
    log: list[float] = []
    slow, fast = Sleeper(0.004, log), Sleeper(0.001, log)
    x = torch.zeros(1)
    found = compare((slow, fast), (x, x), 12)
    assert found.repetitions == 12
    assert len(log) == 2 * (12 + WARM_UP)
    pairs = [tuple(log[i : i + 2]) for i in range(0, len(log), 2)]
    assert all(len(set(pair)) == 2 for pair in pairs)  # never the same model twice in a pair
    assert len(set(pairs[WARM_UP:])) == 2  # and each goes first now and then
    assert 1 < found.low <= found.ratio <= found.high
    assert slow.training


def test_a_budget_ends_it_after_a_few_runs() -> None:
    x, log = torch.zeros(1), []
    model = Sleeper(0.001, log)
    assert compare((model, model), (x, x), 1000, budget_s=0.0).repetitions == LEAST_REPETITIONS


def test_bounds_are_those_of_a_plain_bootstrap() -> None:
    generator = random.Random(1)
    first = [2 + generator.random() for _ in range(30)]
    second = [1 + generator.random() for _ in range(30)]
    low, high = bootstrap(first, second)
    assert (low, high) == bootstrap(first, second)  # seeded
    ratios = []
    for _ in range(3000):
        places = [generator.randrange(30) for _ in range(30)]
        a, b = ([values[i] for i in places] for values in (first, second))
        ratios.append(statistics.median(a) / statistics.median(b))
    ratios.sort()
    assert abs(low - ratios[75]) < 0.05
    assert abs(high - ratios[-76]) < 0.05
    assert low < statistics.median(first) / statistics.median(second) < high
    assert bootstrap([1.0] * 9, [2.0] * 9) == (0.5, 0.5)
