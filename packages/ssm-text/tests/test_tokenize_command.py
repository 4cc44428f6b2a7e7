from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch

import ssm_text.tokenize_command as command
from ssm_core.cli import main
from ssm_text.data.text_file import TextFileConfig, build_text_file
from ssm_text.data.token_file import TokenFileConfig, build_token_file
from ssm_text.data.token_folder import TokenFolder
from ssm_text.data.tokenizer import Tokenizer

WORDS = ["ship", "sea", "storm", "harbour", "lantern", "wind", "größe", "night"]


def write_text(path, count: int = 400) -> str:
    draw = random.Random(0)
    text = "".join(draw.choice(WORDS) + draw.choice([" ", " ", "\n", ", "]) for _ in range(count))
    path.write_text(text, encoding="utf-8")
    return text


def tokens_of(folder, split: str) -> list[int]:
    index = json.loads((folder / "tokens.json").read_text())
    return np.fromfile(
        folder / f"{split}.bin", "<u2" if index["dtype"] == "uint16" else "<u4"
    ).tolist()


def run(*words) -> int:
    return main(["tokenize", *map(str, words)])


def test_characters_are_the_data_of_text_file(tmp_path, capsys):
    text = write_text(tmp_path / "a.txt")
    assert run(tmp_path / "a.txt", "--out", tmp_path / "out", "--tokenizer", "chars") == 0
    theirs = build_token_file(TokenFileConfig(context=16, stride=3, path=str(tmp_path / "out")))
    ours = build_text_file(TextFileConfig(context=16, stride=3, path=str(tmp_path / "a.txt")))
    assert theirs.info == ours.info
    assert len(theirs.train) == len(ours.train)
    for index in (0, 5, len(ours.train) - 1):
        assert all(map(torch.equal, theirs.train[index], ours.train[index]))
    # behind the last document, and so held out, stands a newline
    cut = int(0.9 * len(text))
    ids = torch.tensor(tokens_of(tmp_path / "out", "validation"))
    assert "".join(ours.info.labels[i] for i in ids) == text[cut:] + "\n"
    out = capsys.readouterr().out
    assert f"{cut} tokens in {tmp_path / 'out' / 'train.bin'}" in out


def test_learnt_tokens(tmp_path, capsys, monkeypatch):
    (tmp_path / "texts").mkdir()
    first, second = (write_text(tmp_path / "texts" / f"{n}.md", 100 * n) for n in (1, 3))
    monkeypatch.setattr(command, "pieces_of", lambda file: command_pieces(file, 500))
    words = ["--out", tmp_path / "out", "--tokenizer", "bpe:290", "--pattern", "*.md"]
    assert run(tmp_path / "texts", *words, "--train-frac", "0.5") == 0
    folder = TokenFolder.open(tmp_path / "out")
    codec = folder.codec
    assert isinstance(codec, Tokenizer)
    train, held_out = (tokens_of(tmp_path / "out", s) for s in ("train", "validation"))
    cut = int((len(first) + len(second)) * 0.5) - len(first)
    assert codec.decode(train) == first + "<|endoftext|>" + second[:cut]
    assert codec.decode(held_out) == second[cut:] + "<|endoftext|>"
    index = json.loads((tmp_path / "out" / "tokens.json").read_text())
    assert index["dtype"] == "uint16"
    assert index["tokens"] == {"train": len(train), "validation": len(held_out)}
    assert index["characters_of"] == {"train": len(first) + cut, "validation": len(second) - cut}
    assert index["bytes_of"]["validation"] == len(second[cut:].encode())
    assert [source["name"] for source in index["sources"]] == ["1.md", "3.md"]
    assert codec.end_of_text == index["end_of_text"]


def command_pieces(file, size):
    from ssm_text.data.pieces import pieces_of

    return pieces_of(file, size)


def test_large_vocabularies_need_four_bytes(tmp_path):
    import tokenizers
    from tokenizers import models, pre_tokenizers

    write_text(tmp_path / "a.txt")
    vocab = {f"w{i}": i for i in range(70_000)} | {w: 70_000 + i for i, w in enumerate(WORDS)}
    tokenizer = tokenizers.Tokenizer(models.WordLevel(vocab, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    Tokenizer(tokenizer).save(tmp_path / "tokenizer")
    words = ["--out", tmp_path / "out", "--tokenizer", tmp_path / "tokenizer"]
    assert run(tmp_path / "a.txt", *words) == 0
    assert TokenFolder.open(tmp_path / "out").dtype == "<u4"
    ids = tokens_of(tmp_path / "out", "train")
    assert max(ids) >= 70_000
    windows = build_token_file(TokenFileConfig(context=8, path=str(tmp_path / "out"))).train
    assert windows[0][0].tolist() == ids[:8]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, MemoryError])
def test_a_stop_in_the_middle_leaves_nothing(tmp_path, monkeypatch, stop):
    write_text(tmp_path / "a.txt")

    def broken(file):
        yield "ship"
        raise stop

    words = ["--out", tmp_path / "out", "--tokenizer", "chars"]
    with monkeypatch.context() as patch:
        patch.setattr(command, "pieces_of", broken)
        assert run(tmp_path / "a.txt", *words) != 0
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert run(tmp_path / "a.txt", *words) == 0
    assert TokenFolder.open(tmp_path / "out").counts["train"] > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tokenizer", "bpe:many"], "expected a number behind bpe:"),
        (["--tokenizer", "bpe:20"], "vocab_size is 20, expected 257 or more"),
        (["--tokenizer", "./nowhere/tokenizer.json"], "nowhere/tokenizer.json: no such file"),
        (["--tokenizer", "chars", "--train-frac", "1"], "--train-frac is 1"),
        (["--tokenizer", "chars", "--pattern", "*.x"], "no file matches '*.x'"),
        ([], "required: tokenizer"),
    ],
)
def test_bad_options_are_one_line(tmp_path, capsys, words, message):
    write_text(tmp_path / "a.txt")
    assert run(tmp_path, "--out", tmp_path / "out", *words) == 2
    lines = capsys.readouterr().err.splitlines()
    assert message in lines[-1]
    assert not (tmp_path / "out").exists()


def test_a_folder_in_use_is_left_alone(tmp_path, capsys):
    write_text(tmp_path / "a.txt")
    words = [tmp_path / "a.txt", "--out", tmp_path / "out", "--tokenizer", "chars"]
    assert run(*words) == 0
    before = (tmp_path / "out" / "train.bin").stat().st_mtime_ns
    assert run(*words) == 2
    assert "exists and is not empty, expected a new folder" in capsys.readouterr().err
    assert (tmp_path / "out" / "train.bin").stat().st_mtime_ns == before
