"""The report of `python -m ssm_kernels`."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import ssm_kernels
from ssm_kernels import native
from ssm_kernels.__main__ import report


def test_module_prints_the_report() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "ssm_kernels"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    versions = f"ssm-kernels {ssm_kernels.__version__}, torch {torch.__version__}"
    assert done.stdout.startswith(versions)


def test_report_with_native_kernels() -> None:
    lines = report().splitlines()
    assert "native CPU kernels: built" in lines
    for name, value in native.build_info().items():
        assert f"  {name}: {value}" in lines
    assert "SSM_KERNELS_BACKEND: auto" in lines
    rows = {line[:30].strip(): line[30:].split() for line in lines}
    assert rows["selective_scan"] == ["cpu", "reference"]
    assert rows["causal_conv1d"] == ["cpu", "reference"]


def test_report_without_native_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "AVAILABLE", False)
    monkeypatch.setattr(native, "IMPORT_ERROR", "file not found")
    text = report()
    assert "native CPU kernels: missing" in text
    assert "the native CPU kernels are not built (file not found); build them with" in text
    rows = {line[:30].strip(): line[30:].split() for line in text.splitlines()}
    assert rows["selective_scan"] == ["reference", "reference"]


def test_report_obeys_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSM_KERNELS_BACKEND", "cpu")
    text = report()
    assert "SSM_KERNELS_BACKEND: cpu" in text
    rows = {line[:30].strip(): line[30:].split() for line in text.splitlines()}
    assert rows["causal_conv1d"] == ["cpu", "error"]


def no_cuda() -> dict[str, object]:
    raise ImportError("No module named 'ssm_kernels._cuda'")


def test_report_with_and_without_cuda_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "cuda_problem", lambda device: None)
    monkeypatch.setattr(native, "cuda_info", lambda: {"runtime": "13.0", "architectures": "90"})
    text = report()
    assert "CUDA kernels: built\n  runtime: 13.0\n  architectures: 90\n" in text
    rows = {line[:30].strip(): line[30:].split() for line in text.splitlines()}
    assert rows["selective_scan"] == ["cpu", "cuda"]

    monkeypatch.setattr(native, "cuda_problem", lambda device: "the driver is too old")
    monkeypatch.setattr(native, "cuda_info", no_cuda)
    text = report()
    assert "CUDA kernels: missing\n" in text
    assert "  cuda: the driver is too old" in text
