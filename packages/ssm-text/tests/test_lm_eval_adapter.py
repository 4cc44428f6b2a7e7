from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from types import ModuleType, SimpleNamespace

import pytest
import torch

from ssm_core.errors import ConfigError, UnknownNameError
from ssm_text import Sampling, Vocabulary, generate
from ssm_text.data.tokenizer import Tokenizer
from ssm_text.errors import TokenError
from ssm_text.lm_eval_adapter import for_lm_eval, parse_options, split_pair

LETTERS = Vocabulary(["\n", *"abcde "])


class LM(ABC):
    """Stands for lm_eval.api.model.LM: the same questions, the same constructor."""

    def __init__(self) -> None:
        self.ready = True

    @abstractmethod
    def loglikelihood(self, requests): ...

    @abstractmethod
    def loglikelihood_rolling(self, requests): ...

    @abstractmethod
    def generate_until(self, requests): ...


@pytest.fixture
def harness(monkeypatch):
    module = ModuleType("lm_eval.api.model")
    module.LM = LM
    for name in ("lm_eval", "lm_eval.api"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "lm_eval.api.model", module)


@pytest.fixture
def answers(harness, make_model):
    return for_lm_eval(make_model(), LETTERS)


def asked(*arguments: object) -> SimpleNamespace:
    return SimpleNamespace(args=arguments)


def slow(slow_nats, model, before: str, ending: str) -> tuple[float, bool]:
    ids, first = LETTERS.encode(before + ending).tolist(), len(before)
    steps = [slow_nats(model, ids[:i], ids[i]) for i in range(first, len(ids))]
    return -sum(nats for nats, _ in steps), all(hit for _, hit in steps)


def test_it_is_a_model_of_the_harness(answers):
    assert isinstance(answers, LM)
    assert answers.ready


def test_loglikelihood(answers, slow_nats):
    # a space in front belongs to the ending, a newline stands before what begins with nothing
    pairs = {
        ("ab", "cd"): ("ab", "cd"),
        ("abc ", "d"): ("abc", " d"),
        ("", "ba"): ("\n", "ba"),
        ("e", "e" * 9): ("e", "e" * 9),
        ("deda", "b"): ("deda", "b"),
    }
    found = answers.loglikelihood([asked(*pair) for pair in pairs])
    for read, (value, greedy) in zip(pairs.values(), found, strict=True):
        expected, likeliest = slow(slow_nats, answers.model, *read)
        assert value == pytest.approx(expected, rel=1e-9)
        assert greedy == likeliest


def test_loglikelihood_rolling(answers, slow_nats):
    found = answers.loglikelihood_rolling([asked("abcd e"), asked(""), asked("b")])
    assert found[0] == pytest.approx(slow(slow_nats, answers.model, "\n", "abcd e")[0], rel=1e-9)
    assert found[1] == 0
    assert found[2] == pytest.approx(slow(slow_nats, answers.model, "\n", "b")[0], rel=1e-9)


def test_generate_until(answers):
    def text(count: int, sampling: Sampling, stop=()) -> str:
        return "".join(generate(answers.model, LETTERS, "ab", count, sampling, stop))

    greedy = text(30, Sampling(temperature=0.0))
    stop = greedy[4:6]
    requests = [
        ("ab", {"max_gen_toks": 30}),
        ("ab", {"max_gen_toks": 30, "until": [stop, "zz"], "do_sample": False, "temperature": 1.0}),
        ("ab", {"max_gen_toks": 8, "do_sample": True, "temperature": 1.5, "seed": 3}),
        ("ab", {}),
    ]
    found = answers.generate_until([asked(*request) for request in requests])
    assert found[0] == greedy
    assert found[1] == greedy[: greedy.index(stop)]
    assert found[2] == text(8, Sampling(temperature=1.5, seed=3))
    assert len(found[3]) == 256


def test_endings_are_cut_out_of_the_whole():
    """Where tokens begin depends on what stands before them."""
    text = "the cat sat on the mat\n" * 20
    codec = Tokenizer.train([text], 280)

    def texts(before: str, ending: str) -> tuple[str, str]:
        first, second = split_pair(codec, before, ending)
        return codec.decode(first), codec.decode(second)

    assert texts("the cat", " sat") == texts("the cat ", "sat") == ("the cat", " sat")
    assert len(split_pair(codec, "the", " cat")[1]) == 1
    assert texts("", "the cat") == ("<|endoftext|>", "the cat")
    assert texts("  ", "the cat") == ("<|endoftext|>", "  the cat")
    # "t" and "he" are one token together: the ending is scored as tokens of its own
    assert len(codec.encode("the")) == 1
    assert texts("t", "he") == ("t", "he")
    assert texts("t", "") == ("t", "")


def test_options_of_tasks():
    assert parse_options({"until": "\n"}) == (Sampling(temperature=0.0), ("\n",))
    assert parse_options({"temperature": 0.7, "top_k": 3}) == (
        Sampling(temperature=0.7, top_k=3),
        (),
    )
    with pytest.raises(UnknownNameError, match="option of generate_until 'num_beams'"):
        parse_options({"num_beams": 4})


def test_unknown_characters_are_one_line(answers):
    with pytest.raises(TokenError, match="unknown character 'x'"):
        answers.loglikelihood([asked("ab", "x")])


def test_refuses(harness, make_model, monkeypatch):
    with pytest.raises(ConfigError, match="the vocabulary has 7 characters, the model 9"):
        for_lm_eval(make_model(9), LETTERS)
    monkeypatch.setitem(sys.modules, "lm_eval.api.model", None)
    with pytest.raises(ConfigError, match=r"needs lm_eval.* pip install 'ssm-text\[lm-eval\]'"):
        for_lm_eval(make_model(), LETTERS)
    assert torch.is_grad_enabled()
