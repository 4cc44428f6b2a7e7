"""Dataset `text-file`: any text file, or all those of a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ssm_core import DataBundle
from ssm_core.errors import ConfigError, DataError
from ssm_text.data.vocabulary import Vocabulary
from ssm_text.data.windows import WindowOptions, make_bundle, split


@dataclass(frozen=True)
class TextFileConfig(WindowOptions):
    """A UTF-8 text of your own; the vocabulary is its set of characters.

    Args:
        context: characters per example.
        stride: characters between the starts of two training examples; null means `context`.
        path: a file, or a folder whose files are joined in the order of their names.
        pattern: which files of a folder, e.g. "**/*.md".
        train_frac: how much of the text, from its start, to train on; the rest is held out.
    """

    path: str = ""
    pattern: str = "**/*.txt"
    train_frac: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.train_frac < 1:
            raise ConfigError(
                f"data.train_frac is {self.train_frac}, expected a number between 0 and 1"
            )


def build_text_file(config: TextFileConfig) -> DataBundle:
    """Read the text and cut it into windows; `DataError` if there is none."""
    if not config.path:
        raise DataError("data.path is empty, expected a text file or a folder: set --data.path")
    path = Path(config.path).expanduser()
    text = "\n".join(read_text(file) for file in text_files(path, config.pattern))
    if not text:
        raise DataError(f"{path}: the text is empty; choose another --data.path")
    vocabulary = Vocabulary.of_text(text)
    train, evaluation = split(vocabulary.encode(text), config.train_frac)
    return make_bundle(train, evaluation, vocabulary, config, str(path))


def read_text(path: Path) -> str:
    """A UTF-8 file with line ends as newlines; `DataError` if it cannot be read as such."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not UTF-8 text (byte {error.start}); convert it or choose other files"
        ) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


def text_files(path: Path, pattern: str) -> list[Path]:
    """`path` itself, or the files of this folder that match `pattern`, sorted by name.

    Raises:
        DataError: there is none.
        ConfigError: a pattern that cannot be one.
    """
    if path.is_dir():
        try:
            files = sorted(p for p in path.glob(pattern) if p.is_file())
        except (ValueError, NotImplementedError) as error:
            raise ConfigError(f"pattern {pattern!r} cannot be used: {error}") from None
        if not files:
            raise DataError(f"{path}: no file matches {pattern!r}; choose another pattern")
        return files
    if not path.exists():
        raise DataError(f"{path.absolute()}: no such file or folder; choose another path")
    return [path]
