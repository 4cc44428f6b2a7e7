"""What every command has in common: help, unknown names, one line per error."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssm_prune.cli.main import main


def error_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(words) == 2
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("ssm-prune: error: ")
    return lines[0]


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {c} " in shown for c in ("plan", "report", "export", "bench", "verify"))


def test_an_unknown_command_gets_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean 'verify'?" in error_of(capsys, "verfy")


@pytest.mark.parametrize(
    "words",
    [
        ("plan", "runs/none"),
        ("report", "runs/none"),
        ("verify", "runs/none"),
        ("export", "runs/none", "--as", "dense", "--out", "new"),
        ("bench", "runs/none", "runs/none"),
    ],
)
def test_a_missing_run_is_named(capsys: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
    assert "runs/none" in error_of(capsys, *words)
    assert not Path("new").exists()


def test_recipes_methods_and_options_get_the_nearest(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "'toy'" in error_of(capsys, "plan", "toi")
    assert "'toy'" in error_of(capsys, "bench", str(run), "toi")
    assert "'dynamic-cosine'" in error_of(capsys, "plan", "toy", "--prune", "dynamic-cosin")
    wrong = ("--prune", "dynamic-cosine", "--prune.sparsty", "0.5")
    assert "prune.sparsity" in error_of(capsys, "plan", "toy", *wrong)
    assert "--as" in error_of(capsys, "export", str(run), "--as", "dens", "--out", "new")


@pytest.mark.parametrize("command", ["plan", "verify", "bench", "export"])
def test_a_damaged_file_is_named(
    run: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    (run / "model.safetensors").write_bytes(b"no tensors in here at all")
    rest = {"bench": (str(run),), "export": ("--as", "dense", "--out", str(run / "new"))}
    message = error_of(capsys, command, str(run), *rest.get(command, ()))
    assert "model.safetensors: damaged" in message


def test_a_damaged_report_is_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "prune_report.json").write_text('{"tensors": [', encoding="utf-8")
    assert "prune_report.json: damaged" in error_of(capsys, "report", str(run))
    (run / "prune_report.json").unlink()
    assert "was not pruned" in error_of(capsys, "report", str(run))
