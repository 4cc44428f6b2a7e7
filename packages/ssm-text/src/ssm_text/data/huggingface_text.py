"""Dataset `huggingface-text`: a column of a Hugging Face data set (extra `huggingface`).

It is tokenized once, into a folder of tokens; from then on neither the network nor the library
`datasets` is needed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ssm_core import DataBundle
from ssm_core.errors import ConfigError, DataError
from ssm_text.data.choose_codec import choose_codec
from ssm_text.data.token_file import tokens_bundle
from ssm_text.data.token_folder import INDEX, TRAIN, VALIDATION
from ssm_text.data.token_writer import Piece, write_tokens
from ssm_text.data.windows import WindowOptions
from ssm_text.extras import require
from ssm_text.progress import Progress

ROWS = 256  # read at a time


@dataclass(frozen=True)
class HuggingFaceTextConfig(WindowOptions):
    """A text column of a data set, each row a document.

    Args:
        context: tokens per example.
        stride: tokens between the starts of two training examples; null means `context`.
        path: name of the data set on the Hub, or a folder: one written by `save_to_disk`, or one of
            json, csv, text or parquet files.
        subset: name of a configuration of the data set, if it has several.
        train_split: rows to train on, e.g. "train", or (not for `save_to_disk`) "train[:10%]".
        eval_split: rows to evaluate on, e.g. "validation"; null: the end of `train_split`.
        train_frac: how many of the rows of `train_split` to train on where `eval_split` is null.
        column: name of the text column.
        tokenizer: a tokenizer.json or its folder, a model on the hub, chars, or bpe:SIZE.
        root: where the tokens are kept, in the folder tokens/.
    """

    path: str = ""
    subset: str | None = None
    train_split: str = "train"
    eval_split: str | None = None
    train_frac: float = 0.9
    column: str = "text"
    tokenizer: str = ""
    root: str = "data"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.train_frac < 1:
            raise ConfigError(
                f"data.train_frac is {self.train_frac}, expected a number between 0 and 1"
            )

    def tokens_at(self) -> Path:
        """Where the tokens of these options are, or will be."""
        what = {k: v for k, v in asdict(self).items() if k not in ("context", "stride", "root")}
        what |= {"files": _state_of(self.path), "tokenizer_file": _state_of(self.tokenizer)}
        digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
        slug = re.sub(r"\W+", "-", Path(self.path).name)
        return Path(self.root).expanduser() / "tokens" / f"{slug}-{digest[:12]}"


def build_huggingface_text(config: HuggingFaceTextConfig) -> DataBundle:
    """Tokenize the data set unless that was done before, and cut it into windows.

    Raises:
        DataError: it cannot be had, has no such split or column, or is too short.
        ConfigError: options that cannot be used, or the library `datasets` is missing.
    """
    if not config.path:
        raise DataError("data.path is empty, expected a data set or a folder: set --data.path")
    folder = config.tokens_at()
    if not (folder / INDEX).is_file():
        _tokenize(config, folder)
    return tokens_bundle(folder, config)


def _tokenize(config: HuggingFaceTextConfig, folder: Path) -> None:
    data = {TRAIN: _load(config, config.train_split)}
    if config.eval_split is not None:
        data[VALIDATION] = _load(config, config.eval_split)
    codec = choose_codec(
        config.tokenizer,
        lambda: (text for rows in data.values() for text in _texts(rows, config.column)),
    )
    about = {"split": asdict(config)}
    total = sum(len(rows) for rows in data.values())
    with Progress("tokenizing", total, "rows") as progress:
        pieces = progress.along(_pieces(data, config), lambda piece: 1)
        write_tokens(folder, codec, pieces, about)


def _load(config: HuggingFaceTextConfig, split: str) -> Any:
    """The rows of a split, with the text column alone."""
    library = require("datasets", "huggingface")
    path = Path(config.path).expanduser()
    try:
        if any((path / name).is_file() for name in ("dataset_dict.json", "dataset_info.json")):
            rows = library.load_from_disk(str(path))
            rows = rows[split] if isinstance(rows, dict) else rows
        else:
            rows = library.load_dataset(config.path, config.subset, split=split)
        return rows.select_columns([config.column])
    except Exception as error:  # of many kinds: no network, no such data set, split or column
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise DataError(
            f"data set {config.path}, split {split!r}, column {config.column!r}: cannot be had "
            f"({reason}); check --data.path, --data.subset, the splits and --data.column"
        ) from None


def _texts(rows: Any, column: str) -> Iterator[str]:
    for batch in rows.iter(batch_size=ROWS):
        for text in batch[column]:
            if not isinstance(text, str):
                raise DataError(
                    f"data.column is {column!r}, which holds {type(text).__name__}, expected text; "
                    "choose another column"
                )
            yield text


def _pieces(data: dict[str, Any], config: HuggingFaceTextConfig) -> Iterator[Piece]:
    cut = int(len(data[TRAIN]) * config.train_frac)
    for split, rows in data.items():
        for i, text in enumerate(_texts(rows, config.column)):
            held_out = split == VALIDATION or (config.eval_split is None and i >= cut)
            yield Piece(VALIDATION if held_out else TRAIN, text, True)


def _state_of(name: str) -> list[tuple[str, int, int]]:
    """Names, sizes and times of the files of a local file or folder; nothing for other names."""
    if not name:
        return []
    path = Path(name).expanduser()
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    found = [(file, file.stat()) for file in files if file.is_file()]
    return [(str(file), stat.st_size, stat.st_mtime_ns) for file, stat in found]
