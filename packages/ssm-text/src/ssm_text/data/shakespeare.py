"""Dataset `shakespeare`: tiny Shakespeare, 1,115,394 characters of his plays, 65 different ones.

The split is nanoGPT's (first 90 % for training), so that losses compare with published ones.
"""

from __future__ import annotations

import hashlib
import http.client
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from ssm_core import DataBundle
from ssm_core.errors import ConfigError, DataError
from ssm_text.data.vocabulary import Vocabulary
from ssm_text.data.windows import WindowOptions, make_bundle, split

URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
TIMEOUT_S = 10.0


@dataclass(frozen=True)
class ShakespeareConfig(WindowOptions):
    """Tiny Shakespeare, from a local file or downloaded once.

    Args:
        context: characters per example.
        stride: characters between the starts of two training examples; null means `context`.
        root: folder that holds, or will hold, tinyshakespeare/input.txt.
        download: fetch the file (1.1 MB) if it is not there.
        train_characters: learn from the beginning of the training text only, to see a model learn
            by heart; null: from all 1,003,854. Evaluation stays that of the whole held-out text.
    """

    root: str = "data"
    download: bool = True
    train_characters: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.train_characters is not None and self.train_characters <= self.context:
            raise ConfigError(
                f"data.train_characters is {self.train_characters}, expected null or more than "
                f"data.context = {self.context}"
            )


def build_shakespeare(config: ShakespeareConfig) -> DataBundle:
    """Find, or download, the text and cut it into windows; `DataError` if it cannot be had."""
    path = Path(config.root).expanduser() / "tinyshakespeare" / "input.txt"
    if not path.is_file():
        if not config.download:
            raise DataError(f"{path.absolute()}: no such file; set --data.root, or {_advice(path)}")
        _download(path)
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise DataError(
            f"{path.absolute()}: not the file of the char-rnn repository (its SHA-256 differs); "
            f"remove it, or train on it as --data text-file --data.path {path}"
        )
    text = content.decode("ascii")
    vocabulary = Vocabulary.of_text(text)
    train, evaluation = split(vocabulary.encode(text))
    return make_bundle(train[: config.train_characters], evaluation, vocabulary, config, str(path))


def _download(path: Path) -> None:
    """Fetch, check and write the file, all or nothing."""
    from ssm_core.train.checkpoint import write_atomically

    try:
        with urllib.request.urlopen(URL, timeout=TIMEOUT_S) as response:
            content = response.read()
    except (OSError, http.client.HTTPException) as error:  # URLError and timeouts are OSErrors
        raise DataError(
            f"{path.absolute()}: no such file, and the download failed ({error}); "
            f"set --data.root, or {_advice(path)}"
        ) from None
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise DataError(f"{URL}: unexpected content (its SHA-256 differs); nothing was written")
    try:
        write_atomically(path, lambda part: part.write_bytes(content))
    except OSError as error:
        raise DataError(
            f"{path.absolute()}: cannot be written ({error.strerror}); set --data.root"
        ) from None


def _advice(path: Path) -> str:
    return f"get it with: curl --create-dirs -o {path} {URL}"
