"""`ssm-train generate MODEL`: continue a prompt with a trained model, streamed to stdout."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ssm_core.errors import ConfigError, DataError
from ssm_text.generate import generate, new_texts
from ssm_text.sampling import Sampling, generators
from ssm_text.saved_state import load_state, save_state
from ssm_text.texts import Texts
from ssm_text.writer import load_writer


def configure(parser: Any) -> None:
    """Add the command's arguments to `parser`."""
    parser.add_argument(
        "model",
        help="folder of a run of a language model, or folder or Hugging Face id of a published "
        "Mamba",
    )
    parser.add_argument(
        "--prompt", type=str, default="", help="text to continue; empty: start after a newline"
    )
    parser.add_argument(
        "--prompt-file", type=str, help="UTF-8 file with the text to continue; -: standard input"
    )
    parser.add_argument(
        "--max-new-tokens", type=int, default=200, help="how many tokens (characters) to add"
    )
    _add_sampling(parser)
    parser.add_argument(
        "--stop",
        action="append",
        type=str,
        help="end before this text; may be given several times (in bash $'\\n\\n' is an empty "
        "line)",
    )
    parser.add_argument(
        "--save-state", type=str, help="file to write at the end, to go on from with --state"
    )
    parser.add_argument(
        "--state",
        type=str,
        help="file of --save-state to go on from; --prompt then is further text, if any",
    )
    parser.add_argument(
        "--tokenizer",
        type=str,
        help="tokenizer.json, its folder or a Hugging Face id, where the model's folder has none",
    )
    parser.add_argument("--device", type=str, default="cpu", help="cpu, cuda, cuda:1, mps, ...")


def _add_sampling(parser: Any) -> None:
    defaults = Sampling()
    parser.add_argument(
        "--temperature",
        type=float,
        default=defaults.temperature,
        help="below 1 is bolder; 0 always takes the likeliest token",
    )
    parser.add_argument(
        "--top-k", type=int, default=defaults.top_k, help="choose among the k likeliest; 0: all"
    )
    parser.add_argument(
        "--top-p",
        type=float,
        default=defaults.top_p,
        help="choose among the fewest tokens that together have this probability; 1: all",
    )
    parser.add_argument(
        "--min-p",
        type=float,
        default=defaults.min_p,
        help="choose among those at least this many times as probable as the likeliest; 0: all",
    )
    parser.add_argument(
        "--repetition-penalty",
        type=float,
        default=defaults.repetition_penalty,
        help="above 1 makes tokens that the text has already less likely",
    )
    parser.add_argument(
        "--seed", type=int, help="of the choices; not given: 0, or going on as saved with --state"
    )


def run(arguments: Any) -> int:
    """Write the prompt and its continuation; return the exit code.

    A reader that goes away (`| head`) ends it quietly, as does Ctrl-C (exit code 130); the state is
    saved then too.
    """
    sampling = Sampling(
        temperature=arguments.temperature,
        top_k=arguments.top_k,
        top_p=arguments.top_p,
        seed=arguments.seed or 0,
        min_p=arguments.min_p,
        repetition_penalty=arguments.repetition_penalty,
    )
    if arguments.save_state is not None and Path(arguments.save_state).is_dir():
        raise ConfigError(f"--save-state {arguments.save_state} is a folder, expected a file")
    prompt = _prompt(arguments)
    model, codec = load_writer(arguments.model, arguments.device, arguments.tokenizer)
    if arguments.state is None:
        texts = new_texts(model, codec, sampling)
    else:
        texts = load_state(arguments.state, model)
        if arguments.seed is not None:
            texts.generators = generators(sampling, 1)
    stop = arguments.stop or ()
    pieces = generate(model, codec, prompt, arguments.max_new_tokens, sampling, stop, texts)
    return _stream(prompt, pieces, texts, arguments.save_state)


def _stream(prompt: str, pieces: Iterator[str], texts: Texts, save_to: str | None) -> int:
    # a terminal that cannot show a character gets "?" instead of an error
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    with _CtrlC() as interrupt:
        try:
            _write(prompt)
            for piece in pieces:
                _write(piece)
                if interrupt.seen:
                    break
            _write("\n")
        except BrokenPipeError:
            # Python flushes stdout once more at exit: give it something that can be written to
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if save_to is not None:
            save_state(save_to, texts)
    return 130 if interrupt.seen else 0


def _prompt(arguments: Any) -> str:
    """The text to continue.

    Raises:
        ConfigError: it is given twice.
        DataError: its file is missing or not UTF-8.
    """
    name: str | None = arguments.prompt_file
    if name is None:
        prompt: str = arguments.prompt
        return prompt
    if arguments.prompt:
        raise ConfigError("--prompt and --prompt-file are both given, expected one of them")
    try:
        raw = sys.stdin.buffer.read() if name == "-" else Path(name).expanduser().read_bytes()
        # as a file opened for text: Windows' ends of lines are ends of lines
        return raw.decode("utf-8").replace("\r\n", "\n")
    except OSError as error:
        raise DataError(f"--prompt-file {name}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"--prompt-file {name}: not UTF-8 text ({error.reason})") from None


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


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
