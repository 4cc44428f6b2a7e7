"""What the hook `ssm_prune_report` returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Section:
    """A part of the page of a pruned run; what is left empty is left out.

    Attributes:
        title: heading over it.
        text: a paragraph.
        header: the columns of a table.
        rows: its rows, a text per column.
        picture: a PNG, JPEG, GIF, WebP or SVG file, which the page takes in.
    """

    title: str
    text: str = ""
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    picture: Path | None = None
