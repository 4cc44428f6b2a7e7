"""Folders of token ids on disk, read through a memory map; `token_writer` makes them.

FOLDER/train.bin  validation.bin     the ids, uint16 or uint32, little endian
       tokens.json                   how many, of which type, from what, by which tokenizer
       tokenizer.json                the tokenizer (characters stand in tokens.json)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssm_core.errors import DataError
from ssm_text.data.codec import TOKENIZER_FILE, TextCodec
from ssm_text.data.tokenizer import Tokenizer
from ssm_text.data.vocabulary import Vocabulary

FORMAT = "ssm-tokens-1"
INDEX = "tokens.json"
TRAIN, VALIDATION = "train", "validation"
SPLITS = (TRAIN, VALIDATION)


@dataclass(frozen=True)
class TokenFolder:
    """A complete folder of tokens.

    Attributes:
        path: the folder.
        dtype: "<u2" or "<u4", of the ids in the files.
        counts: tokens per split.
        codec: what the tokens mean.
    """

    path: Path
    dtype: str
    counts: Mapping[str, int]
    codec: TextCodec

    @classmethod
    def open(cls, path: Path) -> TokenFolder:
        """Read the index and check the files against it.

        Raises:
            DataError: not such a folder, or one that was damaged.
        """
        if not (path / INDEX).is_file():
            raise DataError(
                f"{path.absolute()}: no {INDEX} in it, expected a folder of tokens; make one with "
                f"ssm-train tokenize TEXT --out {path}"
            )
        try:
            index = json.loads((path / INDEX).read_text(encoding="utf-8"))
            if index["format"] != FORMAT:
                raise ValueError(f"its format is {index['format']!r}, expected {FORMAT!r}")
            dtype = {"uint16": "<u2", "uint32": "<u4"}[index["dtype"]]
            counts = {split: int(index["tokens"][split]) for split in SPLITS}
            size, characters = int(index["vocab_size"]), index["characters"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path / INDEX}: damaged ({error!r}); tokenize again") from None
        codec = Vocabulary(characters) if characters else Tokenizer.from_file(path / TOKENIZER_FILE)
        if len(codec) != size:
            raise DataError(
                f"{path}: its tokenizer has {len(codec)} tokens, expected {size}, those of its "
                "files; tokenize again"
            )
        folder = cls(path, dtype, counts, codec)
        for split in SPLITS:
            folder.check_size(split)
        return folder

    def file(self, split: str) -> Path:
        """The ids of `split`."""
        return self.path / f"{split}.bin"

    def check_size(self, split: str) -> None:
        """Check that the file of `split` has as many bytes as its tokens need."""
        file, expected = self.file(split), self.counts[split] * np.dtype(self.dtype).itemsize
        if not file.is_file():
            raise DataError(f"{file}: no such file, though {INDEX} names it; tokenize again")
        found = file.stat().st_size
        if found != expected:
            raise DataError(
                f"{file}: has {found} bytes, expected {expected} ({self.counts[split]} tokens of "
                f"{np.dtype(self.dtype).name}): truncated or of another type; tokenize again"
            )
