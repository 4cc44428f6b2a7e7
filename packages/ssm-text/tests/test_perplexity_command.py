from __future__ import annotations

import json
import math
import shutil

import pytest
import torch

from ssm_core.cli import main
from ssm_core.errors import ConfigError
from ssm_core.train.restore import load_run
from ssm_text.data import pieces
from ssm_text.data.tokenizer import Tokenizer
from ssm_text.data.vocabulary import Vocabulary
from ssm_text.errors import TokenError
from ssm_text.perplexity_command import encode_file, figures


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("abcdefgh\nabcdefgh\nhgfedcba\n" * 4)
    return path


def perplexity(capsys, *words: object) -> dict[str, float]:
    assert main(["perplexity", *map(str, words), "--json"]) == 0
    found: dict[str, float] = json.loads(capsys.readouterr().out)
    return found


def test_figures_are_those_of_the_model(trained_run, text_file, capsys):
    restored = load_run(trained_run)
    text = text_file.read_text()
    ids = Vocabulary(restored.info.labels).encode(text)
    with torch.no_grad():
        logits = restored.module(ids.unsqueeze(0))[0, :-1].double()
    nats = -logits.log_softmax(-1).gather(1, ids[1:, None]).sum().item()
    found = perplexity(capsys, trained_run, text_file)
    count = len(text) - 1
    assert found["tokens"] == found["characters"] == found["bytes"] == count
    assert found["nats_per_token"] == pytest.approx(nats / count, rel=1e-4)
    assert found["perplexity"] == pytest.approx(math.exp(nats / count), rel=1e-4)
    bits = pytest.approx(nats / count / math.log(2), rel=1e-4)
    assert found["bits_per_character"] == found["bits_per_byte"] == bits
    # it learnt abcdefgh and not hgfedcba; with one token of context it knows less
    assert found["perplexity"] > 1.5
    windows = perplexity(capsys, trained_run, text_file, "--context", "1")
    assert windows["perplexity"] != found["perplexity"]


def test_table(trained_run, text_file, capsys):
    assert main(["perplexity", str(trained_run), str(text_file), "--context", "9"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines[:3]] == ["107"] * 3
    assert lines[-1].startswith("bits per byte")


def test_bytes_and_characters_of_tokens(tmp_path, make_model):
    text = "größe über alles\n" * 5
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    tokenizer = Tokenizer.train([text], 280)
    encoded = encode_file(tokenizer, tmp_path / "a.txt")
    assert (encoded.characters, encoded.bytes) == (len(text), len(text.encode()))
    assert encoded.exact
    assert tokenizer.decode(encoded.ids) == text
    model = make_model(len(tokenizer) + 3)  # more rows than tokens, as in published models
    found = figures(model, tokenizer, encoded, None, None)
    first = tokenizer.decode(encoded.ids[:1])
    assert found["characters"] == len(text) - len(first)
    assert found["bytes"] == len(text.encode()) - len(first.encode())
    nats = found["nats_per_token"] * found["tokens"]
    assert found["bits_per_byte"] == pytest.approx(nats / math.log(2) / found["bytes"])
    with pytest.raises(ConfigError, match=rf"has {len(tokenizer)} tokens, the model 4"):
        figures(make_model(4), tokenizer, encoded, None, None)


def test_a_text_that_a_tokenizer_changes_is_noted(tmp_path):
    import tokenizers
    from tokenizers import models, pre_tokenizers

    small = tokenizers.Tokenizer(models.WordLevel({"<unk>": 0, "a": 1}, unk_token="<unk>"))
    small.pre_tokenizer = pre_tokenizers.Whitespace()
    (tmp_path / "a.txt").write_text("a b")
    assert not encode_file(Tokenizer(small), tmp_path / "a.txt").exact


def test_unknown_characters_are_counted_in_the_whole_file(tmp_path, monkeypatch):
    monkeypatch.setattr(pieces.pieces_of, "__defaults__", (10,))
    (tmp_path / "a.txt").write_text("ab ab ab ax\nab\nab ay\nab ab ab ab ax\nab\n")
    assert len(list(pieces.pieces_of(tmp_path / "a.txt"))) > 2
    with pytest.raises(TokenError, match=r"a\.txt: unknown characters 'x', 'y': 2 .* in 3 places"):
        encode_file(Vocabulary("ab \n"), tmp_path / "a.txt")


def test_bad_input_is_one_line(trained_run, text_file, tmp_path, capsys):
    def error_of(*words: object) -> str:
        assert main(["perplexity", *map(str, words)]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1
        return captured.err

    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "one.txt").write_text("a")
    (tmp_path / "other.txt").write_text("abcxyz")
    (tmp_path / "image.txt").write_bytes(b"\x89PNG\xff")
    assert "empty.txt: the text is empty" in error_of(trained_run, tmp_path / "empty.txt")
    assert "the text has 1 tokens" in error_of(trained_run, tmp_path / "one.txt")
    message = error_of(trained_run, tmp_path / "other.txt")
    assert "other.txt: unknown characters 'x', 'y', 'z': 3 different in 3 places" in message
    assert "image.txt: not UTF-8" in error_of(trained_run, tmp_path / "image.txt")
    assert "nowhere.txt: no such file" in error_of(trained_run, tmp_path / "nowhere.txt")
    assert "context is 0" in error_of(trained_run, text_file, "--context", "0")
    assert "stride is 3" in error_of(trained_run, text_file, "--stride", "3")
    assert "abacus" in error_of(trained_run, text_file, "--device", "abacus")
    assert str(tmp_path / "none") in error_of(tmp_path / "none", text_file)
    shutil.copytree(trained_run, tmp_path / "run")
    (tmp_path / "run" / "model.safetensors").write_bytes(b"x")
    assert "damaged" in error_of(tmp_path / "run", text_file)
