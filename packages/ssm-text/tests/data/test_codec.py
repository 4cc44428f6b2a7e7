from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssm_core import DataInfo
from ssm_core.train.folder import write_static
from ssm_text.data.codec import TextCodec, codec_of
from ssm_text.data.vocabulary import Vocabulary
from ssm_text.errors import TokenError


@given(st.text(min_size=1))
def test_a_vocabulary_streams_each_character_at_once(text):
    codec: TextCodec = Vocabulary.of_text(text)
    assert isinstance(codec, TextCodec)
    stream = codec.stream()
    assert [stream.push(id) for id in codec.encode(text).tolist()] == list(text)
    assert stream.finish() == ""
    assert codec.end_of_text is None


def test_stream_refuses_ids_out_of_range():
    stream = Vocabulary("ab").stream()
    with pytest.raises(TokenError, match="id 2 has no character, expected 0 to 1"):
        stream.push(2)


def test_characters_of_a_run(tmp_path):
    info = DataInfo((8,), 3, ("a", "b", "\n"))
    write_static(tmp_path, "recipe: x\n", info)
    for source in (info, tmp_path, str(tmp_path)):
        codec = codec_of(source)
        assert isinstance(codec, Vocabulary)
        assert codec.characters == ("a", "b", "\n")


def test_no_codec_is_one_line(tmp_path):
    with pytest.raises(TokenError, match=r"this run: has no characters and no tokenizer\.json"):
        codec_of(DataInfo((8,), 3))
    with pytest.raises(TokenError, match=r"no tokenizer\.json and no info\.json"):
        codec_of(tmp_path)
