"""Switching the stand-ins on and off, and what is in their way."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from ssm_kernels.compat import ShadowError, install, uninstall
from ssm_kernels.compat.catalogue import roots

pytestmark = pytest.mark.usefixtures("_off")


def test_nothing_is_there_before_and_after() -> None:
    assert importlib.util.find_spec("mamba_ssm") is None
    before = list(sys.meta_path), set(sys.modules)
    install(quiet=True)
    for root in roots():
        importlib.import_module(root)
        assert importlib.util.find_spec(root) is not None
    install(quiet=True)  # a second call changes nothing
    assert len(sys.meta_path) == len(before[0]) + 1
    uninstall()
    assert sys.meta_path == before[0]
    assert not [name for name in set(sys.modules) - before[1] if name.partition(".")[0] in roots()]
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("mamba_ssm")


def test_says_in_one_line_what_it_replaces(capsys: pytest.CaptureFixture[str]) -> None:
    install()
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert all(root in said.err for root in roots())
    uninstall()
    install(quiet=True)
    assert capsys.readouterr().err == ""


def test_an_installed_package_is_not_hidden_unasked(real_package: str) -> None:
    with pytest.raises(ShadowError, match=rf"mamba_ssm of the installed {real_package}.*replace"):
        install()
    assert importlib.import_module("mamba_ssm").ORIGIN == "the real one"
    assert issubclass(ShadowError, ImportError)


def test_an_installed_package_is_hidden_on_request_and_comes_back(
    real_package: str, capsys: pytest.CaptureFixture[str]
) -> None:
    real = importlib.import_module("mamba_ssm.deep")
    with pytest.raises(ShadowError, match="imported already"):
        install()
    install(replace_installed=True)
    assert "instead of mamba_ssm" in capsys.readouterr().err
    assert hasattr(importlib.import_module("mamba_ssm"), "selective_scan_fn")
    uninstall()
    assert importlib.import_module("mamba_ssm.deep") is real
    assert importlib.import_module("mamba_ssm").ORIGIN == "the real one"
    for name in ("mamba_ssm", "mamba_ssm.deep"):
        del sys.modules[name]


def test_a_module_made_by_hand_is_in_the_way_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "selective_scan_cuda", ModuleType("selective_scan_cuda"))
    with pytest.raises(ShadowError, match="selective_scan_cuda, which is imported already"):
        install()
    assert importlib.util.find_spec("mamba_ssm") is None


def test_a_folder_that_is_no_package_is_not_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "causal_conv1d").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    install(quiet=True)
    assert hasattr(importlib.import_module("causal_conv1d"), "causal_conv1d_fn")
