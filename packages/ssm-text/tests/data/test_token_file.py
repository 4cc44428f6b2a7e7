from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ssm_text.data.token_writer as token_writer
from ssm_core.cli import main
from ssm_core.errors import ConfigError, DataError
from ssm_core.train.checkpoint import load_weights
from ssm_core.train.restore import load_run
from ssm_text.data.codec import codec_of
from ssm_text.data.token_file import (
    TokenFileConfig,
    TokenWindows,
    build_token_file,
    keep_tokenizer,
    tokens_bundle,
)
from ssm_text.data.token_folder import TokenFolder
from ssm_text.data.token_writer import Piece, write_tokens
from ssm_text.data.tokenizer import Tokenizer
from ssm_text.data.vocabulary import Vocabulary
from ssm_text.data.windows import IGNORED, TextWindows, WindowOptions
from ssm_text.errors import TokenError

LETTERS = Vocabulary("\nabcdefgh")
LARGE = Vocabulary([chr(code) for code in range(301)])
TEXT = "abcdefgh\n" * 60


def make_folder(path: Path, codec=LETTERS, train: str = TEXT, held_out: str = TEXT[:90]) -> Path:
    pieces = [Piece("train", train, True), Piece("validation", held_out, True)]
    return write_tokens(path, codec, pieces, {"sources": []}).path


@pytest.fixture(scope="module")
def bpe() -> Tokenizer:
    return Tokenizer.train([TEXT], 270)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(data=st.data())
def test_windows_are_those_of_a_text_in_memory(tmp_path, data):
    ids = data.draw(st.lists(st.integers(0, 300), min_size=1, max_size=40))
    context = data.draw(st.integers(1, 12))
    stride, pad = data.draw(st.integers(1, context)), data.draw(st.booleans())
    dtype = data.draw(st.sampled_from(["<u2", "<u4"]))
    np.array(ids, dtype).tofile(tmp_path / "train.bin")
    folder = TokenFolder(tmp_path, dtype, {"train": len(ids)}, LARGE)
    ours = TokenWindows(folder, "train", context, stride, pad)
    theirs = TextWindows(torch.tensor(ids), context, stride, pad)
    assert len(ours) == len(theirs)
    if len(ours):
        indices = data.draw(st.lists(st.integers(0, len(ours) - 1), min_size=1, max_size=5))
        assert all(map(torch.equal, ours.__getitems__(indices), theirs.__getitems__(indices)))
        assert all(map(torch.equal, ours[indices[0]], theirs[indices[0]]))
    with pytest.raises(IndexError):
        ours[len(ours)]


def test_evaluation_covers_every_held_out_token_once(tmp_path):
    folder = make_folder(tmp_path / "tokens")
    bundle = tokens_bundle(folder, WindowOptions(context=13, stride=4))
    targets = [t for i in range(len(bundle.evaluation)) for t in bundle.evaluation[i][1].tolist()]
    held_out = np.fromfile(folder / "validation.bin", "<u2").tolist()
    assert [t for t in targets if t != IGNORED] == held_out[1:]


def test_loader_processes_open_the_file_themselves(tmp_path):
    windows = tokens_bundle(make_folder(tmp_path / "tokens"), WindowOptions(context=8)).train
    first = windows[0]
    stored = pickle.dumps(windows)
    assert len(stored) < 2000  # the path, not the tokens
    assert all(map(torch.equal, pickle.loads(stored)[0], first))


def test_writer_refuses_and_leaves_nothing(tmp_path):
    with pytest.raises(TokenError, match="unknown character 'z'"):
        make_folder(tmp_path / "tokens", train="abz")
    assert list(tmp_path.iterdir()) == []
    make_folder(tmp_path / "tokens")
    with pytest.raises(ConfigError, match="exists and is not empty, expected a new folder"):
        make_folder(tmp_path / "tokens")
    (tmp_path / "file").write_text("")
    with pytest.raises(
        DataError, match=r"tokens: cannot be written \((File exists|Not a directory)\)"
    ):
        make_folder(tmp_path / "file" / "tokens")


def test_documents_end(tmp_path, bpe):
    def ids(codec) -> list[int]:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        return np.fromfile(make_folder(folder, codec, "ab", "a") / "train.bin", "<u2").tolist()

    assert ids(bpe) == [*bpe.encode("ab").tolist(), bpe.end_of_text]
    assert ids(LETTERS) == [1, 2, 0]
    assert ids(Vocabulary("ab")) == [0, 1]  # no newline to end with


def change(path: Path, **values: object) -> None:
    index = json.loads((path / "tokens.json").read_text())
    (path / "tokens.json").write_text(json.dumps(index | values))


def test_damaged_folders_are_one_line(tmp_path, bpe):
    def error_of(damage, match: str, codec=bpe) -> None:
        shutil.rmtree(tmp_path / "tokens", ignore_errors=True)
        damage(make_folder(tmp_path / "tokens", codec))
        with pytest.raises(DataError, match=match) as caught:
            build_token_file(TokenFileConfig(context=8, path=str(tmp_path / "tokens"))).train[0]
        assert "\n" not in str(caught.value)

    def truncate(folder: Path) -> None:
        file = folder / "train.bin"
        file.write_bytes(file.read_bytes()[:-3])

    error_of(truncate, r"train\.bin: has \d+ bytes, expected \d+ .*truncated or of another type")
    error_of(lambda f: change(f, dtype="uint32"), r"expected \d+ \(\d+ tokens of uint32\)")
    error_of(lambda f: change(f, dtype="float32"), r"tokens\.json: damaged .*float32")
    error_of(lambda f: change(f, format="other"), "its format is 'other', expected 'ssm-tokens-1'")
    error_of(lambda f: (f / "tokens.json").write_text("["), r"tokens\.json: damaged")
    error_of(lambda f: (f / "tokens.json").write_text("[]"), r"tokens\.json: damaged")
    error_of(lambda f: (f / "tokens.json").unlink(), r"no tokens\.json in it.*ssm-train tokenize")
    error_of(lambda f: (f / "validation.bin").unlink(), r"validation\.bin: no such file")
    error_of(lambda f: (f / "tokenizer.json").unlink(), r"tokenizer\.json: no such file")
    error_of(
        lambda f: Tokenizer.train([TEXT], 260).save(f), r"has 260 tokens, expected \d+, those of"
    )

    def other_ids(folder: Path) -> None:
        size = (folder / "train.bin").stat().st_size
        (folder / "train.bin").write_bytes(b"\xff" * size)

    error_of(other_ids, r"train\.bin: holds the id 65535, expected 0 to 8, those of", LETTERS)


def test_missing_and_short_data_are_one_line(tmp_path):
    with pytest.raises(DataError, match=r"data\.path is empty.*ssm-train tokenize"):
        build_token_file(TokenFileConfig())
    with pytest.raises(DataError, match=r"nowhere: no tokens\.json in it"):
        build_token_file(TokenFileConfig(path=str(tmp_path / "nowhere")))
    folder = make_folder(tmp_path / "tokens", train="abc")
    with pytest.raises(DataError, match="4 tokens to train on and 91 held out, expected at least"):
        build_token_file(TokenFileConfig(context=8, path=str(folder)))


def test_a_run_resumes_exactly_and_needs_no_data_to_write(tmp_path, bpe, monkeypatch):
    folder = make_folder(tmp_path / "tokens", bpe)
    words = f"""fit stdlib-mamba --model.d_model 8 --model.n_layers 1 --loader.batch_size 4
        --trainer.max_steps 6 --trainer.checkpoint_every 2 --trainer.eval_every null
        --trainer.accelerator cpu --data token-file --data.context 8 --data.path {folder}"""
    fit = [*words.split(), "--out"]
    batch, calls = TokenWindows.__getitems__, []

    def interrupted(self, indices):
        calls.append(indices)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return batch(self, indices)

    assert main([*fit, str(tmp_path / "whole")]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(TokenWindows, "__getitems__", interrupted)
        assert main([*fit, str(tmp_path / "broken")]) == 130
    whole, broken = (tmp_path / name / "stdlib-mamba-001" for name in ("whole", "broken"))
    assert main([*fit, str(tmp_path / "broken"), "--resume", str(broken)]) == 0
    weights, again = (load_weights(run / "model.safetensors")[0] for run in (whole, broken))
    assert all(torch.equal(again[name], value) for name, value in weights.items())
    shutil.rmtree(folder)
    codec = codec_of(whole)
    assert codec.decode(codec.encode("fghabc")) == "fghabc"
    assert codec.end_of_text == bpe.end_of_text
    assert load_run(whole).module.vocab_size == len(codec) == len(bpe)


def test_the_tokenizer_of_a_run_is_not_replaced(tmp_path, bpe):
    run = tmp_path / "run"
    run.mkdir()
    keep_tokenizer(make_folder(tmp_path / "letters"), run)
    assert list(run.iterdir()) == []  # characters stand in info.json
    first = make_folder(tmp_path / "first", bpe)
    keep_tokenizer(first, run)
    keep_tokenizer(first, run)
    with pytest.raises(DataError, match="another tokenizer than that of the run"):
        keep_tokenizer(make_folder(tmp_path / "second", Tokenizer.train([TEXT], 262)), run)


def test_few_pieces_are_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(token_writer, "BATCH", 100)
    encode, encoded, ahead = LETTERS.encode, [], []

    def pieces():
        for i in range(50):
            ahead.append(30 * i - sum(encoded))
            yield Piece("train", "abc" * 10, False)

    def counted(self, text):
        encoded.append(len(text))
        return encode(text)

    monkeypatch.setattr(Vocabulary, "encode", counted)
    folder = write_tokens(tmp_path / "tokens", LETTERS, pieces(), {})
    assert folder.counts["train"] == 1500
    assert max(ahead) <= 130
