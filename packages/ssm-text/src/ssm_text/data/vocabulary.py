"""Characters and their ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from ssm_text.errors import TokenError

#: stands for every character outside of a restricted vocabulary (Unicode's replacement character)
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class Vocabulary:
    """The characters a model knows, a `TextCodec`; a character's id is its place among them.

    Args:
        characters: distinct single characters, e.g. the sorted set of a text.
    Raises:
        TokenError: none, a repeated one, or an entry that is not one character.
    """

    #: no character separates documents
    end_of_text: int | None = None

    def __init__(self, characters: Sequence[str]) -> None:
        wrong = [c for c in characters if len(c) != 1]
        if wrong:
            raise TokenError(f"vocabulary: {wrong[0]!r} is not a single character")
        if not characters or len(set(characters)) != len(characters):
            raise TokenError(
                f"vocabulary: {len(characters)} characters, {len(set(characters))} of them "
                "distinct; expected at least one and no repetition"
            )
        self.characters = tuple(characters)
        self._codes = np.array([ord(c) for c in characters], dtype=np.uint32)
        self._order = np.argsort(self._codes)

    @classmethod
    def of_text(cls, text: str) -> Vocabulary:
        """The sorted set of the characters of `text`."""
        codes = np.unique(_code_points(text))
        return cls([chr(code) for code in codes])

    def __len__(self) -> int:
        return len(self.characters)

    def __contains__(self, character: object) -> bool:
        return character in self.characters

    def encode(self, text: str) -> Tensor:
        """Ids (l,) int64 of `text`.

        Raises:
            TokenError: characters without an id; names them.
        """
        ids, known = self._look_up(text)
        if not known.all():
            missing = [chr(code) for code in np.unique(_code_points(text)[~known])]
            shown = ", ".join(repr(c) for c in missing[:8]) + (", ..." if missing[8:] else "")
            count = int((~known).sum())
            raise TokenError(
                f"unknown character{'s' if missing[1:] else ''} {shown}: {len(missing)} different "
                f"in {count} place{'s' if count > 1 else ''}, "
                f"the vocabulary has {len(self)} characters, {self._sample()}"
            )
        return torch.from_numpy(ids)

    def encode_replacing(self, text: str) -> Tensor:
        """Ids (l,) int64 of `text`; unknown characters become `REPLACEMENT`, itself a known one."""
        ids, known = self._look_up(text)
        ids[~known] = self.characters.index(REPLACEMENT)
        return torch.from_numpy(ids)

    def decode(self, ids: Tensor | Iterable[int]) -> str:
        """The text of ids (l,).

        Raises:
            TokenError: an id outside of 0 .. len(self) - 1.
        """
        numbers = ids.tolist() if isinstance(ids, Tensor) else list(ids)
        return "".join(self._character(number) for number in numbers)

    def stream(self) -> CharacterStream:
        """A decoder that gives each character at once."""
        return CharacterStream(self)

    def _character(self, number: int) -> str:
        if not 0 <= number < len(self):
            raise TokenError(f"id {number} has no character, expected 0 to {len(self) - 1}")
        return self.characters[number]

    def _look_up(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Ids, and whether each character is known (where it is not, the id means nothing)."""
        codes = _code_points(text)
        place = np.searchsorted(self._codes, codes, sorter=self._order)
        ids = self._order[np.minimum(place, len(self) - 1)]
        return ids.astype(np.int64), self._codes[ids] == codes

    def _sample(self) -> str:
        text = "".join(c for c in self.characters if c.isprintable() and c != REPLACEMENT)
        return f"among them {text[:70]!r}" + (" ..." if text[70:] else "")


class CharacterStream:
    """The `TextStream` of a vocabulary: nothing is ever held back."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary

    def push(self, id: int) -> str:
        """The character of this id."""
        return self._vocabulary.decode([id])

    def finish(self) -> str:
        """Nothing is left."""
        return ""


def _code_points(text: str) -> np.ndarray:
    # surrogatepass: lone surrogates (undecodable bytes of a command line) are just unknown ones
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
