"""`ssm-train generate RUN`: continue a prompt with a trained run's model, streamed to stdout."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import torch

from ssm_core.errors import ConfigError
from ssm_text.char_lm import CharLM
from ssm_text.data.vocabulary import Vocabulary
from ssm_text.generate import generate
from ssm_text.sampling import Sampling


def configure(parser: Any) -> None:
    """Add the command's arguments to `parser`."""
    defaults = Sampling()
    parser.add_argument("run", help="run folder of a character language model")
    parser.add_argument(
        "--prompt", type=str, default="", help="text to continue; empty: start after a newline"
    )
    parser.add_argument(
        "--max-new-tokens", type=int, default=200, help="how many characters to add"
    )
    parser.add_argument(
        "--temperature",
        type=float,
        default=defaults.temperature,
        help="below 1 is bolder; 0 always takes the likeliest character",
    )
    parser.add_argument(
        "--top-k", type=int, default=defaults.top_k, help="choose among the k likeliest; 0: all"
    )
    parser.add_argument(
        "--top-p",
        type=float,
        default=defaults.top_p,
        help="choose among the fewest characters that together have this probability; 1: all",
    )
    parser.add_argument("--seed", type=int, default=defaults.seed, help="of the choices")
    parser.add_argument("--device", type=str, default="cpu", help="cpu, cuda, cuda:1, mps, ...")


def run(arguments: Any) -> int:
    """Write the prompt and its continuation; return the exit code.

    A reader that goes away (`| head`) ends it quietly, as does Ctrl-C (exit code 130).
    """
    sampling = Sampling(arguments.temperature, arguments.top_k, arguments.top_p, arguments.seed)
    model, vocabulary = load_model(Path(arguments.run), arguments.device)
    characters = generate(model, vocabulary, arguments.prompt, arguments.max_new_tokens, sampling)
    # a terminal that cannot show a character gets "?" instead of an error
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    with _CtrlC() as interrupt:
        try:
            _write(arguments.prompt)
            for character in characters:
                _write(character)
                if interrupt.seen:
                    break
            _write("\n")
        except BrokenPipeError:
            # Python flushes stdout once more at exit: give it something that can be written to
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 130 if interrupt.seen else 0


class _CtrlC:
    """Notes the first Ctrl-C; the second raises KeyboardInterrupt as usual.

    Noted, not raised: an exception that happens to be raised inside a callback of torch is lost.
    """

    seen = False

    def __enter__(self) -> _CtrlC:
        self._old: Any = None
        if threading.current_thread() is threading.main_thread():  # only there are signals handled
            self._old = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._old is not None:
            signal.signal(signal.SIGINT, self._old)

    def _note(self, number: int, frame: object) -> None:
        if self.seen:
            raise KeyboardInterrupt
        self.seen = True


def load_model(folder: Path, device: str) -> tuple[CharLM, Vocabulary]:
    """The model of a run folder on `device`, and its characters.

    Raises:
        ConfigError: the run trained another kind of model, or there is no such device.
    """
    from ssm_core.train.restore import load_run

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"--device {device} cannot be used here: {reason}") from None
    restored = load_run(folder, device=device)
    if not isinstance(restored.module, CharLM):
        raise ConfigError(
            f"{folder}: holds a {type(restored.module).__name__}, expected a character language "
            "model (model: char-lm); give the folder of such a run"
        )
    return restored.module, Vocabulary(restored.info.labels)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
