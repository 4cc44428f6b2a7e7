from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ssm_text.data.vocabulary import REPLACEMENT, Vocabulary
from ssm_text.errors import TokenError


@given(st.text(min_size=1))
def test_round_trip(text):
    vocabulary = Vocabulary.of_text(text)
    assert vocabulary.characters == tuple(sorted(set(text)))
    ids = vocabulary.encode(text)
    assert ids.dtype == torch.int64
    assert ids.tolist() == [vocabulary.characters.index(c) for c in text]
    assert vocabulary.decode(ids) == text


@given(st.permutations("abcxyz\U0001f600"), st.text("abcxyz\U0001f600"))
def test_order_of_the_characters_is_kept(characters, text):
    vocabulary = Vocabulary(characters)
    assert vocabulary.encode(text).tolist() == [characters.index(c) for c in text]


def test_unknown_characters_are_named():
    vocabulary = Vocabulary("abc")
    with pytest.raises(TokenError, match=r"unknown characters 'é', '€': .*3 characters.*'abc'"):
        vocabulary.encode("a€béa€")
    with pytest.raises(TokenError, match="unknown character 'd': "):
        vocabulary.encode("d")
    with pytest.raises(TokenError, match=r"'\\udcff'"):  # an undecodable byte of a command line
        vocabulary.encode("\udcff")


def test_many_unknown_characters_stay_one_line():
    with pytest.raises(TokenError) as caught:
        Vocabulary("\n").encode("\n" + "".join(map(chr, range(32, 127))))
    assert len(str(caught.value)) < 200
    assert "\n" not in str(caught.value)


def test_encode_replacing():
    vocabulary = Vocabulary(["a", "b", REPLACEMENT])
    assert vocabulary.encode_replacing("aéb\x00").tolist() == [0, 2, 1, 2]
    assert vocabulary.decode([0, 2]) == "a" + REPLACEMENT


def test_empty_text():
    assert Vocabulary("ab").encode("").tolist() == []
    assert Vocabulary("ab").decode([]) == ""


def test_contains_and_length():
    vocabulary = Vocabulary("ab")
    assert len(vocabulary) == 2
    assert "a" in vocabulary
    assert "c" not in vocabulary


@pytest.mark.parametrize("ids", [[2], [-1], torch.tensor([0, 5])])
def test_decode_refuses(ids):
    with pytest.raises(TokenError, match="expected 0 to 1"):
        Vocabulary("ab").decode(ids)


@pytest.mark.parametrize(
    ("characters", "message"),
    [
        ([], "0 characters"),
        (["a", "a"], "2 characters, 1 of them distinct"),
        (["a", "bc"], "'bc' is not a single character"),
        (["a", ""], "'' is not a single character"),
    ],
)
def test_refuses(characters, message):
    with pytest.raises(TokenError, match=message):
        Vocabulary(characters)
