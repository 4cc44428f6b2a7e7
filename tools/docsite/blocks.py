"""The code of a page: its own and that of the files it includes, in the order of reading.

Comments in a page say what its readers need not see; each is about the code block that follows:

    <!-- setup                 Python that runs first: files, a trained model, names such as RUN
    RUN = "runs/mine-001"      that stand for a value in commands
    -->
    <!-- with: --data.max_bytes 100000 -->    options added to the commands of the block
    <!-- file: train.py -->                   the block is written there; a command may run it
    <!-- only checked: needs the hub -->      commands are parsed, not run
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

COMMENT = re.compile(r"<!-- (setup|with|only checked|file)\b:?\s*(.*?)\s*-->\s*", re.DOTALL)
INCLUDE = re.compile(r"\{include\} (\S+)")
COMMAND = re.compile(r"ssm-train (?:fit|show) \S")


@dataclass(frozen=True)
class Block:
    """A code block.

    Attributes:
        language: the word after the fence; "setup" for hidden Python, "command" for a command
            within a sentence.
        text: the code.
        place: file and line, for messages.
        options: added to its commands.
        only_checked: why its commands are not run, or "".
        file: where it is written instead of being run, or "".
    """

    language: str
    text: str
    place: str
    options: str = ""
    only_checked: str = ""
    file: str = ""


def blocks_of(page: Path, root: Path) -> list[Block]:
    """All code of a page; `root` is what places are relative to."""
    tokens = MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))
    return list(_blocks(tokens, page, root))


def _blocks(tokens: Sequence[Token], page: Path, root: Path) -> Iterator[Block]:
    notes: dict[str, str] = {}
    for token in tokens:
        place = f"{page.relative_to(root)}:{token.map[0] + 1 if token.map else 0}"
        if token.type == "html_block":
            for kind, text in COMMENT.findall(token.content):
                if kind == "setup":
                    yield Block("setup", text, place)
                else:
                    notes[kind] = text
        elif token.type in ("fence", "code_block"):
            included = INCLUDE.match(token.info)
            if included:
                yield from blocks_of((page.parent / included[1]).resolve(), root)
            else:
                said = [notes.pop(kind, "") for kind in ("with", "only checked", "file")]
                yield Block(token.info.strip(), token.content, place, *said)
        elif token.type == "inline":
            for child in token.children or ():
                if child.type == "code_inline" and COMMAND.match(child.content):
                    yield Block("command", child.content, place)
    if notes:
        raise ValueError(f"{page}: no code follows the comments on {', '.join(notes)}")
