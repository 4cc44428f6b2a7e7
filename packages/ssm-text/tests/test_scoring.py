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


def sharp(mixer: str = "mamba", positions: int = 0) -> CharLM:
    """A small model in float64 that is sure of itself: mistakes show."""
    torch.manual_seed(0)
    config = CharLMConfig(
        d_model=8, n_layers=2, mixer=mixer, tie_embeddings=False, positions=positions
    )
    model = CharLM(V, config).double().eval()
    with torch.no_grad():
        model.embedding.weight.mul_(50)
        model.head.weight.mul_(5)
    return model


MAMBA = sharp()
LIMITED = sharp("attention", positions=6)


def nats_of(model: CharLM, text: list[int], target: int) -> tuple[float, bool]:
    """Minus log p(target | text) by steps, the slow way, and whether the target is likeliest."""
    state = model.initial_state(1)
    with torch.no_grad():
        for id in text:
            logits, state = model.step(torch.tensor([id]), state)
    chances = torch.softmax(logits[0], 0)
    return -math.log(float(chances[target])), int(chances.argmax()) == target


texts = st.lists(st.integers(0, V - 1), min_size=2, max_size=20)


@settings(deadline=None, max_examples=25)
@given(text=texts, chunk=st.integers(1, 9), rows=st.integers(1, 5))
def test_a_whole_text_is_the_sum_over_its_tokens(text, chunk, rows):
    expected = sum(nats_of(MAMBA, text[:i], text[i])[0] for i in range(1, len(text)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "TOKENS", chunk)
        patch.setattr(scoring, "LOGITS", rows * V)
        read: list[int] = []
        found = score(MAMBA, torch.tensor(text), advance=read.append)
    assert found.tokens == len(text) - 1 == sum(read)
    assert found.nats == pytest.approx(expected, rel=1e-9)


@settings(deadline=None, max_examples=25)
@given(text=texts, context=st.integers(1, 6), data=st.data())
@pytest.mark.parametrize("model", [MAMBA, LIMITED], ids=["mamba", "limited"])
def test_windows_predict_each_token_once_from_enough_before_it(model, text, context, data):
    stride = data.draw(st.none() | st.integers(1, context))
    step = stride or max(1, context // 2)
    expected, start = 0.0, 0
    for i in range(1, len(text)):
        while i > start + context:
            start += step
        expected += nats_of(model, text[start:i], text[i])[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "TOKENS", data.draw(st.integers(1, 20)))
        read: list[int] = []
        found = score(model, torch.tensor(text), context, stride, read.append)
    assert found.nats == pytest.approx(expected, rel=1e-9)
    assert found.tokens == len(text) - 1 == sum(read)


def test_a_limited_model_reads_windows_of_its_own():
    text = torch.randint(0, V, (40,), generator=torch.Generator().manual_seed(0))
    assert score(LIMITED, text) == score(LIMITED, text, 6, 3)
    assert score(LIMITED, text) != score(LIMITED, text, 4)
    assert score(MAMBA, text) != score(MAMBA, text, 6)


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
def test_refuses(ids, options, error, message):
    with pytest.raises(error, match=message):
        score(LIMITED, torch.tensor(ids), **options)


def test_refuses_a_stride_without_a_context():
    with pytest.raises(ConfigError, match="stride is 2, expected 1 to the context, which is not"):
        score(MAMBA, torch.tensor([1, 2]), stride=2)


def test_damaged_weights_are_one_line():
    model = sharp()
    with torch.no_grad():
        model.tower.norm_f.weight.fill_(float("nan"))
    with pytest.raises(GenerationError, match="NaN or infinite logits"):
        score(model, torch.arange(7))
