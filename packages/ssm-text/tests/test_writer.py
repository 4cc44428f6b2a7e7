from __future__ import annotations

import json

import pytest
import torch

from ssm_core.errors import CheckpointError, ConfigError, DataError
from ssm_text import MambaLM, MambaLMConfig
from ssm_text.data.codec import TextCodec
from ssm_text.data.tokenizer import Tokenizer
from ssm_text.errors import TokenError
from ssm_text.generate import generate
from ssm_text.sampling import Sampling
from ssm_text.writer import load_writer


def tokenizer() -> Tokenizer:
    return Tokenizer.train(["the theory of the thing, then"] * 20, 270)


@pytest.fixture
def published(tmp_path):
    """The folder of a model with more rows than its tokenizer has tokens."""
    codec = tokenizer()
    torch.manual_seed(0)
    config = MambaLMConfig(d_model=8, n_layers=1, vocab_size=len(codec) + 3)
    model = MambaLM(config)
    model.save_pretrained(tmp_path / "model", format="huggingface")
    codec.save(tmp_path / "model")
    return tmp_path / "model"


def text_of(model, codec: TextCodec, prompt: str) -> str:
    return "".join(generate(model, codec, prompt, 30, Sampling(2.0)))


def test_the_folder_of_a_run(trained_run):
    model, codec = load_writer(trained_run)
    assert not model.training
    assert len(codec) == model.vocab_size
    assert text_of(model, codec, "abc")


def test_the_folder_of_a_published_model(published):
    model, codec = load_writer(published)
    assert len(codec) < model.vocab_size
    assert text_of(model, codec, "the theory") == text_of(
        *load_writer(str(published)), "the theory"
    )
    # as with a model of no further rows; an empty prompt begins after the end of a text
    assert text_of(model, codec, "")


def test_a_tokenizer_from_elsewhere(published, tmp_path):
    (published / "tokenizer.json").rename(tmp_path / "tokenizer.json")
    with pytest.raises(TokenError, match=r"no tokenizer\.json"):
        load_writer(published)
    for place in (tmp_path, tmp_path / "tokenizer.json"):
        model, codec = load_writer(published, tokenizer=str(place))
        assert text_of(model, codec, "the")


def test_what_is_missing_is_one_line(published, tmp_path):
    with pytest.raises(CheckpointError, match="none: no such folder"):
        load_writer(tmp_path / "none")
    (published / "tokenizer.json").write_text("{")
    with pytest.raises(DataError, match="not a tokenizer"):
        load_writer(published)
    (published / "config.json").write_text(json.dumps([]))
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_writer(published)
    with pytest.raises(ConfigError, match="--device abacus cannot be used here"):
        load_writer(published, "abacus")


def test_a_run_of_another_model_is_one_line(trained_run, monkeypatch):
    import ssm_core.train.restore as restore

    class Other:
        module = torch.nn.Identity()

    monkeypatch.setattr(restore, "load_run", lambda folder, device: Other)
    with pytest.raises(ConfigError, match="holds a Identity, expected a language model"):
        load_writer(trained_run)
