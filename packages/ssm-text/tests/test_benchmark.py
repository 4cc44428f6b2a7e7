"""The language models that `ssm-train bench` times."""

from __future__ import annotations

import math

import pytest
import torch

from ssm_core.bench.cases import Case, Conditions
from ssm_core.bench.measure import measure
from ssm_text.benchmark import BENCHMARK, VOCAB_SIZE


def test_the_recipes_are_known_and_the_baselines_are_marked():
    models = BENCHMARK.models()
    assert not models["shakespeare-mamba"]
    assert not models["stdlib-mamba"]


@pytest.mark.parametrize("name", sorted(BENCHMARK.models()))
def test_every_model_takes_any_context(name):
    for context in (3, 300):  # shorter and longer than that of its recipe
        model = BENCHMARK.build(name, context).eval()
        ids = BENCHMARK.inputs(model, 1, context)
        assert (ids.shape, ids.dtype) == ((1, context), torch.int64)
        with torch.no_grad():
            assert model(ids).shape == (1, context, VOCAB_SIZE)


def test_the_loss_is_that_of_the_next_character():
    ids = torch.tensor([[0, 1, 2]])
    right = torch.full((1, 3, VOCAB_SIZE), -100.0)
    right[0, [0, 1, 2], [1, 2, 0]] = 100.0
    assert float(BENCHMARK.loss(right, ids)) < 1e-6
    even = torch.zeros(1, 3, VOCAB_SIZE)
    assert float(BENCHMARK.loss(even, ids)) == pytest.approx(math.log(VOCAB_SIZE))


def test_characters_are_counted():
    case = Case("language models", "stdlib-mamba", 16, 2, "training")
    row = measure(case, Conditions(seconds=0.01), BENCHMARK)
    assert row.per_s == pytest.approx(2 * 16 / row.latency_ms * 1e3)
