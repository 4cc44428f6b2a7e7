"""Generation: what is written, alone and in batches, and when it ends."""

from __future__ import annotations

import gc

import pytest
import torch
from generation_cases import MIXERS, expected_start, prompts_of

from ssm_core.errors import ConfigError
from ssm_text import MambaLM, MambaLMConfig, Sampling
from ssm_text.errors import GenerationError, TokenError
from ssm_text.generation import Ending, stream
from ssm_text.sampling import draw, generators
from ssm_text.state_tree import leaves
from ssm_text.texts import Texts, evaluating


@torch.no_grad()
def slow(model, ids: torch.Tensor, count: int, sampling: Sampling, stops=()) -> list[int]:
    """One text, the whole of it recomputed for every token."""
    own, new = generators(sampling, 1), []
    for _ in range(count):
        seen = torch.zeros(1, model.vocab_size, dtype=torch.bool)
        seen[0, ids] = True
        last = model(ids.unsqueeze(0))[:, -1, : model.vocab_size]
        chosen = draw(last, sampling, own, seen)
        ids = torch.cat([ids, chosen])
        new.append(int(chosen))
        if int(chosen) in stops:
            break
    return new


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 1.2, "seed": 5, "top_k": 6, "top_p": 0.95, "min_p": 0.01}
        | {"repetition_penalty": 1.3, "stop_ids": [3]},
    ],
)
def test_a_batch_of_any_lengths_is_each_text_alone_recomputed(make_model, mixer, options):
    model = make_model(mixer=mixer, mixer_options=MIXERS[mixer])
    prompts = prompts_of(5, 1, 9)
    together = model.generate(prompts, 15, **options)
    chosen = {k: v for k, v in options.items() if k != "stop_ids"}
    for i, (prompt, text) in enumerate(zip(prompts, together, strict=True)):
        sampling = Sampling(**{"temperature": 0.0} | chosen | {"seed": options.get("seed", 0) + i})
        expected = slow(model, prompt, 15, sampling, options.get("stop_ids", ()))
        assert text.tolist() == prompt.tolist() + expected
        alone = model.generate([prompt], 15, **options | {"seed": sampling.seed})
        assert torch.equal(alone[0], text)
    assert len(set(torch.cat(together).tolist())) > 2  # constant texts would prove little


@torch.no_grad()
@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_a_transformer_with_positions_writes_beyond_them(make_model, temperature):
    """Each text of a batch begins anew where it would alone, with the rest of what it saw."""
    model = make_model(mixer="attention", positions=8)
    prompts = prompts_of(3, 7, 12)
    for i, (prompt, text) in enumerate(
        zip(prompts, model.generate(prompts, 25, temperature=temperature), strict=True)
    ):
        own, ids = generators(Sampling(seed=i), 1), prompt
        for _ in range(25):
            window = ids[expected_start(len(ids), 8) :].unsqueeze(0)
            chosen = draw(model(window)[:, -1], Sampling(temperature), own)
            ids = torch.cat([ids, chosen])
        assert torch.equal(text, ids)


@pytest.mark.parametrize("temperature", [0.0, 2.0])
@pytest.mark.parametrize(
    "options",
    [
        {"mixer": "mamba2", "mixer_options": {"headdim": 4}},
        {"mixer": "mamba3", "mixer_options": {"headdim": 4}},
    ],
)
def test_published_kinds_of_models_generate(options, temperature):
    """With more rows than ids: what recomputing everything gives."""
    torch.manual_seed(0)
    model = MambaLM(MambaLMConfig(d_model=8, n_layers=2, vocab_size=7, **options)).double()
    with torch.no_grad():
        model.lm_head.weight.mul_(100)
    prompts = prompts_of(4, 1)
    for i, text in enumerate(model.generate(prompts, 12, temperature, seed=3)):
        expected = slow(model, prompts[i], 12, Sampling(temperature, seed=3 + i))
        assert text[len(prompts[i]) :].tolist() == expected


def test_a_tensor_gives_a_tensor(make_model):
    model, ids = make_model(), torch.stack(prompts_of(4, 4))
    grown = model.generate(ids, max_new_tokens=6)
    assert grown.shape == (2, 10)
    assert torch.equal(grown, torch.stack(model.generate(list(ids), 6)))
    assert torch.equal(grown[:, :4], ids)
    assert torch.equal(model.generate(ids, 0), ids)
    assert model.generate(ids[:0], 3).shape == (0, 4)
    assert model.generate([], 3) == []


def test_texts_end_after_stop_ids_and_padding_follows(make_model):
    model, ids = make_model(), torch.stack(prompts_of(3, 3, 3))
    free = model.generate(ids, 40, temperature=5.0)
    ended = model.generate(ids, 40, temperature=5.0, stop_ids=[2, 5], pad_id=6)
    ends = [next(i for i, t in enumerate(row) if i >= 3 and t in (2, 5)) for row in free.tolist()]
    assert len(set(ends)) > 1  # else there is no padding
    assert ended.shape[1] == max(ends) + 1  # no step after the last text has ended
    for row, whole, end in zip(ended.tolist(), free.tolist(), ends, strict=True):
        assert row[: end + 1] == whole[: end + 1]
        assert row[end + 1 :] == [6] * (len(row) - end - 1)
    again = model.generate(ids, 40, temperature=5.0, stop_ids=[5, 2])
    assert set(again[ends.index(min(ends)), min(ends) + 1 :].tolist()) == {5}


def test_what_comes_after_the_end_of_a_text_is_not_looked_at(make_model):
    """A text that has ended goes on through NaN, the others do not notice."""
    model = make_model()
    with torch.no_grad():
        likeliest = model(torch.arange(7).unsqueeze(1))[:, 0].argmax(1).tolist()
    other = next(id for id in range(7) if likeliest[id] != likeliest[0])
    texts = Texts(model, 2)
    texts.read([torch.tensor([0]), torch.tensor([other])])
    tokens = stream(texts, Sampling(0), Ending(3, stop_ids=[likeliest[0]], pad_id=6))
    next(tokens)
    texts.settle()
    going_on = torch.eye(7)[likeliest[other]]  # the other text gets a token that ends nothing
    texts.logits = torch.stack([going_on * torch.nan, going_on])
    assert next(tokens).tolist() == [6, likeliest[other]]
    texts.settle()
    texts.logits = texts.logits * torch.nan
    with pytest.raises(GenerationError, match="NaN or infinite logits"):
        next(tokens)


def test_rows_beyond_the_vocabulary_are_never_chosen(make_model, monkeypatch):
    model = make_model()
    ids = torch.stack(prompts_of(4, 4))
    expected = model.generate(ids, 12, temperature=1.5, top_k=5)
    narrow = type(model).logits

    def wide(self, hidden):
        logits = narrow(self, hidden)
        return torch.cat([logits, torch.full_like(logits[..., :3], 99.0)], dim=-1)

    monkeypatch.setattr(type(model), "logits", wide)
    assert torch.equal(model.generate(ids, 12, temperature=1.5, top_k=5), expected)


def test_fewer_ids_than_the_model_has(make_model):
    model = make_model()
    texts = Texts(model, 1, vocab_size=3)
    texts.read([torch.tensor([2, 0])])
    chosen = torch.cat(list(stream(texts, Sampling(3.0), Ending(60))))
    assert set(chosen.tolist()) == {0, 1, 2}
    with pytest.raises(TokenError, match="ids from 3 to 3, expected 0 to 2"):
        texts.read([torch.tensor([3])])
    with pytest.raises(ConfigError, match="vocab_size is 8, expected 1 to the model's 7"):
        Texts(model, 1, vocab_size=8)


def test_tokens_stream_one_by_one(make_model):
    model, reads = make_model(dropout=0.5).train(), []
    model.tower.register_forward_hook(lambda *_: reads.append(1))
    texts = Texts(model, 2)
    with evaluating(model):
        texts.read(prompts_of(2, 3))
    tokens = stream(texts, Sampling(0), Ending(1000))
    assert len(reads) == 1
    assert next(tokens).shape == (2,)
    assert len(reads) == 1  # the first comes from the prompt's logits
    next(tokens)
    assert len(reads) == 2
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    tokens.close()
    assert model.training


def test_modes_come_back_as_they_were(make_model):
    model = make_model(dropout=0.5).train()
    model.head.eval()
    modes = [module.training for module in model.modules()]
    ids = torch.stack(prompts_of(3, 3))
    one, two = (model.generate(ids, 20) for _ in range(2))
    assert torch.equal(one, two)  # without dropout
    assert [module.training for module in model.modules()] == modes


def test_the_common_random_state_is_left_alone(make_model):
    model = make_model()
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    model.generate(prompts_of(3), 5, temperature=1.0)
    assert torch.equal(torch.rand(3), expected)


def memory_after(model, marks: list[int]) -> list[tuple[int, int]]:
    """Bytes of the state and number of tensors alive after so many tokens."""
    texts, found = Texts(model, 2), []
    texts.read(prompts_of(1, 1))
    for count, _ in enumerate(stream(texts, Sampling(1.0), Ending(max(marks))), 1):
        if count in marks:
            size = sum(leaf.untyped_storage().nbytes() for leaf in leaves(texts.state))
            gc.collect()
            # not isinstance: it would ask objects that warn when looked at
            alive = sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())
            found.append((size, alive))
    return found


@pytest.mark.parametrize("mixer", ["mamba", "rnn"])
def test_memory_stays_flat(make_model, mixer):
    first, last = memory_after(make_model(n_layers=1, mixer=mixer), [100, 2000])
    assert first == last


def test_attention_shows_that_growth_would_be_seen(make_model):
    first, last = memory_after(make_model(n_layers=1, mixer="attention"), [10, 30])
    assert last[0] > 2 * first[0]
