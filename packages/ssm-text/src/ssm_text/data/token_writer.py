"""Text into a folder of token ids, piece by piece, with memory for a few pieces."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ssm_core.errors import ConfigError, DataError
from ssm_core.train.checkpoint import write_text
from ssm_text.data.codec import TextCodec
from ssm_text.data.token_folder import FORMAT, INDEX, SPLITS, TokenFolder
from ssm_text.data.tokenizer import Tokenizer
from ssm_text.data.vocabulary import Vocabulary
from ssm_text.errors import TokenError

#: characters that are encoded together
BATCH = 1 << 20


class Piece(NamedTuple):
    """A piece of a document on its way into a token file."""

    split: str
    text: str
    ends_document: bool


def write_tokens(
    path: Path, codec: TextCodec, pieces: Iterable[Piece], about: Mapping[str, Any]
) -> TokenFolder:
    """Encode `pieces` into a new folder, which is there only when it is complete.

    Documents are followed by the end of text of the tokenizer, or by a newline if it has none.

    Args:
        path: the folder to make; it must not hold tokens.
        about: further entries of tokens.json: sources, rule of the split.
    Raises:
        ConfigError: there are such files already.
        DataError: the folder cannot be written.
        TokenError: a text that the tokenizer cannot write.

    Cost: memory for a few pieces. A kill leaves a folder `.NAME.*.part` beside `path`, unused.
    """
    check_free(path)
    dtype = "uint16" if len(codec) <= 1 << 16 else "uint32"
    stored = np.dtype(dtype).newbyteorder("<")
    counts = {split: {"tokens": 0, "characters": 0, "bytes": 0} for split in SPLITS}
    with _new_folder(path) as part:
        with ExitStack() as stack:
            files = {s: stack.enter_context((part / f"{s}.bin").open("wb")) for s in SPLITS}
            for piece, ids in _encoded(codec, pieces):
                files[piece.split].write(ids.numpy().astype(stored).tobytes())
                count = counts[piece.split]
                count["tokens"] += len(ids)
                count["characters"] += len(piece.text)
                count["bytes"] += len(piece.text.encode())
            for file in files.values():
                file.flush()
                os.fsync(file.fileno())
        if isinstance(codec, Tokenizer):
            codec.save(part)
        index = {
            "format": FORMAT,
            "dtype": dtype,
            "vocab_size": len(codec),
            "end_of_text": codec.end_of_text,
            "characters": codec.characters if isinstance(codec, Vocabulary) else (),
            "tokens": {split: counts[split]["tokens"] for split in SPLITS},
            "characters_of": {split: counts[split]["characters"] for split in SPLITS},
            "bytes_of": {split: counts[split]["bytes"] for split in SPLITS},
            **about,
        }
        write_text(part / INDEX, json.dumps(index, indent=1))
    return TokenFolder.open(path)


def check_free(path: Path) -> None:
    """Check that a folder of tokens can be made at `path`.

    Raises:
        ConfigError: something is there already.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ConfigError(
            f"{path.absolute()}: exists and is not empty, expected a new folder; remove it or "
            "choose another"
        )


def _encoded(codec: TextCodec, pieces: Iterable[Piece]) -> Iterator[tuple[Piece, Tensor]]:
    after = _after_documents(codec)
    for batch in _batches(pieces):
        texts = [piece.text for piece in batch]
        many = (
            codec.encode_batch(texts) if isinstance(codec, Tokenizer) else map(codec.encode, texts)
        )
        for piece, ids in zip(batch, many, strict=True):
            yield piece, torch.cat([ids, after]) if piece.ends_document else ids


def _batches(pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
    """Lists of pieces with about `BATCH` characters: a tokenizer spreads one over all cores."""
    batch: list[Piece] = []
    size = 0
    for piece in pieces:
        batch.append(piece)
        size += len(piece.text)
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _after_documents(codec: TextCodec) -> Tensor:
    if codec.end_of_text is not None:
        return torch.tensor([codec.end_of_text])
    try:
        return codec.encode("\n")
    except TokenError:
        return torch.zeros(0, dtype=torch.int64)


@contextmanager
def _new_folder(path: Path) -> Iterator[Path]:
    """A folder that takes the place `path` when all went well, and vanishes when not."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    except OSError as error:
        raise DataError(f"{path.absolute()}: cannot be written ({error.strerror})") from None
    try:
        yield part
        part.chmod(0o755)  # temporary folders are made for their owner's eyes only
        part.replace(path)
    except OSError as error:  # e.g. no space left
        raise DataError(f"{path.absolute()}: cannot be written ({error.strerror})") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
