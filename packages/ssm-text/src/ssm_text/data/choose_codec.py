"""The tokenizer that a user asks for in one word: characters, one to learn, or one that exists."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from ssm_core.errors import ConfigError, DataError
from ssm_text.data.codec import TextCodec
from ssm_text.data.tokenizer import Tokenizer
from ssm_text.data.vocabulary import Vocabulary

CHARACTERS, BPE = "chars", "bpe:"
HELP = (
    "a tokenizer.json or its folder, a model on the Hugging Face hub, chars (every character of "
    "the text), or bpe:SIZE (learn SIZE tokens from the text)"
)


def choose_codec(tokenizer: str, texts: Callable[[], Iterable[str]]) -> TextCodec:
    """Characters and learnt tokens come from `texts()`, everything else from a file.

    Args:
        tokenizer: one of those in `HELP`.
    Raises:
        ConfigError, DataError: it is none of them.
    """
    if not tokenizer:
        raise ConfigError(f"tokenizer is empty, expected {HELP}")
    if tokenizer == CHARACTERS:
        return Vocabulary(_alphabet(texts()))
    if not tokenizer.startswith(BPE):
        return Tokenizer.from_pretrained(tokenizer)
    size = tokenizer.removeprefix(BPE)
    if not size.isdecimal():
        raise ConfigError(f"tokenizer is {tokenizer!r}, expected a number behind {BPE}")
    return Tokenizer.train(texts(), int(size))


def _alphabet(texts: Iterable[str]) -> list[str]:
    """The characters of all texts, sorted, and the newline that ends documents."""
    seen = np.zeros(0x110000, dtype=bool)
    seen[ord("\n")] = True
    for text in texts:
        try:
            seen[np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)] = True
        except UnicodeEncodeError:
            raise DataError("a text holds half a surrogate pair, expected Unicode text") from None
    return [chr(code) for code in np.flatnonzero(seen)]
