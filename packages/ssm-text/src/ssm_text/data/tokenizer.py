"""Tokens larger than a character, through Hugging Face `tokenizers` (extra `tokenizers`)."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssm_core.errors import ConfigError, DataError
from ssm_core.train.checkpoint import write_text
from ssm_text.data.codec import TOKENIZER_FILE, TextStream
from ssm_text.data.token_stream import TokenStream
from ssm_text.errors import TokenError
from ssm_text.extras import require

#: what says which of the special tokens ends a text; Hugging Face's name for it
CONFIG_FILE = "tokenizer_config.json"
#: names of that token where nothing says it, the likeliest first
END_OF_TEXT = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>")
BYTES = 256


class Tokenizer:
    """A `TextCodec` of a `tokenizers.Tokenizer`.

    Special tokens that a text spells out become their ids and are spelled out again by `decode`;
    none are added by `encode`.

    Attributes:
        end_of_text: id of the token that ends documents, or None.
    """

    def __init__(self, tokenizer: Any, end_of_text: str | None = None) -> None:
        """Wrap a `tokenizers.Tokenizer`.

        Args:
            end_of_text: the token that ends documents; None: the first known of `END_OF_TEXT`.
        Raises:
            TokenError: the tokenizer has no tokens, or not that one.
        """
        self._tokenizer = tokenizer
        tokens = tokenizer.get_vocab(with_added_tokens=True)
        if not tokens:
            raise TokenError("tokenizer: has no tokens, expected at least one; train it first")
        self._size = 1 + max(tokens.values())
        if end_of_text is not None and end_of_text not in tokens:
            raise TokenError(f"tokenizer: end of text is {end_of_text!r}, which is no token of it")
        names = END_OF_TEXT if end_of_text is None else (end_of_text,)
        known = [tokens[name] for name in names if name in tokens]
        self.end_of_text: int | None = known[0] if known else None

    @classmethod
    def from_pretrained(cls, source: str | Path) -> Tokenizer:
        """A tokenizer.json file, a folder that holds one, or a model on the Hugging Face hub.

        Raises:
            DataError: it is not there, cannot be downloaded, or is damaged.
            ConfigError: the hub is needed and `huggingface_hub` is missing.
        """
        name, path = str(source), Path(source).expanduser()
        if path.is_dir():
            return cls.from_file(path / TOKENIZER_FILE)
        if path.is_file():
            return cls.from_file(path)
        # runs/typo is a mistake, not a repository of the organisation "runs"
        local = name.endswith(".json") or (path.parent != Path() and path.parent.is_dir())
        if local or not re.fullmatch(r"[\w-][\w.-]*(/[\w.-]+)?", name):
            raise DataError(
                f"{path.absolute()}: no such file, expected a {TOKENIZER_FILE}, a folder with one, "
                "or the name of a model on the Hugging Face hub"
            )
        return cls.from_file(_download(name))

    @classmethod
    def from_file(cls, path: Path) -> Tokenizer:
        """A tokenizer.json file; its end of text is what tokenizer_config.json beside it says.

        Raises:
            DataError: no such file, or damaged.
            ConfigError: the library `tokenizers` is missing.
        """
        library = require("tokenizers", "tokenizers")
        if not path.is_file():
            raise DataError(f"{path.absolute()}: no such file, expected a {TOKENIZER_FILE}")
        try:
            tokenizer = library.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing more special
            reason = " ".join(str(error).split())
            raise DataError(f"{path.absolute()}: not a tokenizer ({reason})") from None
        return cls(tokenizer, _end_of_text(path.with_name(CONFIG_FILE)))

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> Tokenizer:
        """Learn a byte-level BPE, which can write any text; shows its progress on a terminal.

        Source: Sennrich et al. 2016, arXiv:1508.07909; on bytes: Radford et al. 2019 (GPT-2).

        Args:
            texts: what to learn from, e.g. `ssm_text.data.pieces.pieces_of(paths)`.
            vocab_size: most tokens to make, the 256 bytes and the end of text among them.
        Raises:
            ConfigError: `vocab_size` below 257.
        """
        if vocab_size <= BYTES:
            raise ConfigError(
                f"vocab_size is {vocab_size}, expected {BYTES + 1} or more: {BYTES} bytes and the "
                "end of text"
            )
        library = require("tokenizers", "tokenizers")
        tokenizer = library.Tokenizer(library.models.BPE())
        tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = library.decoders.ByteLevel()
        trainer = library.trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[END_OF_TEXT[0]],
            # sorted: the library's own order differs from process to process
            initial_alphabet=sorted(library.pre_tokenizers.ByteLevel.alphabet()),
            show_progress=sys.stderr.isatty(),
        )
        tokenizer.train_from_iterator(texts, trainer)
        return cls(tokenizer)

    def save(self, folder: Path) -> Path:
        """Write tokenizer.json (and which token ends a text) into `folder`; returns that file."""
        path = folder / TOKENIZER_FILE
        if self.end_of_text is not None:
            token = self._tokenizer.id_to_token(self.end_of_text)
            write_text(folder / CONFIG_FILE, json.dumps({"eos_token": token}, indent=1))
        write_text(path, self._tokenizer.to_str())
        return path

    def __len__(self) -> int:
        return self._size

    def encode(self, text: str) -> Tensor:
        """Ids (l,) int64 of `text`.

        Raises:
            TokenError: the text holds a lone surrogate, which no encoding can write.
        """
        return next(self.encode_batch([text]))

    def encode_batch(self, texts: Sequence[str]) -> Iterator[Tensor]:
        """The ids of each text, computed on all cores at once; see `encode`."""
        try:
            found = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        except (UnicodeEncodeError, TypeError):  # what a lone surrogate gives, by version
            raise TokenError(
                "the text holds half a surrogate pair, e.g. an undecodable byte of a command "
                "line, expected Unicode text"
            ) from None
        return (torch.tensor(one.ids, dtype=torch.int64) for one in found)

    def decode(self, ids: Tensor | Iterable[int]) -> str:
        """The text of ids (l,); bytes that are no UTF-8 become replacement characters.

        Raises:
            TokenError: an id outside of 0 .. len(self) - 1.
        """
        numbers = ids.tolist() if isinstance(ids, Tensor) else list(ids)
        for number in numbers:
            if not 0 <= number < self._size:
                raise TokenError(f"id {number} has no token, expected 0 to {self._size - 1}")
        text: str = self._tokenizer.decode(numbers, skip_special_tokens=False)
        return text

    def stream(self) -> TextStream:
        """A decoder that holds characters back until all of their bytes are there."""
        return TokenStream(self.decode)


def _end_of_text(path: Path) -> str | None:
    """The token that a tokenizer_config.json names, or None."""
    if not path.is_file():
        return None
    try:
        named = json.loads(path.read_text(encoding="utf-8")).get("eos_token")
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{path.absolute()}: damaged ({error})") from None
    name = named.get("content") if isinstance(named, dict) else named
    return name if isinstance(name, str) else None


def _download(name: str) -> Path:
    hub = require("huggingface_hub", "hub")
    try:
        return Path(hub.hf_hub_download(name, TOKENIZER_FILE))
    except Exception as error:  # of many kinds: no network, no such model, a name that cannot be
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"tokenizer {name!r}: no such file or folder, and not to be had from the Hugging Face "
            f"hub ({reason}); give the path of a {TOKENIZER_FILE}"
        ) from None
