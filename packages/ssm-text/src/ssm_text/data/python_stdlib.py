"""Dataset `python-stdlib`: the source files of the running interpreter's standard library.

Real text that is on every machine, without a download. It is the text of *this* Python: losses
compare between runs of one Python version only.
"""

from __future__ import annotations

import string
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from ssm_core import DataBundle
from ssm_core.errors import ConfigError, DataError
from ssm_text.data.vocabulary import REPLACEMENT, Vocabulary
from ssm_text.data.windows import WindowOptions, make_bundle

#: the same for every Python: printable ASCII, tab, newline, and one for everything else
CHARACTERS = (*sorted("\t\n " + string.digits + string.ascii_letters + string.punctuation),)
VOCABULARY = Vocabulary((*CHARACTERS, REPLACEMENT))

#: folders left out: not part of the library, tests of it, or tables and texts instead of programs
SKIPPED = {
    *("site-packages", "dist-packages", "__pycache__"),
    *("test", "tests", "idlelib", "idle_test", "lib2to3", "turtledemo", "__phello__"),
    *("encodings", "pydoc_data"),
}
HELD_OUT_EVERY = 10


@dataclass(frozen=True)
class PythonStdlibConfig(WindowOptions):
    """The standard library's Python files in the order of their names; every tenth is held out.

    Args:
        context: characters per example.
        stride: characters between the starts of two training examples; null means `context`.
        root: another folder of Python files; null means the running interpreter's library.
        max_bytes: stop before the file that would exceed this size; unit: bytes.
    """

    root: str | None = None
    max_bytes: int = 8_000_000

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_bytes < 1:
            raise ConfigError(f"data.max_bytes is {self.max_bytes}, expected 1 or more")


def build_python_stdlib(config: PythonStdlibConfig) -> DataBundle:
    """Read the files and cut them into windows; `DataError` if there are none."""
    root = Path(config.root or sysconfig.get_path("stdlib")).expanduser()
    files = source_files(root, config.max_bytes)
    if not files:
        raise DataError(
            f"{root}: no Python files of at most {config.max_bytes} bytes; name a folder that has "
            "some with --data.root (an interpreter may keep its library in a zip file)"
        )
    held_out = files[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]
    train = [file for file in files if file not in set(held_out)]
    return make_bundle(
        VOCABULARY.encode_replacing(_join(train)),
        VOCABULARY.encode_replacing(_join(held_out)),
        VOCABULARY,
        config,
        str(root),
    )


def source_files(root: Path, max_bytes: int) -> list[Path]:
    """Python files under `root` in the order of their names, `max_bytes` together at most."""
    found = []
    for path in root.rglob("*.py"):
        folders = path.relative_to(root).parts[:-1]
        # _sysconfigdata describes how this interpreter was built: paths and flags, no program
        if not SKIPPED & set(folders) and not path.name.startswith("_sysconfigdata"):
            found.append(path)
    found.sort(key=lambda path: path.relative_to(root).as_posix())
    chosen, size = [], 0
    for path in found:
        size += path.stat().st_size
        if size > max_bytes:
            break
        chosen.append(path)
    return chosen


def _join(files: list[Path]) -> str:
    # errors="replace": the few files in another encoding must not stop a run
    return "\n".join(file.read_text(encoding="utf-8", errors="replace") for file in files)
