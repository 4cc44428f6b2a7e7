from __future__ import annotations

import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssm_core.errors import ConfigError
from ssm_core.train.batches import train_loader
from ssm_core.train.options import LoaderOptions
from ssm_text.data.synthetic import (
    CopyingConfig,
    SyntheticConfig,
    build_copying,
    build_induction_heads,
    build_selective_copying,
)
from ssm_text.data.windows import IGNORED

SMALL = {"train_examples": 12, "eval_examples": 40}
BUILD = {
    "copying": lambda seed=0: build_copying(CopyingConfig(**SMALL, seed=seed)),
    "selective": lambda seed=0: build_selective_copying(CopyingConfig(**SMALL, seed=seed)),
    "induction": lambda seed=0: build_induction_heads(SyntheticConfig(**SMALL, seed=seed)),
}
sizes = st.tuples(st.integers(2, 20), st.integers(1, 8), st.integers(2, 62))


def rows(bundle):
    """The evaluation examples as texts and (place, answer)s."""
    labels = bundle.info.labels
    for i in range(len(bundle.evaluation)):
        inputs, targets = bundle.evaluation[i]
        assert inputs.dtype == targets.dtype == torch.int64
        assert inputs.shape == targets.shape == bundle.info.input_shape
        places = (targets != IGNORED).nonzero().flatten().tolist()
        answers = [(place, labels[targets[place]]) for place in places]
        yield "".join(labels[j] for j in inputs), answers


@settings(max_examples=30, deadline=None)
@given(sizes)
def test_copying(size):
    length, tokens, vocabulary = size
    tokens = min(tokens, length)
    config = CopyingConfig(length, vocabulary, 1, 5, tokens=tokens)
    for text, answers in rows(build_copying(config)):
        data = text[:tokens]
        assert text == data + "." * (length - tokens) + "?" * tokens
        assert answers == list(zip(range(length, length + tokens), data, strict=True))


@settings(max_examples=30, deadline=None)
@given(sizes)
def test_selective_copying(size):
    length, tokens, vocabulary = size
    tokens = min(tokens, length)
    config = CopyingConfig(length, vocabulary, 1, 5, tokens=tokens)
    for text, answers in rows(build_selective_copying(config)):
        data = text[:length].replace(".", "")
        assert len(data) == tokens
        assert text[length:] == "?" * tokens
        assert answers == list(zip(range(length, length + tokens), data, strict=True))


@settings(max_examples=30, deadline=None)
@given(sizes)
def test_induction_heads(size):
    length, _, vocabulary = size
    bundle = build_induction_heads(SyntheticConfig(length, vocabulary, 1, 5))
    assert bundle.info.n_outputs == vocabulary + 1
    for text, answers in rows(bundle):
        assert text.count("?") == 2
        assert text[-1] == "?"
        follower = text[text.index("?") + 1]
        assert follower != "?"
        assert answers == [(length, follower)]


def test_data_tokens_and_places_are_spread_evenly():
    config = CopyingConfig(8, 4, eval_examples=4000, tokens=2)
    examples = build_selective_copying(config).evaluation
    inputs, _ = examples.__getitems__(range(4000))
    for token in range(4):
        shares = (inputs[:, :8] == token).double().mean(0)
        torch.testing.assert_close(shares, torch.full_like(shares, 1 / 16), atol=0.02, rtol=0)


@pytest.mark.parametrize("name", BUILD)
def test_evaluation_is_always_the_same(name):
    first, again, other = (BUILD[name](seed).evaluation for seed in (0, 0, 1))
    torch.manual_seed(99)
    assert torch.equal(first.inputs, again.inputs)
    assert not torch.equal(first.inputs, other.inputs)
    inputs, targets = first.__getitems__([3, 1])
    assert torch.equal(inputs[0], first[3][0])
    assert torch.equal(targets[1], first[1][1])


@pytest.mark.parametrize("name", BUILD)
def test_training_examples_are_new_in_every_epoch_and_the_same_when_resumed(name):
    def epochs():
        loader = train_loader(BUILD[name](), LoaderOptions(batch_size=4), 7, 0, 1)
        for epoch in range(2):
            loader.sampler.epoch = epoch
            yield [inputs for inputs, _ in loader]

    (first, second), (again, _) = epochs(), epochs()
    assert [len(first), *first[0].shape] == [3, 4, *BUILD[name]().info.input_shape]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    every = [text for batch in (*first, *second) for text in batch]
    assert len({tuple(text.tolist()) for text in every}) == 24

    loader = train_loader(BUILD[name](), LoaderOptions(batch_size=4), 7, 0, 1)
    next(iterator := iter(loader))
    state = loader.state_dict()
    resumed = train_loader(BUILD[name](), LoaderOptions(batch_size=4), 7, 0, 1)
    resumed.load_state_dict(state)
    assert torch.equal(next(iter(resumed))[0], next(iterator)[0])


@pytest.mark.parametrize("name", BUILD)
def test_loader_processes_can_have_it(name):
    data = pickle.loads(pickle.dumps(BUILD[name]().train))
    torch.manual_seed(3)
    inputs, _ = data.__getitems__([0, 1])
    torch.manual_seed(3)
    assert torch.equal(BUILD[name]().train.__getitems__([0, 1])[0], inputs)


def test_one_training_example():
    data = BUILD["copying"]().train
    inputs, targets = data[0]
    assert inputs.shape == targets.shape == (72,)
    for index in (-1, 12):
        with pytest.raises(IndexError, match=f"example {index} of 12"):
            data[index]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 1}, "data.length is 1, expected 2 or more"),
        ({"train_examples": 0}, "data.train_examples is 0, expected 1 or more"),
        ({"eval_examples": 0}, "data.eval_examples is 0, expected 1 or more"),
        ({"vocabulary": 63}, "data.vocabulary is 63, expected 2 to 62"),
        ({"seed": -1}, "data.seed is -1, expected 0"),
        ({"tokens": 0}, "data.tokens is 0, expected 1 to data.length = 64"),
        ({"length": 4, "tokens": 5}, "data.tokens is 5, expected 1 to data.length = 4"),
    ],
)
def test_config_refuses(options, message):
    with pytest.raises(ConfigError, match=message):
        CopyingConfig(**options)
