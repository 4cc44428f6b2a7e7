"""The scripts in examples/ run and do what they say."""

from __future__ import annotations

import math
import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_truncated_backpropagation_learns_what_is_older_than_a_piece(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main = runpy.run_path(str(EXAMPLES / "truncated_backpropagation.py"))["main"]
    carried, forgotten = main(["s5", "--rounds", "16"])
    assert carried < 0.8 * forgotten
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("stream   0  mean squared error")
    assert lines[-1].startswith(f"on new streams: {carried:.4f} with the state carried on")


@pytest.mark.parametrize("mixer", ["mamba", "rnn"])
def test_truncated_backpropagation_takes_any_causal_mixer(mixer: str) -> None:
    main = runpy.run_path(str(EXAMPLES / "truncated_backpropagation.py"))["main"]
    assert all(math.isfinite(error) for error in main([mixer, "--rounds", "1"]))
