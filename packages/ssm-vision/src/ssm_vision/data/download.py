"""Downloads that fail fast and in one line."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Callable, Iterator

from ssm_core.errors import DataError

#: seconds to wait for an answer; torchvision itself would wait for the system's minutes
PATIENCE_S = 10.0


def fetch(download: Callable[[], object], missing: str, remedy: str) -> None:
    """Run torchvision's `download`, or say what is missing and how to get it.

    Args:
        missing: what is absent and where, e.g. "mnist: no train-labels-idx1-ubyte in data".
        remedy: how to get it without this download.
    Raises:
        DataError: the download failed.
    """
    try:
        with _impatient(), contextlib.redirect_stdout(sys.stderr):
            download()
    except (OSError, RuntimeError, EOFError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{missing}, and the download failed ({reason}): {remedy}") from error


@contextlib.contextmanager
def _impatient() -> Iterator[None]:
    """Let every new connection give up after `PATIENCE_S`."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
