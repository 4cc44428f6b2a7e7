from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ssm_text.scoring as scoring
from ssm_core.errors import ConfigError
from ssm_text import CharLM, CharLMConfig
from ssm_text.errors import GenerationError, TokenError
from ssm_text.scoring import Score, score

V = 7


@pytest.fixture(scope="module")
def mamba(make_model):
    return make_model(V)


@pytest.fixture(scope="module")
def limited(make_model):
    """One that can read six tokens."""
    return make_model(V, mixer="attention", positions=6)


texts = st.lists(st.integers(0, V - 1), min_size=2, max_size=20)


@settings(deadline=None, max_examples=25)
@given(text=texts, chunk=st.integers(1, 9), rows=st.integers(1, 5))
def test_a_whole_text_is_the_sum_over_its_tokens(mamba, slow_nats, text, chunk, rows):
    expected = sum(slow_nats(mamba, text[:i], text[i])[0] for i in range(1, len(text)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "TOKENS", chunk)
        patch.setattr(scoring, "LOGITS", rows * V)
        read: list[int] = []
        found = score(mamba, torch.tensor(text), advance=read.append)
    assert found.tokens == len(text) - 1 == sum(read)
    assert found.nats == pytest.approx(expected, rel=1e-9)


@settings(deadline=None, max_examples=25)
@given(text=texts, context=st.integers(1, 6), data=st.data())
@pytest.mark.parametrize("name", ["mamba", "limited"])
def test_windows_predict_each_token_once_from_enough_before_it(
    slow_nats, request, name, text, context, data
):
    model = request.getfixturevalue(name)
    stride = data.draw(st.none() | st.integers(1, context))
    step = stride or max(1, context // 2)
    expected, start = 0.0, 0
    for i in range(1, len(text)):
        while i > start + context:
            start += step
        expected += slow_nats(model, text[start:i], text[i])[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "TOKENS", data.draw(st.integers(1, 20)))
        read: list[int] = []
        found = score(model, torch.tensor(text), context, stride, read.append)
    assert found.nats == pytest.approx(expected, rel=1e-9)
    assert found.tokens == len(text) - 1 == sum(read)


def test_a_limited_model_reads_windows_of_its_own(mamba, limited):
    text = torch.randint(0, V, (40,), generator=torch.Generator().manual_seed(0))
    assert score(limited, text) == score(limited, text, 6, 3)
    assert score(limited, text) != score(limited, text, 4)
    assert score(mamba, text) != score(mamba, text, 6)


def test_dropout_is_off_and_on_again():
    torch.manual_seed(0)
    model = CharLM(V, CharLMConfig(d_model=8, dropout=0.5)).train()
    text = torch.arange(7).repeat(5)
    assert score(model, text) == score(model, text)
    assert model.training


def test_figures():
    found = Score(nats=8 * math.log(2), tokens=4)
    assert found.perplexity == pytest.approx(4)
    assert found.bits_per(16) == pytest.approx(0.5)
    assert Score(nats=1e9, tokens=1).perplexity == math.inf
    uniform = CharLM(V, CharLMConfig(d_model=8))
    torch.nn.init.zeros_(uniform.head.weight)
    assert score(uniform, torch.arange(7)).perplexity == pytest.approx(V)


@pytest.mark.parametrize(
    ("ids", "options", "error", "message"),
    [
        ([1], {}, TokenError, "the text has 1 tokens, expected 2 or more"),
        ([1, 7], {}, TokenError, "ids from 1 to 7, expected 0 to 6"),
        ([1, 2], {"context": 0}, ConfigError, "context is 0, expected 1 to 6, the model's own"),
        ([1, 2], {"context": 7}, ConfigError, "context is 7, expected 1 to 6"),
        ([1, 2], {"context": 3, "stride": 4}, ConfigError, "stride is 4, expected 1 to the con"),
    ],
)
def test_refuses(limited, ids, options, error, message):
    with pytest.raises(error, match=message):
        score(limited, torch.tensor(ids), **options)


def test_refuses_a_stride_without_a_context(mamba):
    with pytest.raises(ConfigError, match="stride is 2, expected 1 to the context, which is not"):
        score(mamba, torch.tensor([1, 2]), stride=2)


def test_damaged_weights_are_one_line(make_model):
    model = make_model(V)
    with torch.no_grad():
        model.tower.norm_f.weight.fill_(float("nan"))
    with pytest.raises(GenerationError, match="NaN or infinite logits"):
        score(model, torch.arange(7))
