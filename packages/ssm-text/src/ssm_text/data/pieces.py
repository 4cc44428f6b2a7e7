"""Text files of any size, read piece by piece."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ssm_core.errors import DataError
from ssm_text.data.text_file import read_text, text_files

#: characters read at a time
PIECE = 1 << 16


@dataclass(frozen=True)
class Survey:
    """What a first look at texts tells.

    Attributes:
        characters: how many there are in all.
        sources: name, bytes and SHA-256 of every file.
    """

    characters: int
    sources: tuple[dict[str, str | int], ...]


def find_texts(paths: Iterable[str | Path], pattern: str) -> list[Path]:
    """The files among `paths`, and those that match `pattern` in its folders, in that order.

    Raises:
        DataError: no such file, or none that matches.
    """
    return [file for path in paths for file in text_files(Path(path).expanduser(), pattern)]


def pieces_of(path: Path, size: int = PIECE) -> Iterator[str]:
    """The text of a UTF-8 file in pieces of about `size` characters; all together are the text.

    Pieces end at the end of a line with words on both sides, where there is one: tokenizers do not
    join over it, so that the pieces have the tokens of the whole.

    Raises:
        DataError: the file cannot be read, or is not UTF-8.

    Cost: one piece is in memory.
    """
    rest = ""
    try:
        with path.open(encoding="utf-8-sig") as file:
            while chunk := file.read(size):
                text = rest + chunk
                cut = _last_cut(text, size)
                if cut:
                    yield text[:cut]
                rest = text[cut:]
    except (UnicodeDecodeError, OSError):
        read_text(path)  # reads all of it and says exactly what is wrong with it
        raise
    if rest:
        yield rest


def survey(files: Iterable[Path]) -> Survey:
    """Read all files once; see `Survey`."""
    characters, sources = 0, []
    for file in files:
        characters += sum(len(piece) for piece in pieces_of(file))
        sources.append(_source(file))
    if not characters:
        raise DataError("the text is empty; name files with text in them")
    return Survey(characters, tuple(sources))


def _last_cut(text: str, size: int) -> int:
    """Where the last piece of `text` may begin; 0: nowhere yet, read on."""
    end = len(text) - 1  # what follows the cut must be known
    while (end := text.rfind("\n", 0, end)) > 0:
        if not text[end - 1].isspace() and not text[end + 1].isspace():
            return end + 1
    if len(text) < 2 * size:
        return 0
    # a file without such lines: in front of a space, which tokenizers keep with the word behind it
    space = text.rfind(" ")
    return space if space > 0 else len(text)


def _source(path: Path) -> dict[str, str | int]:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(PIECE):
            digest.update(block)
            size += len(block)
    return {"name": path.name, "bytes": size, "sha256": digest.hexdigest()}
