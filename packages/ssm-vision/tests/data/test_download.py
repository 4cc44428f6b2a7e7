from __future__ import annotations

import socket

import pytest

from ssm_core.errors import DataError
from ssm_vision.data.download import PATIENCE_S, fetch


def test_a_failure_is_one_line_with_the_remedy() -> None:
    def download() -> None:
        raise RuntimeError("Error downloading x:\nTried a, got:\n<urlopen error>")

    with pytest.raises(DataError) as caught:
        fetch(download, "mnist: no x in data", "put it there")
    assert str(caught.value) == (
        "mnist: no x in data, and the download failed "
        "(Error downloading x: Tried a, got: <urlopen error>): put it there"
    )


@pytest.mark.parametrize("error", [OSError("no route"), TimeoutError(), EOFError("short")])
def test_what_a_network_can_do(error: Exception) -> None:
    def download() -> None:
        raise error

    with pytest.raises(DataError, match="the download failed"):
        fetch(download, "x", "y")


def test_connections_give_up_soon_and_only_during_the_download() -> None:
    seen = []
    fetch(lambda: seen.append(socket.getdefaulttimeout()), "x", "y")
    assert seen == [PATIENCE_S]
    assert socket.getdefaulttimeout() is None


def test_a_programming_error_is_not_hidden() -> None:
    def download() -> None:
        raise AttributeError("typo")

    with pytest.raises(AttributeError, match="typo"):
        fetch(download, "x", "y")


def test_chatter_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    fetch(lambda: print("Downloading"), "x", "y")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Downloading" in captured.err
