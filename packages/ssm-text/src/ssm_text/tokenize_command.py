"""`ssm-train tokenize TEXT ... --out FOLDER --tokenizer WHAT`: text files into token files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ssm_core.errors import ConfigError
from ssm_text.data.choose_codec import HELP, choose_codec
from ssm_text.data.pieces import find_texts, pieces_of, survey
from ssm_text.data.token_folder import SPLITS, TRAIN, VALIDATION, TokenFolder
from ssm_text.data.token_writer import Piece, check_free, write_tokens
from ssm_text.progress import Progress


def configure(parser: Any) -> None:
    """Add the command's arguments to `parser`."""
    parser.add_argument("text", nargs="+", help="UTF-8 files, or folders of them")
    parser.add_argument("--out", type=str, required=True, help="folder to make")
    parser.add_argument(
        "--tokenizer",
        type=str,
        required=True,
        help=HELP,
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
        tokenizer: where it comes from, see `choose_codec`.
    Raises:
        DataError: files that are missing, empty or not UTF-8; no such tokenizer.
        ConfigError: `out` is not free, or an option cannot be used.

    Cost: the files are read twice (three times for chars and bpe); memory for a few pieces of them.
    """
    if not 0 < train_frac < 1:
        raise ConfigError(f"--train-frac is {train_frac}, expected a number between 0 and 1")
    check_free(out)
    files = find_texts(texts, pattern)
    found = survey(files)
    codec = choose_codec(tokenizer, lambda: (p for file in files for p in pieces_of(file)))
    cut = int(found.characters * train_frac)
    about = {
        "tokenizer": tokenizer,
        "split": f"the first {train_frac} of the characters of all sources to train on",
        "sources": found.sources,
    }
    with Progress("tokenizing", found.characters, "characters") as progress:
        pieces = progress.along(_split(files, cut), lambda piece: len(piece.text))
        return write_tokens(out, codec, pieces, about)


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
