from __future__ import annotations

import pytest
import torch

from ssm_core.errors import ConfigError
from ssm_text import Sampling, Vocabulary, generate
from ssm_text import generate as generate_function
from ssm_text.errors import GenerationError, TokenError
from ssm_text.generate import new_texts
from ssm_text.saved_state import load_state, save_state
from ssm_text.texts import Texts

GREEDY = Sampling(temperature=0)


def text(*arguments, **options) -> str:
    return "".join(generate(*arguments, **options))


@pytest.mark.parametrize("mixer", ["mamba", "mamba2", "s4", "s4d", "s5", "rnn", "attention"])
def test_greedy_equals_the_whole_text_recomputed_each_step(make_model, vocabulary, mixer):
    options = {"mamba2": {"headdim": 4}, "s4": {"d_state": 8, "dt_min": 0.01}}
    model = make_model(mixer=mixer, mixer_options=options.get(mixer, {}))
    everything = ""
    for prompt in ("a", "abc", "fade\ncab"):
        ids = vocabulary.encode(prompt).unsqueeze(0)
        for _ in range(20):
            ids = torch.cat([ids, model(ids)[:, -1:].argmax(-1)], dim=1)
        expected = vocabulary.decode(ids[0, len(prompt) :])
        assert text(model, vocabulary, prompt, 20, GREEDY) == expected
        everything += expected
    assert len(set(everything)) > 1  # a constant text would prove little


def test_sampling_equals_the_whole_text_recomputed_each_step(make_model, vocabulary):
    from ssm_text.sampling import draw, generators

    model, sampling = make_model(), Sampling(temperature=1.5, top_k=4, seed=5)
    own = generators(sampling, 1)
    ids = vocabulary.encode("bed")
    for _ in range(20):
        ids = torch.cat([ids, draw(model(ids.unsqueeze(0))[:, -1], sampling, own)])
    assert text(model, vocabulary, "bed", 20, sampling) == vocabulary.decode(ids[3:])


def test_seeds(make_model, vocabulary):
    model = make_model()
    first, again, other = (
        text(model, vocabulary, "a", 60, Sampling(2.0, seed=seed)) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_the_common_random_state_is_left_alone(make_model, vocabulary):
    model = make_model()
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    text(model, vocabulary, "a", 5, Sampling(1.0))
    assert torch.equal(torch.rand(3), expected)


def test_characters_stream_one_by_one(make_model, vocabulary):
    model = make_model()
    steps = []
    model.register_forward_hook(lambda *_: steps.append("prefill"))
    model.tower.register_forward_hook(lambda *_: steps.append("tower"))
    stream = generate(model, vocabulary, "a", 1000, GREEDY)
    assert steps == []
    first = next(stream)
    assert steps == ["tower", "prefill"]
    assert first in vocabulary
    next(stream)
    assert steps == ["tower", "prefill", "tower"]
    stream.close()


def test_empty_prompt_starts_after_a_newline(make_model, vocabulary):
    model = make_model()
    assert text(model, vocabulary, "", 20, GREEDY) == text(model, vocabulary, "\n", 20, GREEDY)
    letters = Vocabulary("abcdefg")
    assert text(model, letters, "", 20, GREEDY) == text(model, letters, "a", 20, GREEDY)


def test_nothing_to_add(make_model, vocabulary):
    assert text(make_model(), vocabulary, "a", 0) == ""


def test_dropout_is_off_and_the_mode_comes_back(make_model, vocabulary):
    model = make_model(dropout=0.5).train()
    one, two = (text(model, vocabulary, "abc", 30, GREEDY) for _ in range(2))
    assert one == two
    assert model.training
    stream = generate(model, vocabulary, "abc", 30, GREEDY)
    next(stream)
    stream.close()
    assert model.training


def test_gradients_stay_on_for_the_caller(make_model, vocabulary):
    stream = generate(make_model(), vocabulary, "a", 3)
    next(stream)
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


def test_half_precision(make_model, vocabulary):
    model = make_model(dtype=torch.bfloat16)
    assert len(text(model, vocabulary, "abc", 12, Sampling(1.0))) == 12


def test_nan_logits_are_one_clear_line(make_model, vocabulary):
    model = make_model()
    with torch.no_grad():
        model.tower.norm_f.weight[0] = float("nan")
    with pytest.raises(GenerationError, match=r"NaN or infinite logits.*optim\.lr"):
        text(model, vocabulary, "a", 5)


def test_errors_come_at_the_call(make_model, vocabulary):
    model = make_model()
    with pytest.raises(TokenError, match=r"unknown character 'z'"):
        generate(model, vocabulary, "az")
    with pytest.raises(ConfigError, match="max_new_tokens is -1"):
        generate(model, vocabulary, "a", -1)
    with pytest.raises(ConfigError, match=r"vocabulary has 2 characters, the model 7"):
        generate(model, Vocabulary("ab"), "a")
    with pytest.raises(ConfigError, match=r"vocabulary has 8 tokens, the model 7"):
        generate(model, Syllables(), "ab")
    with pytest.raises(ConfigError, match="stop has an empty string"):
        generate(model, vocabulary, "a", stop=["b", ""])
    with pytest.raises(ConfigError, match="stop is the string 'ab'"):
        generate(model, vocabulary, "a", stop="ab")


class Syllables:
    """A codec whose tokens are pieces of text; id 7 ends a text, 1 and 2 are half a character."""

    end_of_text = 7
    pieces = ("ab", "", "é", "\n", "b\n", "\n\n", " ", "")

    def __len__(self):
        return len(self.pieces)

    def encode(self, text):
        assert text in ("", " ", "ab")
        return torch.tensor([self.pieces.index(text)] if text else [], dtype=torch.int64)

    def decode(self, ids):
        stream = self.stream()
        return "".join(stream.push(int(id)) for id in ids) + stream.finish()

    def stream(self):
        return SyllableStream()


class SyllableStream:
    half = False

    def push(self, id):
        before, self.half = self.half, id == 1
        if id == 2:
            return "é" if before else "?"
        return ("?" if before else "") + Syllables.pieces[id]

    def finish(self):
        return "?" if self.half else ""


def choosing(model, monkeypatch, ids):
    """Make a model choose these ids one after the other."""
    script = iter(ids)

    def logits(hidden):
        return torch.eye(model.vocab_size)[next(script)].expand(len(hidden), -1)

    monkeypatch.setattr(model, "logits", logits)


def test_tokens_become_text_when_their_characters_are_complete(make_model, monkeypatch):
    model = make_model(vocab_size=9)  # a row more than there are tokens
    choosing(model, monkeypatch, [1, 2, 0, 1, 3])
    assert list(generate(model, Syllables(), "ab", 5, GREEDY)) == ["é", "ab", "?\n"]
    choosing(model, monkeypatch, [0, 1])
    assert list(generate(model, Syllables(), "ab", 2, GREEDY)) == ["ab", "?"]


def test_the_end_of_a_text_ends_it(make_model, monkeypatch):
    model = make_model(vocab_size=8)
    choosing(model, monkeypatch, [0, 6, 7, 0, 0])
    assert list(generate(model, Syllables(), "ab", 5, GREEDY)) == ["ab", " "]


def test_a_character_that_was_cut_in_two_is_completed(make_model, monkeypatch):
    model = make_model(vocab_size=8)
    texts = new_texts(model, Syllables())
    choosing(model, monkeypatch, [1])
    assert text(model, Syllables(), "ab", 1, GREEDY, texts=texts) == "?"
    choosing(model, monkeypatch, [2])
    assert text(model, Syllables(), "", 1, GREEDY, texts=texts) == "é"


@pytest.mark.parametrize(
    ("ids", "stop", "pieces"),
    [
        ([0, 4, 3, 0], ("\n\n",), ["ab", "b"]),
        ([0, 4, 0, 5], ("\n\n",), ["ab", "b", "\nab"]),
        ([0, 4, 6, 3], ("\n\n", "a"), []),
        ([4, 6, 4, 6], ("\n b\n \n",), ["b", "\n b\n "]),  # the beginning of one, at the end
        ([1, 2, 0], ("é",), []),
    ],
)
def test_stop_strings_across_tokens(make_model, monkeypatch, ids, stop, pieces):
    model = make_model(vocab_size=8)
    choosing(model, monkeypatch, ids)
    assert list(generate(model, Syllables(), "ab", len(ids), GREEDY, stop)) == pieces


def test_stop_strings_end_a_text_of_characters(make_model, vocabulary):
    model, sampling = make_model(), Sampling(3.0)
    whole = text(model, vocabulary, "abc", 300, sampling)
    for stop in ("d", "ab", "\nf"):
        assert stop in whole
        assert text(model, vocabulary, "abc", 300, sampling, (stop,)) == whole.split(stop)[0]
    assert text(model, vocabulary, "abc", 300, sampling, ("none",)) == whole


def test_an_empty_prompt_of_a_tokenizer(make_model, monkeypatch):
    model, codec = make_model(vocab_size=8), Syllables()
    texts = new_texts(model, codec)
    text(model, codec, "", 1, GREEDY, texts=texts)
    assert texts.seen[0].nonzero()[-1].item() == 7
    monkeypatch.setattr(codec, "end_of_text", None)
    with pytest.raises(TokenError, match=r"prompt is empty.*give a prompt"):
        generate(model, codec, "", 1)


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(2.0, seed=3)])
def test_tomorrow_the_text_goes_on(make_model, vocabulary, tmp_path, sampling):
    model = make_model()
    expected = text(model, vocabulary, "fad", 40, sampling)
    texts = new_texts(model, vocabulary, sampling)
    found = text(model, vocabulary, "fad", 15, sampling, texts=texts)
    save_state(tmp_path / "state", texts)
    again = load_state(tmp_path / "state", model)
    assert found + text(model, vocabulary, "", 25, sampling, texts=again) == expected
    # with more of a prompt: what a text of all of it would be followed by
    again = load_state(tmp_path / "state", model)
    more = text(model, vocabulary, "bed", 20, GREEDY, texts=again)
    assert more == text(model, vocabulary, "fad" + found + "bed", 20, GREEDY)


def test_texts_of_another_model(make_model, vocabulary):
    model = make_model()
    with pytest.raises(ConfigError, match="texts are of another model"):
        generate(model, vocabulary, "a", texts=new_texts(make_model(), vocabulary))
    model = make_model(vocab_size=9)
    with pytest.raises(ConfigError, match="written in 9 different tokens, the vocabulary has 8"):
        generate(model, Syllables(), "ab", texts=Texts(model))


def test_package_exports_the_function():
    assert callable(generate_function)
