"""Bad ids, options and logits are one line each."""

from __future__ import annotations

import pytest
import torch
from generation_cases import prompts_of

from ssm_core.errors import ConfigError, UnknownNameError
from ssm_text import Sampling
from ssm_text.errors import GenerationError, TokenError
from ssm_text.generation import stream
from ssm_text.texts import Texts


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (torch.zeros(2, 0, dtype=torch.int64), "text 0 has no tokens"),
        ([torch.tensor([1]), torch.tensor([], dtype=torch.int64)], "text 1 has no tokens"),
        (torch.tensor([[1, 7]]), r"text 0: ids from 1 to 7, expected 0 to 6"),
        ([torch.tensor([1]), torch.tensor([-1])], r"text 1: ids from -1 to -1, expected 0 to 6"),
        (torch.tensor([[1.0]]), r"text 0: .*torch.float32, expected \(l,\) and torch.int64"),
        ([torch.tensor([[1]])], r"text 0: ids have shape \(1, 1\)"),
        ([[1, 2]], "text 0 is a list, expected a tensor of ids"),
        (torch.tensor(1), r"ids have shape \(\), expected \(b, l\)"),
        (torch.tensor([1, 2]), r"ids have shape \(2,\), expected \(b, l\), or a list of \(l,\)"),
    ],
)
def test_bad_ids_are_one_line(make_model, ids, message):
    with pytest.raises(TokenError, match=message) as error:
        make_model().generate(ids, 3)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"max_new_tokens": -1}, ConfigError, "max_new_tokens is -1"),
        ({"temperature": -1.0}, ConfigError, "temperature is -1"),
        ({"top_kk": 3}, UnknownNameError, "unknown option of generate 'top_kk'.*'top_k'"),
        ({"stop_ids": [7]}, TokenError, "stop_ids: 7 is no id, expected 0 to 6"),
        ({"pad_id": -1}, TokenError, "pad_id: -1 is no id"),
    ],
)
def test_bad_options_are_one_line(make_model, options, kind, message):
    with pytest.raises(kind, match=message):
        make_model().generate(torch.tensor([[1]]), **options)


def test_nan_logits_are_one_line(make_model):
    model = make_model()
    with torch.no_grad():
        model.tower.norm_f.weight[0] = float("nan")
    for temperature in (0.0, 1.0):
        with pytest.raises(GenerationError, match="NaN or infinite logits"):
            model.generate(torch.tensor([[1]]), temperature=temperature)


def test_nothing_was_read(make_model):
    with pytest.raises(TokenError, match="nothing to go on from"):
        next(stream(Texts(make_model()), Sampling(0)))
    with pytest.raises(TokenError, match="2 prompts for a batch of 1"):
        Texts(make_model()).read(prompts_of(1, 1))
