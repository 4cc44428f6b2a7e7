"""`generate`, `decode` and `sample` of mamba_ssm."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from ssm_core.compat.cache import InferenceParams
from ssm_core.errors import ConfigError
from ssm_text.compat.config import MambaConfig
from ssm_text.compat.decoding import GenerationMixin, decode, sample
from ssm_text.compat.lm_head import MambaLMHeadModel


class Counting(nn.Module, GenerationMixin):
    """The likeliest token is the last one plus 1 of 6; two more columns are padding."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[int, int, int | None]] = []

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor | None,
        inference_params: InferenceParams,
        num_last_tokens: int,
    ) -> SimpleNamespace:
        assert num_last_tokens == 1
        assert (inference_params.max_seqlen, inference_params.max_batch_size) == (9, 2)
        place = None if position_ids is None else int(position_ids[0, 0])
        self.calls.append((input_ids.shape[1], inference_params.seqlen_offset, place))
        logits = torch.zeros(len(input_ids), 1, 8)
        logits[..., 7] = 0.5
        logits.scatter_(2, ((input_ids[:, -1:] + 1) % 6).unsqueeze(1), 1.0)
        return SimpleNamespace(logits=logits)


PROMPT = torch.tensor([[2, 3, 4], [5, 0, 1]])


def test_prompt_once_then_single_tokens() -> None:
    model = Counting()
    y = model.generate(PROMPT, 9)
    expected = [[2, 3, 4, 5, 0, 1, 2, 3, 4], [5, 0, 1, 2, 3, 4, 5, 0, 1]]
    assert y.tolist() == expected
    assert model.calls == [(3, 0, None), *((1, t, t) for t in range(3, 8))]


def test_at_least_one_token() -> None:
    class Anything(Counting):
        def forward(self, input_ids: Tensor, **_: object) -> SimpleNamespace:
            return SimpleNamespace(logits=torch.zeros(len(input_ids), 1, 8))

    assert Anything().generate(PROMPT, 2).shape == (2, 4)


def test_ends_when_all_have_just_got_the_end() -> None:
    assert Counting().generate(PROMPT, 9, eos_token_id=0).shape == (2, 9)  # never both at once
    same = PROMPT[:1].expand(2, -1)
    assert Counting().generate(same, 9, eos_token_id=0).tolist() == [[2, 3, 4, 5, 0]] * 2


def test_scores_and_vocabulary() -> None:
    output = Counting().generate(
        PROMPT, 9, return_dict_in_generate=True, output_scores=True, vocab_size=6
    )
    assert output.sequences.shape == (2, 9)
    assert [score.shape for score in output.scores] == [(2, 6)] * 6
    assert Counting().generate(PROMPT, 9, return_dict_in_generate=True).scores is None


def test_teacher() -> None:
    teacher = torch.tensor([[0, 0, 0, 1, 1], [0, 0, 0, 2, 2]])
    y = Counting().generate(PROMPT, 9, teacher_outputs=teacher)
    assert y[:, 3:].tolist() == [[1, 1, 2, 3, 4, 5], [2, 2, 3, 4, 5, 0]]


def test_repetition_penalty() -> None:
    """A token of the text counts a third: less than one that is half as likely and new."""
    y = Counting().generate(PROMPT, 9, repetition_penalty=3.0)
    assert y.tolist() == [[2, 3, 4, 5, 0, 1, 7, 2, 3], [5, 0, 1, 2, 3, 4, 7, 2, 3]]


def test_streamer_and_timing(capsys: pytest.CaptureFixture[str]) -> None:
    told: list[object] = []
    streamer = SimpleNamespace(
        put=lambda ids: told.append(ids.tolist()), end=lambda: told.append(0)
    )
    decode(PROMPT, Counting(), 9, streamer=streamer, enable_timing=True, cg=True)
    assert told[:2] == [PROMPT.tolist(), [[5], [2]]]
    assert len(told) == 8
    assert told[-1] == 0
    assert capsys.readouterr().out.startswith("Prompt and decoding: ")


def test_global_seed_decides() -> None:
    model = MambaLMHeadModel(MambaConfig(d_model=16, n_layer=1, vocab_size=40))
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(model.generate(PROMPT, 20, top_k=0, temperature=2.0, vocab_size=40))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert drawn[0].max() < 40


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {3}),
        ({"top_k": 2}, {2, 3}),
        ({"top_k": 0}, {0, 1, 2, 3}),
        ({"top_k": 0, "top_p": 0.8}, {2, 3}),
        ({"top_k": 0, "min_p": 0.3}, {2, 3}),
        ({"top_k": 3, "temperature": 0.01}, {3}),
    ],
)
def test_sample(options: dict[str, float], expected: set[int]) -> None:
    logits = torch.tensor([0.1, 0.1, 0.3, 0.5]).log().expand(400, -1)
    assert set(Counter(sample(logits, **options).tolist())) == expected


def test_refusals() -> None:
    for options in ({"top_k": -1}, {"top_k": 0, "temperature": -1.0}, {"top_k": 0, "top_p": 2.0}):
        with pytest.raises(ConfigError):
            sample(torch.zeros(1, 4), **options)
    with pytest.raises(TypeError, match="nonsense"):
        Counting().generate(PROMPT, 9, nonsense=1)
