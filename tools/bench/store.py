"""The JSON file: figures of all parts, to which later runs add.

    {"parts": {"scan": {"machine": {...}, "commands": [...], "rows": [...]}, ...}}

A run replaces the rows it measured again (same case, pass and subject) and keeps the others, so
that a part can be measured shape by shape; `machine` describes the last of these runs. Rows of
another machine, or of other settings, are dropped.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .report import Report

Row = dict[str, Any]
Content = dict[str, Any]
#: what rows of one part have in common
SAME = ("processor", "cores", "threads", "isa", "device", "smoke")


def merged(path: Path | None, machine: dict[str, Any], reports: Sequence[Report]) -> Content:
    """The content of the file, if there is one, with the new rows."""
    content: Content = {}
    if path is not None and path.exists():
        content = json.loads(path.read_text(encoding="utf-8"))
    parts = content.get("parts", {})
    for report in reports:
        rows = report.as_json()
        old = parts.get(report.part)
        comparable = old is not None and all(old["machine"].get(k) == machine.get(k) for k in SAME)
        commands = old["commands"] if comparable else []
        if comparable:
            again = {_key(row) for row in rows}
            rows = [row for row in old["rows"] if _key(row) not in again] + rows
        parts[report.part] = {
            "machine": machine,
            "commands": [*commands, machine["command"]],
            "rows": rows,
        }
    return {"parts": parts}


def rows_of(content: Content) -> list[Row]:
    """The rows of all parts."""
    return [row for part in content["parts"].values() for row in part["rows"]]


def write(path: Path, content: Content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {path}")


def _key(row: Row) -> tuple[str, str, str]:
    return row["case"], row["what"], row["subject"]
