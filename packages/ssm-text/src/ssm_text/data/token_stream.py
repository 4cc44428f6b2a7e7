"""Text piece by piece from tokens that may be half a character."""

from __future__ import annotations

from collections.abc import Callable

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
#: tokens that one character can be spread over: it has four bytes at most
LONGEST = 4


class TokenStream:
    """The `TextStream` of a tokenizer: gives what later tokens cannot change.

    Only the last few tokens are decoded at each step, together with those before them: decoders
    drop the space in front of what they take for the beginning of a text.

    Args:
        decode: the text of some ids.

    Cost: a few tokens are decoded per step, whatever the length of the text.
    """

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self._decode = decode
        self._ids: list[int] = []  # the window: tokens given already, then those held back
        self._given = 0  # characters of the window's text that were given
        self._old = 0  # tokens of the window whose text was given

    def push(self, id: int) -> str:
        """Take one more id; the text that is complete by now and was not given before."""
        self._ids.append(id)
        text = self._decode(self._ids)
        if text.endswith(REPLACEMENT):  # half a character, or no character: later tokens tell
            return self._give_up_on_some(text)
        piece = text[self._given :]
        if piece:
            self._ids = self._ids[self._old :]
            self._old = len(self._ids)
            self._given = len(self._decode(self._ids))
        return piece

    def finish(self) -> str:
        """What was held back."""
        piece = self._decode(self._ids)[self._given :] if self._ids else ""
        self._ids, self._given, self._old = [], 0, 0
        return piece

    def _give_up_on_some(self, text: str) -> str:
        """Bytes that are no characters end nowhere: after a few, cut where the halves of the window
        have the same text apart as together, so that nothing behind the cut changes what is before.
        """
        if len(self._ids) - self._old <= LONGEST:
            return ""
        for cut in range(len(self._ids) - 1, self._old, -1):
            before = self._decode(self._ids[:cut])
            if before + self._decode(self._ids[cut:]) == text:
                piece = before[self._given :]
                self._ids, self._given, self._old = self._ids[cut:], 0, 0
                return piece
        return ""
