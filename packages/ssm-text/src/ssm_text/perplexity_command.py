"""`ssm-train perplexity RUN FILE`: how well a language model predicts a text."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssm_core.cli.tables import print_columns
from ssm_core.errors import DataError
from ssm_text.causal_lm import CausalLM
from ssm_text.data.codec import TextCodec
from ssm_text.data.pieces import pieces_of
from ssm_text.data.text_file import read_text
from ssm_text.errors import TokenError
from ssm_text.generate import check_fit
from ssm_text.progress import Progress
from ssm_text.scoring import score
from ssm_text.writer import load_writer


def configure(parser: Any) -> None:
    """Add the command's arguments to `parser`."""
    parser.add_argument(
        "model",
        help="folder of a run of a language model, or folder or Hugging Face id of a published "
        "Mamba",
    )
    parser.add_argument("file", help="UTF-8 text")
    parser.add_argument(
        "--context",
        type=int,
        help="read windows of so many tokens; without it the whole text with one state, or windows "
        "of the model's own context if it has one",
    )
    parser.add_argument(
        "--stride",
        type=int,
        help="tokens between the starts of two windows; without it half of the context",
    )
    parser.add_argument(
        "--tokenizer",
        type=str,
        help="tokenizer.json, its folder or a Hugging Face id, where the model's folder has none",
    )
    parser.add_argument("--device", type=str, default="cpu", help="cpu, cuda, cuda:1, mps, ...")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: Any) -> int:
    """Print the figures; return the exit code."""
    path = Path(arguments.file).expanduser()
    if not path.is_file():
        raise DataError(f"{path.absolute()}: no such file, expected a UTF-8 text")
    model, codec = load_writer(arguments.model, arguments.device, arguments.tokenizer)
    text = encode_file(codec, path)
    if not text.exact:
        print(
            "note: the tokenizer does not give this text back exactly; figures per byte and per "
            "character are those of the text as it is in the file",
            file=sys.stderr,
        )
    found = figures(model, codec, text, arguments.context, arguments.stride)
    if arguments.json:
        print(json.dumps(found))
    else:
        shown = {k: f"{v:.6g}" if isinstance(v, float) else str(v) for k, v in found.items()}
        print_columns([(name.replace("_", " "), value) for name, value in shown.items()])
    return 0


@dataclass(frozen=True)
class EncodedText:
    """A text as ids.

    Attributes:
        ids: (l,) int64.
        characters, bytes: of the text; line ends count as one, a byte order mark as none.
        exact: whether the ids can be turned into the text again.
    """

    ids: Tensor
    characters: int
    bytes: int
    exact: bool


def encode_file(codec: TextCodec, path: Path) -> EncodedText:
    """Read and encode a text piece by piece.

    Raises:
        DataError: the file is empty, cannot be read or is not UTF-8.
        TokenError: characters that the model does not know; says which, and how many.

    Cost: memory for 8 bytes per token.
    """
    ids, characters, size, exact = [], 0, 0, True
    try:
        for piece in pieces_of(path):
            ids.append(codec.encode(piece))
            characters += len(piece)
            size += len(piece.encode())
            exact = exact and codec.decode(ids[-1]) == piece
    except TokenError:
        try:
            codec.encode(read_text(path))  # the error counts what is in a piece: now in all of them
        except TokenError as error:
            raise TokenError(f"{path}: {error}") from None
        raise
    if not ids:
        raise DataError(f"{path}: the text is empty, expected a few characters at least")
    return EncodedText(torch.cat(ids), characters, size, exact)


def figures(
    model: CausalLM, codec: TextCodec, text: EncodedText, context: int | None, stride: int | None
) -> dict[str, float | int]:
    """What `ssm-train perplexity` prints; see `scoring.score`.

    Nothing is known before the first token, which is not predicted: its text counts neither among
    the bytes nor among the characters.

    Raises:
        ConfigError: model and codec do not fit together; also as `score` does.
    """
    check_fit(model, codec)
    with Progress("predicting", len(text.ids) - 1, "tokens") as progress:
        found = score(model, text.ids, context, stride, progress.advance)
    first = codec.decode(text.ids[:1])
    characters, size = text.characters - len(first), text.bytes - len(first.encode())
    return {
        "tokens": found.tokens,
        "characters": characters,
        "bytes": size,
        "nats_per_token": found.nats / found.tokens,
        "perplexity": found.perplexity,
        "bits_per_character": found.bits_per(characters),
        "bits_per_byte": found.bits_per(size),
    }
