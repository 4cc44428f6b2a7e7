from __future__ import annotations

import pytest
import rich.console

import ssm_text.progress as progress
from ssm_text.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_line_now_and_then_where_there_is_no_terminal(clock, capsys):
    with Progress("reading", 40, "pages") as shown:
        for _ in range(3):
            clock[0] += 4
            shown.advance(10)
    assert capsys.readouterr().err == "reading: 20 of 40 pages, 8 s left\n"
    assert shown.done == 30


def test_items_are_done_when_the_next_is_asked_for(capsys):
    with Progress("reading", 6, "letters") as shown:
        done = [shown.done for _ in shown.along(["a", "bb", "ccc"], len)]
    assert done == [0, 1, 3]
    assert shown.done == 6
    assert capsys.readouterr().err == ""


def test_a_bar_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(rich.console.Console, "is_terminal", True)
    with Progress("reading", 4, "pages") as shown:
        shown.advance(4)
    err = capsys.readouterr().err
    assert "reading" in err
    assert "100%" in err
