from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ssm_core.errors import ConfigError
from ssm_text.errors import GenerationError
from ssm_text.sampling import Sampling, draw, probabilities

LOGITS = torch.tensor([0.1, 2.0, -1.0, 1.0, 0.5])
logit_lists = st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=12)


def naive(logits: list[float], temperature: float, top_k: int, top_p: float) -> list[float]:
    """The definition, character by character."""
    chances = torch.softmax(torch.tensor(logits, dtype=torch.float64) / temperature, 0).tolist()
    order = sorted(range(len(chances)), key=lambda i: -logits[i])
    order = order[: top_k or None]
    total = sum(chances[i] for i in order)
    kept, mass = [], 0.0
    for i in order:
        if kept and mass >= top_p:
            break
        kept.append(i)
        mass += chances[i] / total
    total = sum(chances[i] for i in kept)
    return [chances[i] / total if i in kept else 0.0 for i in range(len(chances))]


@given(logit_lists, st.floats(0.2, 3), st.integers(0, 14), st.floats(0.01, 1))
def test_probabilities_equal_the_definition(logits, temperature, top_k, top_p):
    ours = probabilities(torch.tensor(logits), Sampling(temperature, top_k, top_p))
    expected = torch.tensor(naive(logits, temperature, top_k, top_p), dtype=torch.float64)
    assert ours.sum().item() == pytest.approx(1)
    # where the running sum hits top_p but for rounding, one character more or less is right
    if not torch.allclose(ours, expected, atol=1e-6):
        nudged = [naive(logits, temperature, top_k, top_p + d) for d in (-1e-9, 1e-9)]
        assert any(torch.allclose(ours, torch.tensor(n).double(), atol=1e-6) for n in nudged)


def test_top_k_and_top_p_by_hand():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    at = lambda **options: probabilities(logits, Sampling(1.0, **options)).tolist()  # noqa: E731
    assert at() == pytest.approx([0.5, 0.3, 0.15, 0.05])
    assert at(top_k=2) == pytest.approx([0.625, 0.375, 0, 0])
    assert at(top_k=99) == pytest.approx([0.5, 0.3, 0.15, 0.05])
    assert at(top_p=0.7) == pytest.approx([0.625, 0.375, 0, 0])
    assert at(top_p=0.9) == pytest.approx([0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0])
    assert at(top_p=1e-9) == pytest.approx([1, 0, 0, 0])
    # top_p acts on what top_k left: 0.625 >= 0.6
    assert at(top_k=2, top_p=0.6) == pytest.approx([1, 0, 0, 0])


def test_temperature_is_a_division():
    assert torch.allclose(
        probabilities(LOGITS, Sampling(0.5)), torch.softmax(LOGITS.double() / 0.5, 0)
    )


@pytest.mark.parametrize("temperature", [0.0, 1e-30, 1e-300])
def test_cold_is_greedy(temperature):
    assert probabilities(LOGITS, Sampling(temperature)).tolist() == [0, 1, 0, 0, 0]


def test_ties_take_the_first():
    logits = torch.tensor([1.0, 3.0, 3.0])
    assert probabilities(logits, Sampling(0)).tolist() == [0, 1, 0]
    assert probabilities(logits, Sampling(1.0, top_k=1)).tolist() == [0, 1, 0]


def test_half_precision_and_extreme_logits():
    logits = torch.tensor([60000.0, -60000.0, 0.0], dtype=torch.float16)
    assert probabilities(logits, Sampling(0.01)).tolist() == [1, 0, 0]


def test_draws_follow_the_probabilities():
    sampling = Sampling(temperature=0.9, top_k=3)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.tensor([draw(LOGITS, sampling, generator) for _ in range(4000)])
    counts = torch.bincount(drawn, minlength=5) / 4000
    expected = probabilities(LOGITS, sampling)
    assert counts[expected == 0].sum() == 0
    # five standard deviations of a binomial share
    bound = 5 * (expected * (1 - expected) / 4000).sqrt()
    assert ((counts - expected).abs() <= bound).all()


def test_draws_depend_on_the_seed_alone():
    def some(seed: int) -> list[int]:
        generator = torch.Generator().manual_seed(seed)
        return [draw(LOGITS, Sampling(1.0), generator) for _ in range(20)]

    assert some(3) == some(3)
    assert some(3) != some(4)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_no_numbers(bad, temperature):
    with pytest.raises(GenerationError, match="NaN or infinite logits"):
        probabilities(torch.tensor([0.0, bad]), Sampling(temperature))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": float("inf")}, "temperature is inf"),
        ({"top_k": -1}, "top_k is -1"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.1}, "top_p is 1.1"),
        ({"top_p": float("nan")}, "top_p is nan"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**63}, "seed is 9223372036854775808"),
    ],
)
def test_options_refuse(options, message):
    with pytest.raises(ConfigError, match=message):
        Sampling(**options)
