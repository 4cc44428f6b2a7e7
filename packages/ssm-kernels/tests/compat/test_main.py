"""`python -m ssm_kernels.compat`, called in this process."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssm_kernels.compat.__main__ import main

SCRIPT = """
import sys
from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
import beside_the_script

print(__name__, sys.argv[1:], selective_scan_fn.__module__, beside_the_script.VALUE)
"""


@pytest.fixture(autouse=True)
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _off: None) -> Iterator[Path]:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "train.py").write_text(SCRIPT)
    (folder / "beside_the_script.py").write_text("VALUE = 7\n")
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr(sys, "path", ["the folder of python -m", *sys.path])
    yield folder / "train.py"
    sys.modules.pop("beside_the_script", None)


def test_runs_a_script_as_python_would(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(program), "--epochs", "3", "--quiet"])
    said = capsys.readouterr()
    expected = "__main__ ['--epochs', '3', '--quiet'] ssm_kernels.compat.selective_scan 7\n"
    assert said.out == expected
    assert said.err.startswith("ssm_kernels.compat: causal_conv1d, ")
    assert sys.path[0] == str(program.parent)


def test_runs_a_module(
    program: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(program.parent)
    main(["--quiet", "-m", "train", "-m", "other"])
    said = capsys.readouterr()
    assert said.out == "__main__ ['-m', 'other'] ssm_kernels.compat.selective_scan 7\n"
    assert said.err == ""


def test_a_fork_beside_the_script_is_not_hidden_unasked(
    program: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (program.parent / "mamba_ssm").mkdir()
    (program.parent / "mamba_ssm" / "__init__.py").write_text("")
    with pytest.raises(SystemExit) as stop:
        main([str(program)])
    assert stop.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(
        f"error: ssm_kernels.compat would hide mamba_ssm in {program.parent}"
    )
    assert said.err.count("\n") == 1
    main(["--replace-installed", str(program)])
    assert "ssm_kernels.compat.selective_scan 7" in capsys.readouterr().out
    importlib.invalidate_caches()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [([], "expected a script"), (["no_such_script.py"], "no_such_script.py does not exist")],
)
def test_a_wrong_call(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
