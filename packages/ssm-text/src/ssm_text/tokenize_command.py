"""`ssm-train tokenize TEXT ... --out FOLDER --tokenizer WHAT`: text files into token files."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ssm_core.errors import ConfigError
from ssm_text.data.codec import TextCodec
from ssm_text.data.pieces import Survey, find_texts, pieces_of, survey
from ssm_text.data.token_folder import SPLITS, TRAIN, VALIDATION, TokenFolder
from ssm_text.data.token_writer import Piece, check_free, write_tokens
from ssm_text.data.tokenizer import Tokenizer
from ssm_text.data.vocabulary import Vocabulary
from ssm_text.progress import Progress

CHARACTERS, BPE = "chars", "bpe:"


def configure(parser: Any) -> None:
    """Add the command's arguments to `parser`."""
    parser.add_argument("text", nargs="+", help="UTF-8 files, or folders of them")
    parser.add_argument("--out", type=str, required=True, help="folder to make")
    parser.add_argument(
        "--tokenizer",
        type=str,
        required=True,
        help="a tokenizer.json or its folder, a model on the Hugging Face hub, chars (every "
        "character of the text), or bpe:SIZE (learn SIZE tokens from the text)",
    )
    parser.add_argument(
        "--pattern", type=str, default="**/*.txt", help="which files of a folder, e.g. **/*.md"
    )
    parser.add_argument(
        "--train-frac",
        type=float,
        default=0.9,
        help="how much of the text, from its start, to train on; the rest is held out",
    )


def run(arguments: Any) -> int:
    """Write the folder and say what is in it; return the exit code."""
    folder = tokenize(
        arguments.text,
        Path(arguments.out).expanduser(),
        arguments.tokenizer,
        arguments.pattern,
        arguments.train_frac,
    )
    counts = ", ".join(f"{folder.counts[split]} tokens in {folder.file(split)}" for split in SPLITS)
    print(f"{len(folder.codec)} different tokens; {counts}")
    return 0


def tokenize(
    texts: Sequence[str], out: Path, tokenizer: str, pattern: str, train_frac: float
) -> TokenFolder:
    """Text files into the folder `out`, which is there only when it is complete.

    The first `train_frac` of the characters, over all files in their order, are for training, as
    nanoGPT splits tiny Shakespeare. Each file is a document.

    Args:
        texts: files, and folders whose files that match `pattern` are taken.
        tokenizer: where it comes from, see `codec_for`.
    Raises:
        DataError: files that are missing, empty or not UTF-8; no such tokenizer.
        ConfigError: `out` is not free, or an option cannot be used.

    Cost: the files are read twice (three times to learn tokens); memory for a few pieces of them.
    """
    if not 0 < train_frac < 1:
        raise ConfigError(f"--train-frac is {train_frac}, expected a number between 0 and 1")
    check_free(out)
    files = find_texts(texts, pattern)
    found = survey(files)
    codec = codec_for(tokenizer, files, found)
    cut = int(found.characters * train_frac)
    about = {
        "tokenizer": tokenizer,
        "split": f"the first {train_frac} of the characters of all sources to train on",
        "sources": found.sources,
    }
    with Progress("tokenizing", found.characters, "characters") as progress:
        return write_tokens(out, codec, _with_progress(_split(files, cut), progress), about)


def codec_for(tokenizer: str, files: Sequence[Path], found: Survey) -> TextCodec:
    """ "chars", "bpe:SIZE", or what `Tokenizer.from_pretrained` takes.

    Raises:
        ConfigError, DataError: it is none of them.
    """
    if tokenizer == CHARACTERS:
        return Vocabulary(sorted({*found.alphabet, "\n"}))  # a newline ends every document
    if not tokenizer.startswith(BPE):
        return Tokenizer.from_pretrained(tokenizer)
    size = tokenizer.removeprefix(BPE)
    if not size.isdecimal():
        raise ConfigError(f"--tokenizer is {tokenizer!r}, expected a number behind {BPE}")
    print(f"learning {size} tokens from {found.characters} characters", file=sys.stderr)
    return Tokenizer.train((piece for file in files for piece in pieces_of(file)), int(size))


def _split(files: Iterable[Path], cut: int) -> Iterator[Piece]:
    """All pieces; those of the first `cut` characters to train on."""
    done = 0
    for file in files:
        pieces = pieces_of(file)
        text = next(pieces, "")
        while text:
            following = next(pieces, "")
            here = max(0, cut - done)
            if 0 < here < len(text):  # a piece on both sides
                yield Piece(TRAIN, text[:here], False)
                yield Piece(VALIDATION, text[here:], not following)
            else:
                yield Piece(TRAIN if here else VALIDATION, text, not following)
            done += len(text)
            text = following


def _with_progress(pieces: Iterable[Piece], progress: Progress) -> Iterator[Piece]:
    for piece in pieces:
        yield piece
        progress.advance(len(piece.text))
