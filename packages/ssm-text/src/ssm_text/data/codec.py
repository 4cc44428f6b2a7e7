"""Between text and token ids: what a language model has to know about text."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, runtime_checkable

from torch import Tensor

from ssm_core.specs import DataInfo
from ssm_text.errors import TokenError

#: the file of a tokenizer in run folders, token folders and folders of published models
TOKENIZER_FILE = "tokenizer.json"


class TextStream(Protocol):
    """Turns ids that arrive one by one into text that arrives piece by piece."""

    def push(self, id: int) -> str:
        """Take one more id; the text that is complete by now and was not given before, maybe ""."""
        ...

    def finish(self) -> str:
        """What was held back, e.g. half a character as the replacement character."""
        ...


@runtime_checkable
class TextCodec(Protocol):
    """Text to ids and back; `Vocabulary` (characters) and `Tokenizer` are ones.

    All pieces of a stream together are `decode` of the same ids.
    """

    @property
    def end_of_text(self) -> int | None:
        """The id that separates documents; None: there is none."""
        ...

    def __len__(self) -> int:
        """How many ids there are; they are 0 to this - 1."""
        ...

    def encode(self, text: str) -> Tensor:
        """Ids (l,) int64 of `text`; `TokenError` where it cannot be written in them."""
        ...

    def decode(self, ids: Tensor | Iterable[int]) -> str:
        """The text of ids (l,); `TokenError` for ids out of range."""
        ...

    def stream(self) -> TextStream:
        """A decoder of one text, from its beginning."""
        ...


def codec_of(source: DataInfo | str | Path) -> TextCodec:
    """The codec that a model was trained with.

    Args:
        source: a run folder or the folder of a published model (their tokenizer.json, or the
            run's characters), or the data description of a run on characters.
    Raises:
        TokenError: there is neither; says what was looked for.
        ConfigError: the tokenizer needs a library that is not installed.
    """
    from ssm_text.data.vocabulary import Vocabulary

    where = "this run"
    if not isinstance(source, DataInfo):
        folder = Path(source)
        where = str(folder)
        if (folder / TOKENIZER_FILE).is_file():
            from ssm_text.data.tokenizer import Tokenizer

            return Tokenizer.from_file(folder / TOKENIZER_FILE)
        source = _info_of(folder)
    if not source.labels:
        raise TokenError(
            f"{where}: has no characters and no {TOKENIZER_FILE}, expected one of them; copy the "
            "tokenizer it was trained with into the run folder"
        )
    return Vocabulary(source.labels)


def _info_of(folder: Path) -> DataInfo:
    from ssm_core.train.folder import read_info

    if not (folder / "info.json").is_file():
        raise TokenError(
            f"{folder}: no {TOKENIZER_FILE} and no info.json in it, expected the folder of a run "
            f"or of a model with its {TOKENIZER_FILE}"
        )
    return read_info(folder)
