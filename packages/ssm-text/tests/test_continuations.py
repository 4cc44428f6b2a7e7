from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ssm_text.continuations as continuations
import ssm_text.scoring as scoring
from ssm_text.continuations import Continuation, score_continuations
from ssm_text.errors import GenerationError, TokenError

V = 7


@pytest.fixture(scope="module")
def mamba(make_model):
    return make_model(V)


@pytest.fixture(scope="module")
def limited(make_model):
    """One that can read six tokens."""
    return make_model(V, mixer="attention", positions=6)


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_endings_of_any_lengths_share_batches(mamba, slow_nats, data):
    some = st.lists(st.integers(0, V - 1), min_size=1, max_size=9)
    ending = st.lists(st.integers(0, V - 1), max_size=5)
    requests = data.draw(st.lists(st.tuples(some, ending), max_size=6))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(continuations, "TOKENS", data.draw(st.integers(1, 60)))
        patch.setattr(scoring, "LOGITS", V * data.draw(st.integers(1, 5)))
        found = score_continuations(
            mamba,
            [tuple(torch.tensor(p, dtype=torch.int64) for p in pair) for pair in requests],
        )
    assert len(found) == len(requests)
    for (before, end), result in zip(requests, found, strict=True):
        steps = [slow_nats(mamba, before + end[:i], end[i]) for i in range(len(end))]
        assert result.nats == pytest.approx(sum(nats for nats, _ in steps), rel=1e-9, abs=1e-12)
        assert result.greedy == all(hit for _, hit in steps)


def test_greedy_endings_are_told_from_others(mamba):
    before = torch.tensor([1, 2, 3])
    likeliest = mamba.generate(before.unsqueeze(0), max_new_tokens=4)[0, 3:]
    other = torch.cat([likeliest[:-1], (likeliest[-1:] + 1) % V])
    found = score_continuations(mamba, [(before, likeliest), (before, other)])
    assert [result.greedy for result in found] == [True, False]


def test_a_limited_model_reads_the_end_of_what_comes_before(limited):
    before, ending = torch.tensor([1, 2, 3, 4, 5, 6, 0, 1]), torch.tensor([2, 3])
    (found,) = score_continuations(limited, [(before, ending)])
    (expected,) = score_continuations(limited, [(before[-5:], ending)])
    assert found == expected
    assert found != score_continuations(limited, [(before[-4:], ending)])[0]
    with pytest.raises(TokenError, match=r"7 tokens are to be scored.* the model's context, 6"):
        score_continuations(limited, [(before, before[:7])])


def test_refuses(mamba):
    nothing = torch.zeros(0, dtype=torch.int64)
    with pytest.raises(TokenError, match="nothing stands before the text to score"):
        score_continuations(mamba, [(nothing, torch.tensor([1]))])
    with pytest.raises(TokenError, match="ids from 1 to 9"):
        score_continuations(mamba, [(torch.tensor([1]), torch.tensor([9]))])
    assert score_continuations(mamba, []) == []
    assert score_continuations(mamba, [(torch.tensor([1]), nothing)]) == [Continuation(0.0, True)]


def test_damaged_weights_are_one_line(make_model):
    model = make_model(V)
    with torch.no_grad():
        model.tower.norm_f.weight.fill_(float("nan"))
    with pytest.raises(GenerationError, match="NaN or infinite logits"):
        score_continuations(model, [(torch.tensor([1]), torch.tensor([2]))])
