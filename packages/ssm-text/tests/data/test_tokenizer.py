from __future__ import annotations

import json
import sys
from functools import cache

import pytest
import tokenizers
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers

from ssm_core.errors import ConfigError, DataError
from ssm_text.data.codec import TextCodec, codec_of
from ssm_text.data.tokenizer import Tokenizer
from ssm_text.errors import TokenError

TEXT = "the cat sat on the mat, the dog sat on the log; größe und übermut 語\n" * 20


@cache
def byte_level() -> Tokenizer:
    return Tokenizer.train([TEXT], 290)


@cache
def sentence_piece_like() -> Tokenizer:
    """Words with their space in front, unknown characters as bytes: Llama's arrangement."""
    characters = {c: -3.0 for c in "▁abcdehlorstuw"}
    words = {"▁the": -1.0, "▁cat": -1.5, "▁": -2.0} | characters
    pieces = [("<unk>", 0.0), ("</s>", 0.0), *((f"<0x{b:02X}>", -9.0) for b in range(256))]
    pieces += [(word, score) for word, score in words.items()]
    tokenizer = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return Tokenizer(tokenizer)


CODECS = [byte_level, sentence_piece_like]


@given(st.text())
@example("Größe 語 🙂 \r\n\t x")
@example("<|endoftext|>")
def test_round_trip_of_any_text(text):
    codec: TextCodec = byte_level()
    ids = codec.encode(text)
    assert ids.dtype == torch.int64
    assert ids.dim() == 1
    assert codec.decode(ids) == text
    assert codec.decode(ids.tolist()) == text


def streamed(codec: TextCodec, ids: list[int]) -> list[str]:
    stream = codec.stream()
    return [*(stream.push(id) for id in ids), stream.finish()]


@pytest.mark.parametrize("make", CODECS)
@given(text=st.text("the cat語🙂é ", max_size=30))
def test_streamed_pieces_are_the_text(make, text):
    codec = make()
    ids = codec.encode(text).tolist()
    assert "".join(streamed(codec, ids)) == codec.decode(ids)


@given(st.lists(st.integers(0, len(byte_level()) - 1), max_size=40))
@example([0xE2] * 9)
def test_any_tokens_stream_as_they_decode(ids):
    codec = byte_level()
    assert "".join(streamed(codec, ids)) == codec.decode(ids)


@given(st.lists(st.binary(min_size=1, max_size=4), max_size=12))
def test_any_bytes_stream_as_they_decode(chunks):
    """Broken UTF-8 of every kind, a byte per token: what an untrained model writes."""
    codec = byte_level()
    letters = {b: codec.encode(chr(b)).tolist() for b in range(128)}
    of_byte = {b: ids[0] for b, ids in letters.items() if len(ids) == 1}
    for character in "éü語🙂\u07ff\uffff\U0010ffff":
        for byte, id in zip(character.encode(), codec.encode(character).tolist(), strict=False):
            if len(codec.encode(character)) == len(character.encode()):
                of_byte[byte] = id
    known = sorted(of_byte)
    ids = [of_byte[known[byte % len(known)]] for chunk in chunks for byte in chunk]
    assert "".join(streamed(codec, ids)) == codec.decode(ids)


def test_half_a_character_is_held_back():
    codec = byte_level()
    ids = codec.encode("a🙂b").tolist()
    assert len(ids) == 6  # one token per byte of the emoji
    assert streamed(codec, ids) == ["a", "", "", "", "🙂", "b", ""]
    assert streamed(codec, ids[:3]) == ["a", "", "", "\N{REPLACEMENT CHARACTER}"]


def test_bytes_without_end_do_not_pile_up():
    codec = byte_level()
    first = codec.encode("🙂").tolist()[0]
    pieces = streamed(codec, [first] * 100)
    assert max(map(len, pieces)) < 6
    assert "".join(pieces) == "\N{REPLACEMENT CHARACTER}" * 100


def test_spaces_between_streamed_words_stay():
    codec = sentence_piece_like()
    ids = codec.encode("the cat the cat").tolist()
    assert len(ids) == 4
    # negative control: decoded one by one the spaces are lost
    assert "".join(codec.decode([id]) for id in ids) == "thecatthecat"
    assert streamed(codec, ids) == ["the", " cat", " the", " cat", ""]


def test_training_gives_the_same_tokens_again():
    again = Tokenizer.train([TEXT], 290)
    assert torch.equal(again.encode(TEXT), byte_level().encode(TEXT))
    assert len(byte_level().encode(TEXT)) < len(TEXT) / 2
    assert len(again) == 290


def test_save_and_load(tmp_path):
    codec = byte_level()
    file = codec.save(tmp_path / "folder")
    for loaded in (
        Tokenizer.from_file(file),
        Tokenizer.from_pretrained(file),
        Tokenizer.from_pretrained(str(tmp_path / "folder")),
        codec_of(tmp_path / "folder"),
    ):
        assert isinstance(loaded, Tokenizer)
        assert torch.equal(loaded.encode(TEXT), codec.encode(TEXT))
        assert loaded.end_of_text == codec.end_of_text
        assert len(loaded) == len(codec)


def test_end_of_text(tmp_path):
    codec = byte_level()
    assert codec.encode("<|endoftext|>").tolist() == [codec.end_of_text]
    assert sentence_piece_like().end_of_text == 1
    bare = tokenizers.Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    assert Tokenizer(bare).end_of_text is None
    assert Tokenizer(bare, "b").end_of_text == 1
    with pytest.raises(TokenError, match="end of text is 'c', which is no token"):
        Tokenizer(bare, "c")
    # what a published model's configuration says wins
    codec.save(tmp_path)
    config = {"eos_token": {"content": "a", "lstrip": False}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert codec_of(tmp_path).end_of_text == codec.encode("a").item()
    (tmp_path / "tokenizer_config.json").write_text("[")
    with pytest.raises(DataError, match=r"tokenizer_config\.json: damaged"):
        codec_of(tmp_path)


def test_unusable_files_are_one_line(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"nowhere/tokenizer\.json: no such file"):
        Tokenizer.from_pretrained(tmp_path / "nowhere" / "tokenizer.json")
    with pytest.raises(DataError, match=r"tokenizer\.json: no such file"):
        Tokenizer.from_pretrained(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises(DataError, match=r"runs/typo: no such file"):  # the hub is not asked
        Tokenizer.from_pretrained("runs/typo")
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"}')
    with pytest.raises(DataError, match=r"tokenizer\.json: not a tokenizer \(") as caught:
        Tokenizer.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


def test_hub(tmp_path, monkeypatch):
    asked = []

    class Hub:
        @staticmethod
        def hf_hub_download(name: str, file: str) -> str:
            asked.append((name, file))
            if name != "some/model-2.8b":
                raise OSError("no network\nhere")
            return str(byte_level().save(tmp_path))

    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub)
    assert len(Tokenizer.from_pretrained("some/model-2.8b")) == 290
    with pytest.raises(DataError, match=r"tokenizer 'other': .*hub \(no network here\); give"):
        Tokenizer.from_pretrained("other")
    assert asked == [("some/model-2.8b", "tokenizer.json"), ("other", "tokenizer.json")]


@pytest.mark.parametrize("library", ["tokenizers", "huggingface_hub"])
def test_missing_library_is_one_line(tmp_path, monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    extra = {"tokenizers": "tokenizers", "huggingface_hub": "hub"}[library]
    source = tmp_path if library == "tokenizers" else "some/model"
    with pytest.raises(ConfigError, match=rf"needs {library}.* pip install 'ssm-text\[{extra}\]'"):
        Tokenizer.from_pretrained(source)


@pytest.mark.parametrize("ids", [[290], [-1], torch.tensor([0, 5000])])
def test_ids_out_of_range_are_refused(ids):
    with pytest.raises(TokenError, match="expected 0 to 289"):
        byte_level().decode(ids)


def test_other_refusals():
    with pytest.raises(TokenError, match="half a surrogate pair"):
        byte_level().encode("\udcff")
    with pytest.raises(ConfigError, match="vocab_size is 256, expected 257 or more"):
        Tokenizer.train([TEXT], 256)
    with pytest.raises(TokenError, match="has no tokens"):
        Tokenizer(tokenizers.Tokenizer(models.BPE()))
