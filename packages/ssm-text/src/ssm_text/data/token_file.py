"""Dataset `token-file`: a folder that `ssm-train tokenize` wrote, read through a memory map.

Files larger than the memory train as well: a batch reads its windows, nothing else.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ssm_core import DataBundle, DataInfo
from ssm_core.errors import DataError
from ssm_core.train.checkpoint import write_atomically
from ssm_text.data.codec import TOKENIZER_FILE
from ssm_text.data.token_folder import TRAIN, VALIDATION, TokenFolder
from ssm_text.data.tokenizer import CONFIG_FILE
from ssm_text.data.vocabulary import Vocabulary
from ssm_text.data.windows import (
    IGNORED,
    Pair,
    WindowOptions,
    check_lengths,
    count_windows,
    shifted,
    take_batch,
)


@dataclass(frozen=True)
class TokenFileConfig(WindowOptions):
    """Tokens on disk, made by `ssm-train tokenize`.

    Args:
        context: tokens per example.
        stride: tokens between the starts of two training examples; null means `context`.
        path: the folder.
    """

    path: str = ""

    def tokens_at(self) -> Path:
        """The folder, whose tokenizer a run takes along."""
        return Path(self.path).expanduser()


def build_token_file(config: TokenFileConfig) -> DataBundle:
    """Open the folder; `DataError` if it is none, damaged, or too short for a window."""
    if not config.path:
        raise DataError(
            "data.path is empty, expected a folder of tokens: set --data.path, or make one with "
            "ssm-train tokenize"
        )
    return tokens_bundle(config.tokens_at(), config)


def tokens_bundle(path: Path, options: WindowOptions) -> DataBundle:
    """Training windows and gapless evaluation windows over a folder of tokens.

    Raises:
        DataError: no such folder, a damaged one, or too few tokens for a window.
    """
    folder = TokenFolder.open(path)
    context, stride = options.context, options.stride or options.context
    counts = folder.counts
    check_lengths(str(path), counts[TRAIN], counts[VALIDATION], context, "tokens")
    codec = folder.codec
    return DataBundle(
        train=TokenWindows(folder, TRAIN, context, stride),
        evaluation=TokenWindows(folder, VALIDATION, context, context, pad_last=True),
        # the tokens of a tokenizer cannot say how to cut a text into them: its file goes along
        info=DataInfo(
            (context,), len(codec), codec.characters if isinstance(codec, Vocabulary) else ()
        ),
        collate=take_batch,
    )


class TokenWindows(Dataset[Pair]):
    """The windows of `TextWindows` over a token file, without reading it into memory.

    Args:
        folder: whose tokens.
        split: "train" or "validation".
        context, stride, pad_last: as in `TextWindows`.
    """

    def __init__(
        self, folder: TokenFolder, split: str, context: int, stride: int, pad_last: bool = False
    ) -> None:
        self._file, self._dtype = folder.file(split), folder.dtype
        self._length, self._size = folder.counts[split], len(folder.codec)
        self._count = count_windows(self._length, context, stride, pad_last)
        self.context, self.stride = context, stride
        self._ids: np.ndarray | None = None

    def __getstate__(self) -> dict[str, Any]:
        """For loader processes: each opens the file itself."""
        return self.__dict__ | {"_ids": None}

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Pair:
        """Inputs (l,) and targets (l,), int64."""
        if not 0 <= index < self._count:
            raise IndexError(f"window {index} of {self._count}")
        inputs, targets = self.__getitems__([index])
        return inputs[0], targets[0]

    def __getitems__(self, indices: Sequence[int]) -> Pair:
        """A whole batch at once: inputs (b, l) and targets (b, l), int64.

        Raises:
            DataError: the file has ids that its tokenizer does not have.
        """
        if self._ids is None:
            self._ids = np.memmap(self._file, dtype=self._dtype, mode="r", shape=(self._length,))
        windows = np.full((len(indices), self.context + 1), IGNORED, dtype=np.int64)
        for row, index in zip(windows, indices, strict=True):
            start = index * self.stride
            piece = self._ids[start : start + self.context + 1]
            row[: len(piece)] = piece
        if windows.size and windows.max() >= self._size:
            raise DataError(
                f"{self._file}: holds the id {windows.max()}, expected 0 to {self._size - 1}, "
                "those of its tokenizer: damaged or of another one; tokenize again"
            )
        return shifted(torch.from_numpy(windows))


def keep_tokenizer(path: Path, run: Path) -> None:
    """Copy the tokenizer of a folder of tokens into a run folder, so that the run needs no data.

    Raises:
        DataError: the run has another tokenizer already: the tokens are not those it began with.
    """
    file = path / TOKENIZER_FILE
    if not file.is_file():  # characters: every run folder has them as labels
        return
    content, copy = file.read_bytes(), run / TOKENIZER_FILE
    if copy.is_file() and copy.read_bytes() != content:
        raise DataError(
            f"{file}: another tokenizer than that of the run, {copy}; resume with the tokens the "
            "run began with, or start a new run"
        )
    for name in (CONFIG_FILE, TOKENIZER_FILE):
        if (path / name).is_file():
            write_atomically(run / name, partial(shutil.copyfile, path / name))
