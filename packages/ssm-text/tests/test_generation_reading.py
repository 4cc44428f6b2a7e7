"""Prompts read in pieces, in chunks, beyond the context: logits are those of the whole text."""

from __future__ import annotations

import pytest
import torch
from generation_cases import MIXERS, expected_start, prompts_of
from hypothesis import given, settings
from hypothesis import strategies as st

from ssm_text import Sampling
from ssm_text.generation import Ending, stream
from ssm_text.texts import Texts


@settings(max_examples=8, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    pieces=st.lists(st.lists(st.integers(0, 4), min_size=3, max_size=3), max_size=3),
    context=st.one_of(st.none(), st.integers(1, 6)),
)
def test_reading_in_pieces_and_generating_between(toy_model, lengths, pieces, context):
    """Texts grow by prompts of any lengths, empty ones too, and by tokens; logits stay right."""
    model, batch = toy_model(context), len(lengths)
    texts, whole = Texts(model, batch), prompts_of(*lengths)
    texts.read(whole)
    for piece in pieces:
        more = prompts_of(*piece[:batch])
        texts.read(more)
        whole = [torch.cat([a, b]) for a, b in zip(whole, more, strict=True)]
        for ids in stream(texts, Sampling(0), Ending(2)):
            whole = [torch.cat([text, one.view(1)]) for text, one in zip(whole, ids, strict=True)]
        texts.settle()
        for i, text in enumerate(whole):
            assert texts.lengths[i] == len(text)
            kept = text[expected_start(len(text), context) :].unsqueeze(0)
            torch.testing.assert_close(texts.logits[i], model(kept)[0, -1])
            assert texts.seen[i].nonzero().squeeze(1).tolist() == sorted(set(text.tolist()))


@pytest.mark.parametrize("context", [1, 2, 5, 8])
def test_a_full_state_begins_anew(toy_model, context):
    """For every length of the prompt, far beyond the context; the toy refuses to be overfilled."""
    model = toy_model(context)
    (text,) = model.generate(prompts_of(1), 30)
    for length in range(1, 31):
        (again,) = model.generate([text[:length]], 31 - length)
        assert torch.equal(again, text)
    for length in range(1, 31):
        with torch.no_grad():
            logits = model(text[expected_start(length, context) : length].unsqueeze(0))[0, -1]
        assert int(logits.argmax()) == int(text[length])
    prompts = prompts_of(3, 1, 17)
    for prompt, text in zip(prompts, model.generate(prompts, 20), strict=True):
        assert torch.equal(text, model.generate([prompt], 20)[0])


@pytest.mark.parametrize("mixer", MIXERS)
def test_decode_equals_prefill_for_every_split_of_a_prompt(make_model, mixer):
    model = make_model(mixer=mixer, mixer_options=MIXERS[mixer])
    (ids,) = prompts_of(9)
    with torch.no_grad():
        expected = model(ids.unsqueeze(0))[0, -1]
    for split in range(1, 10):
        texts = Texts(model)
        texts.read([ids[:split]])
        for one in ids[split:]:
            texts.push(one.view(1))
        texts.settle()
        torch.testing.assert_close(texts.logits[0], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("lengths", [(50,), (50, 50), (50, 33, 1)])
def test_long_prompts_are_read_in_chunks(make_model, monkeypatch, lengths):
    monkeypatch.setattr("ssm_text.texts.PREFILL_TOKENS", 16)
    model, prompts, widths = make_model(), prompts_of(*lengths), []
    model.register_forward_hook(lambda module, inputs, output: widths.append(inputs[0].shape))
    texts = Texts(model, len(lengths))
    texts.read(prompts)
    assert max(b * l for b, l in widths) <= 16
    for i, ids in enumerate(prompts):
        with torch.no_grad():
            expected = model(ids.unsqueeze(0))[0, -1]
        torch.testing.assert_close(texts.logits[i], expected, rtol=1e-9, atol=1e-9)
