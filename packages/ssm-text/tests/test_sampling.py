from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ssm_core.errors import ConfigError
from ssm_text.errors import GenerationError
from ssm_text.sampling import FEW, Sampling, check_logits, draw, generators, probabilities

LOGITS = torch.tensor([[0.1, 2.0, -1.0, 1.0, 0.5]])
rows = st.integers(1, 12).flatmap(
    lambda size: st.lists(
        st.lists(
            st.tuples(st.one_of(st.floats(-30, 30, width=32), st.integers(-2, 2)), st.booleans()),
            min_size=size,
            max_size=size,
        ),
        min_size=1,
        max_size=3,
    )
)


def naive(
    logits: list[float], seen: list[bool], sampling: Sampling, nudge: float = 0.0
) -> list[float]:
    """The definition, token by token; `nudge` moves the borders of top_p and min_p a little."""
    penalty = sampling.repetition_penalty
    values = [
        (v * penalty if v < 0 else v / penalty) if s else v
        for v, s in zip(logits, seen, strict=True)
    ]
    order = sorted(range(len(values)), key=lambda i: (-values[i], i))
    if sampling.temperature == 0:
        return [float(i == order[0]) for i in range(len(values))]
    weight = [math.exp((v - max(values)) / sampling.temperature) for v in values]
    order = order[: sampling.top_k or None]
    total = sum(weight[i] for i in order)
    kept, mass = [], 0.0
    for i in order:
        if kept and sampling.top_p < 1 and mass >= sampling.top_p + nudge:
            break
        kept.append(i)
        mass += weight[i] / total
    least = (sampling.min_p + nudge) * weight[order[0]] if sampling.min_p else 0.0
    kept = [i for i in kept if i == order[0] or weight[i] >= least]
    total = sum(weight[i] for i in kept)
    return [weight[i] / total if i in kept else 0.0 for i in range(len(values))]


samplings = st.builds(
    Sampling,
    temperature=st.one_of(st.just(0.0), st.floats(0.2, 3)),
    top_k=st.integers(0, 14),
    top_p=st.one_of(st.just(1.0), st.floats(0.01, 1)),
    min_p=st.one_of(st.just(0.0), st.floats(0, 1)),
    repetition_penalty=st.one_of(st.just(1.0), st.floats(0.5, 3)),
)


@given(rows, samplings)
def test_probabilities_equal_the_definition(batch, sampling):
    logits = torch.tensor([[float(v) for v, _ in row] for row in batch], dtype=torch.float64)
    seen = torch.tensor([[s for _, s in row] for row in batch])
    ours = probabilities(logits, sampling, seen)
    assert torch.allclose(ours.sum(1), torch.ones(len(batch), dtype=torch.float64))
    for i in range(len(batch)):
        # where a sum hits a border but for rounding, one token more or less is right
        expected = [
            torch.tensor(naive(logits[i].tolist(), seen[i].tolist(), sampling, nudge)).double()
            for nudge in (0, -1e-9, 1e-9)
        ]
        assert any(torch.allclose(ours[i], one, rtol=1e-5, atol=1e-6) for one in expected)


def test_filters_by_hand():
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    at = lambda **options: probabilities(logits, Sampling(1.0, **options))[0].tolist()  # noqa: E731
    assert at() == pytest.approx([0.5, 0.3, 0.15, 0.05])
    assert at(top_k=2) == pytest.approx([0.625, 0.375, 0, 0])
    assert at(top_k=99) == pytest.approx([0.5, 0.3, 0.15, 0.05])
    assert at(top_p=0.7) == pytest.approx([0.625, 0.375, 0, 0])
    assert at(top_p=0.9) == pytest.approx([0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0])
    assert at(top_p=1e-9) == pytest.approx([1, 0, 0, 0])
    # top_p acts on what top_k left: 0.625 >= 0.6
    assert at(top_k=2, top_p=0.6) == pytest.approx([1, 0, 0, 0])
    assert at(min_p=0.2) == pytest.approx([0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0])
    assert at(min_p=1.0) == pytest.approx([1, 0, 0, 0])
    # top_p acts before min_p: of 0.5, 0.3, 0.15 alone the first two would be 0.84 >= 0.82
    assert at(top_p=0.82, min_p=0.2) == pytest.approx([0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0])


@pytest.mark.parametrize("spread", [0.01, 3.0])
def test_large_vocabularies(spread):
    """Few tokens make up top_p, or many."""
    generator = torch.Generator().manual_seed(0)
    logits = spread * torch.randn(2, 2000, generator=generator, dtype=torch.float64)
    sampling = Sampling(1.0, top_p=0.9)
    ours = probabilities(logits, sampling)
    for i in range(2):
        expected = torch.tensor(naive(logits[i].tolist(), [False] * 2000, sampling)).double()
        assert torch.allclose(ours[i], expected, rtol=1e-6, atol=0)
        assert torch.equal(ours[i], probabilities(logits[i : i + 1], sampling)[0])
    assert (int((ours > 0).sum(1).min()) > FEW) == (spread < 1)


def test_temperature_acts_before_top_p():
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log()
    # at temperature 0.5 the first alone has 0.25 / 0.38 = 0.66
    assert probabilities(logits, Sampling(0.5, top_p=0.6))[0].tolist() == [1, 0, 0]


def test_repetition_penalty_by_hand():
    logits, seen = torch.tensor([[2.0, -2.0, 1.5]]), torch.tensor([[True, True, False]])
    sampling = Sampling(1.0, repetition_penalty=2.0)
    expected = torch.tensor([[1.0, -4.0, 1.5]]).double().softmax(1)
    assert torch.allclose(probabilities(logits, sampling, seen), expected)
    assert torch.allclose(probabilities(logits, sampling), logits.double().softmax(1))
    greedy = Sampling(0, repetition_penalty=2.0)
    assert draw(logits, greedy, [], seen).tolist() == [2]
    assert draw(logits, Sampling(0), [], seen).tolist() == [0]


def test_temperature_is_a_division():
    assert torch.allclose(
        probabilities(LOGITS, Sampling(0.5)), torch.softmax(LOGITS.double() / 0.5, 1)
    )


@pytest.mark.parametrize("temperature", [0.0, 1e-30, 1e-300])
def test_cold_is_greedy(temperature):
    assert probabilities(LOGITS, Sampling(temperature)).tolist() == [[0, 1, 0, 0, 0]]
    assert draw(LOGITS, Sampling(temperature), generators(Sampling(), 1)).tolist() == [1]


@pytest.mark.parametrize(
    "options", [{"temperature": 0}, {"top_k": 1}, {"top_p": 0.01}, {"top_k": 2, "top_p": 0.01}]
)
def test_ties_take_the_first(options):
    logits = torch.tensor([[1.0, 3.0, 3.0, 3.0]])
    sampling = Sampling(**{"temperature": 1.0} | options)
    assert probabilities(logits, sampling).tolist() == [[0, 1, 0, 0]]
    assert draw(logits, sampling, generators(sampling, 1)).tolist() == [1]


def test_half_precision_and_extreme_logits():
    logits = torch.tensor([[60000.0, -60000.0, 0.0]], dtype=torch.float16)
    assert probabilities(logits, Sampling(0.01)).tolist() == [[1, 0, 0]]


def test_draws_follow_the_probabilities():
    sampling = Sampling(temperature=0.9, top_k=3)
    own = generators(sampling, 1) * 4000
    counts = torch.bincount(draw(LOGITS.expand(4000, 5), sampling, own), minlength=5) / 4000
    expected = probabilities(LOGITS, sampling)[0]
    assert counts[expected == 0].sum() == 0
    # five standard deviations of a binomial share
    bound = 5 * (expected * (1 - expected) / 4000).sqrt()
    assert ((counts - expected).abs() <= bound).all()


def test_a_draw_is_the_inverse_of_the_distribution_function():
    """The smallest id whose cumulative probability is above the number drawn."""
    sampling = Sampling(temperature=1.3, min_p=0.1)
    for seed in range(50):
        number = torch.rand(1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        chances, total, expected = probabilities(LOGITS, sampling)[0].tolist(), 0.0, 0
        for expected, chance in enumerate(chances):  # noqa: B007
            total += chance
            if total > number:
                break
        own = [torch.Generator().manual_seed(seed)]
        assert draw(LOGITS, sampling, own).tolist() == [expected]


@pytest.mark.parametrize("number", [0.0, 1 - 2.0**-53])
def test_the_ends_of_the_interval_draw_possible_tokens(number, monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.tensor([number], dtype=torch.float64))
    logits = torch.tensor([[-9.0, 1.0, 0.3, -0.2, -9.0]])
    (chosen,) = draw(logits, Sampling(1.0, top_k=3), generators(Sampling(), 1)).tolist()
    assert chosen == (1 if number == 0 else 3)


def test_draws_depend_on_the_seed_alone():
    def some(seed: int) -> list[int]:
        own = generators(Sampling(1.0, seed=seed), 1)
        return [int(draw(LOGITS, Sampling(1.0), own)) for _ in range(20)]

    assert some(3) == some(3)
    assert some(3) != some(4)


@given(rows, samplings)
def test_texts_of_a_batch_draw_what_they_draw_alone(batch, sampling):
    logits = torch.tensor([[float(v) for v, _ in row] for row in batch])
    seen = torch.tensor([[s for _, s in row] for row in batch])
    own = generators(sampling, len(batch))
    together = torch.stack([draw(logits, sampling, own, seen) for _ in range(5)], 1)
    for i in range(len(batch)):
        (alone,) = generators(Sampling(seed=sampling.seed + i), 1)
        one = [draw(logits[i : i + 1], sampling, [alone], seen[i : i + 1]) for _ in range(5)]
        assert together[i].tolist() == torch.cat(one).tolist()


def test_texts_of_a_batch_differ():
    sampling = Sampling(2.0)
    own = generators(sampling, 2)
    drawn = torch.stack([draw(LOGITS.expand(2, 5), sampling, own) for _ in range(30)])
    assert drawn[:, 0].tolist() != drawn[:, 1].tolist()


def test_the_greatest_seed_goes_round():
    first, second = generators(Sampling(seed=2**63 - 1), 2)
    assert first.initial_seed() == 2**63 - 1
    assert second.initial_seed() == 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_logits_that_are_no_numbers(bad):
    logits = torch.tensor([[0.0, 1.0], [0.0, bad]])
    for sampling in (Sampling(0), Sampling(1.0), Sampling(1.0, 1, 0.5, 0, 0.1)):
        ids = draw(logits, sampling, generators(sampling, 2))
        assert 0 <= int(ids.min()) <= int(ids.max()) <= 1  # harmless until it is looked at
    with pytest.raises(GenerationError, match="NaN or infinite logits"):
        check_logits(torch.isfinite(logits).all(1))
    check_logits(torch.isfinite(logits[:1]).all(1))


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
        ({"min_p": -0.1}, "min_p is -0.1"),
        ({"min_p": 1.5}, "min_p is 1.5"),
        ({"min_p": float("nan")}, "min_p is nan"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0"),
        ({"repetition_penalty": float("inf")}, "repetition_penalty is inf"),
    ],
)
def test_options_refuse(options, message):
    with pytest.raises(ConfigError, match=message):
        Sampling(**options)
