from __future__ import annotations

import pytest
import torch

from ssm_core.errors import ConfigError
from ssm_text import Sampling, Vocabulary, generate
from ssm_text import generate as generate_function
from ssm_text.errors import GenerationError, TokenError
from ssm_text.generate import PREFILL_STEPS, prefill

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
    from ssm_text.sampling import draw

    model, sampling = make_model(), Sampling(temperature=1.5, top_k=4, seed=5)
    generator = torch.Generator().manual_seed(5)
    ids = vocabulary.encode("bed")
    for _ in range(20):
        chosen = draw(model(ids.unsqueeze(0))[0, -1], sampling, generator)
        ids = torch.cat([ids, torch.tensor([chosen])])
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


@torch.inference_mode()
@pytest.mark.parametrize("mixer", ["mamba", "rnn"])
def test_state_does_not_grow(make_model, vocabulary, mixer):
    model = make_model(mixer=mixer)

    def size(state) -> int:
        return sum(t.untyped_storage().nbytes() for layer in state for t in layer)

    _, state = prefill(model, vocabulary.encode("a"))
    small = size(state)
    _, state = prefill(model, vocabulary.encode("ab" * PREFILL_STEPS))
    assert size(state) == small
    for _ in range(50):
        _, state = model.step(torch.tensor([1]), state)
    assert size(state) == small


def test_long_prompt_is_read_in_chunks(make_model, vocabulary):
    model = make_model()
    ids = vocabulary.encode(("abcdef\n" * PREFILL_STEPS)[: PREFILL_STEPS + 3])
    logits, _ = prefill(model, ids)
    with torch.no_grad():
        expected = model(ids.unsqueeze(0))[0, -1]
    torch.testing.assert_close(logits, expected, rtol=1e-7, atol=1e-7)


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


def test_package_exports_the_function():
    assert callable(generate_function)
