from __future__ import annotations

import hashlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssm_core.errors import DataError
from ssm_text.data.pieces import find_texts, pieces_of, survey
from ssm_text.data.tokenizer import Tokenizer


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text("ab \nü語", max_size=200), size=st.integers(1, 30))
def test_pieces_are_the_text(tmp_path, text, size):
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    pieces = list(pieces_of(tmp_path / "a.txt", size))
    assert "".join(pieces) == text
    assert all(pieces)
    assert all(len(piece) <= 3 * size for piece in pieces)


def test_tokens_of_pieces_are_those_of_the_whole(tmp_path):
    text = "one two\nthree  four\n\n\n  five six\nseven\n\neight nine ten\n" * 30
    tokenizer = Tokenizer.train([text], 280)
    (tmp_path / "a.txt").write_text(text)
    pieces = list(pieces_of(tmp_path / "a.txt", 100))
    assert len(pieces) > 10
    ids = [id for piece in pieces for id in tokenizer.encode(piece).tolist()]
    assert ids == tokenizer.encode(text).tolist()
    # negative control: cut anywhere, the tokens differ
    assert ids != [i for k in range(0, len(text), 100) for i in tokenizer.encode(text[k : k + 100])]


def test_survey(tmp_path):
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    first.write_bytes("\ufeffbä\r\n".encode())
    second.write_text("abc")
    found = survey([first, second])
    assert found.characters == 6
    digest = hashlib.sha256(second.read_bytes()).hexdigest()
    assert found.sources[1] == {"name": "b.txt", "bytes": 3, "sha256": digest}


def test_unreadable_texts_are_one_line(tmp_path):
    with pytest.raises(DataError, match=r"nowhere: no such file or folder; choose another path"):
        find_texts([tmp_path / "nowhere"], "*.txt")
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(DataError, match="the text is empty"):
        survey(find_texts([tmp_path], "*.txt"))
    (tmp_path / "a.txt").write_bytes(b"a" * 200_000 + b"\xff")
    with pytest.raises(DataError, match=r"a\.txt: not UTF-8 text \(byte 200000\)"):
        survey([tmp_path / "a.txt"])
    with pytest.raises(DataError, match=r"gone\.txt: cannot be read"):
        list(pieces_of(tmp_path / "gone.txt"))
