"""Which backend runs, and what is said about it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import ssm_kernels
from ssm_kernels import (
    Backend,
    BackendError,
    SsmError,
    SsmKernelsWarning,
    backends,
    causal_conv1d,
    diagonal_scan,
    native,
    selective_scan,
)


def scan(device: str = "cpu", is_complex: bool = False, **options: object) -> Tensor:
    u = torch.ones(1, 2, 3, device=device)
    A = -torch.ones(3, 4, device=device)
    B = torch.ones(1, 2, 4, device=device)
    y = selective_scan(u, u, A.to(torch.complex64) if is_complex else A, B, B, **options)
    assert isinstance(y, Tensor)
    return y


def conv(device: str = "cpu", **options: object) -> Tensor:
    x = torch.ones(1, 2, 3, device=device)
    y = causal_conv1d(x, torch.ones(3, 4, device=device), **options)
    assert isinstance(y, Tensor)
    return y


def diagonal(device: str = "cpu", **options: object) -> Tensor:
    u = torch.ones(1, 2, 3, device=device)
    h = diagonal_scan(u, u, **options)
    assert isinstance(h, Tensor)
    return h


OPERATORS = [
    pytest.param(scan, id="selective_scan"),
    pytest.param(conv, id="causal_conv1d"),
    pytest.param(diagonal, id="diagonal_scan"),
]
Call = Callable[..., Tensor]


@pytest.fixture
def not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "AVAILABLE", False)
    monkeypatch.setattr(native, "IMPORT_ERROR", "No module named 'ssm_kernels._native'")


@pytest.mark.parametrize("call", OPERATORS)
def test_auto_runs_the_native_kernel_without_a_word(call: Call) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(call(), call(backend="cpu"))


@pytest.mark.usefixtures("not_built")
@pytest.mark.parametrize("call", OPERATORS)
def test_auto_without_native_kernel_says_so_once(
    call: Call, request: pytest.FixtureRequest
) -> None:
    with pytest.warns(SsmKernelsWarning) as notices:
        first, second = call(), call()
    assert torch.equal(first, second)
    assert len(notices) == 1
    operator = request.node.callspec.id
    assert str(notices[0].message) == (
        f"{operator} runs the slow PyTorch reference on cpu: the native CPU kernels are not built "
        "(No module named 'ssm_kernels._native'); build them with a C++17 compiler: "
        "`pip install --force-reinstall --no-deps ssm-kernels` "
        "(in a checkout: `pip install --no-deps ./packages/ssm-kernels`)"
    )
    assert notices[0].filename == __file__  # points at the caller


@pytest.mark.usefixtures("not_built")
@pytest.mark.parametrize("call", OPERATORS)
def test_named_backend_without_native_kernel_raises(call: Call) -> None:
    with pytest.raises(BackendError, match=r"backend 'cpu' cannot run: .*pip install") as caught:
        call(backend="cpu")
    assert isinstance(caught.value, (SsmError, RuntimeError))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("call", OPERATORS)
def test_other_devices_run_the_reference_with_a_notice(call: Call) -> None:
    with pytest.warns(SsmKernelsWarning, match="no native kernel for meta tensors"):
        y = call("meta")
    assert y.shape == (1, 2, 3)


@pytest.mark.parametrize("call", OPERATORS)
def test_named_reference_is_silent_everywhere(call: Call) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert call("meta", backend=Backend.REFERENCE).device.type == "meta"


@pytest.mark.parametrize("call", OPERATORS)
@pytest.mark.parametrize("problem", [None, "no NVIDIA driver was found; install one"])
def test_cuda_backend_refuses_cpu_tensors(
    call: Call, problem: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "cuda_problem", lambda device: problem)
    reason = problem or r"the tensors are on cpu; move them with \.to\('cuda'\)"
    with pytest.raises(BackendError, match=f"backend 'cuda' cannot run: {reason}"):
        call(backend="cuda")


def test_auto_chooses_cuda_where_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(native, "cuda_problem", asked.append)  # returns None
    assert backends.choose_backend("scan", "auto", torch.device("cuda", 1)) is Backend.CUDA
    assert backends.choose_backend("scan", "cuda", torch.device("cuda", 1)) is Backend.CUDA
    assert asked == [1, 1]


def test_auto_says_why_cuda_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "cuda_problem", lambda device: "the driver is too old")
    with pytest.warns(SsmKernelsWarning, match="on cuda: the driver is too old"):
        assert backends.choose_backend("scan", "auto", torch.device("cuda")) is Backend.REFERENCE


@pytest.mark.parametrize("call", OPERATORS)
def test_cpu_backend_refuses_other_devices(call: Call) -> None:
    with pytest.raises(BackendError, match="the tensors are on meta; move them"):
        call("meta", backend="cpu")


@pytest.mark.parametrize("call", OPERATORS)
def test_unknown_backend(call: Call) -> None:
    with pytest.raises(
        BackendError,
        match=r"backend is 'gpu', expected one of 'auto', 'reference', 'cpu', 'cuda'",
    ):
        call(backend="gpu")


def test_complex_runs_the_native_kernel_without_a_word() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y = scan(is_complex=True)
    assert torch.equal(y, scan(is_complex=True, backend="cpu"))
    assert torch.allclose(y, scan(is_complex=True, backend="reference"))


def test_environment_variable_replaces_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSM_KERNELS_BACKEND", "reference")
    cpu = torch.device("cpu")
    assert backends.choose_backend("scan", "auto", cpu) is Backend.REFERENCE
    assert backends.choose_backend("scan", "cpu", cpu) is Backend.CPU


def test_environment_variable_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSM_KERNELS_BACKEND", "fast")
    with pytest.raises(BackendError, match="scan: SSM_KERNELS_BACKEND is 'fast', expected one of"):
        backends.choose_backend("scan", "auto", torch.device("cpu"))


def test_missing_extension_is_named_and_the_reference_runs(tmp_path: Path) -> None:
    """A copy of the package without its compiled part, in a process of its own."""
    source = Path(ssm_kernels.__file__).parent
    copy = tmp_path / "ssm_kernels"
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("_native*", "__pycache__"))
    code = """
import importlib.machinery, sys, torch
sys.meta_path[:] = [m for m in sys.meta_path if m is importlib.machinery.PathFinder or
                    m in (importlib.machinery.BuiltinImporter, importlib.machinery.FrozenImporter)]
import ssm_kernels
x = torch.ones(1, 4, 2)
print(ssm_kernels.causal_conv1d(x, torch.ones(2, 2)).sum().item())
ssm_kernels.causal_conv1d(x, torch.ones(2, 2))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "14.0\n"
    notices = [line for line in done.stderr.splitlines() if "SsmKernelsWarning" in line]
    assert len(notices) == 1
    assert "No module named 'ssm_kernels._native'" in notices[0]
    assert "pip install --no-deps ./packages/ssm-kernels" in notices[0]
