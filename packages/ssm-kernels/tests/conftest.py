"""Make the helpers beside the tests importable; start every test with the notices not yet given."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ssm_kernels import backends, native, native_extension

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def _fresh_notices(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(backends, "_notified", set())
    monkeypatch.delenv(backends.ENVIRONMENT_VARIABLE, raising=False)
    backends._environment_backend.cache_clear()
    yield
    backends._environment_backend.cache_clear()


@pytest.fixture(params=native.available_isas() if native.AVAILABLE else [])
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the test once per instruction set."""
    before = native.isa()
    native.set_isa(request.param)
    yield request.param
    native.set_isa(before)


@pytest.fixture(
    params=["forwards", "backwards", pytest.param("gpu", marks=pytest.mark.gpu, id="gpu")]
)
def simulated(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the tensors that a test makes run the CUDA kernels.

    CPU tensors, simulated on the host: once with the threads of a block from the first to the last,
    once the other way: what needs a barrier that is not there differs. With `pytest -m gpu` new
    tensors are on the GPU instead.
    """
    if request.param == "gpu":
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")
        problem = native.cuda_problem()
        assert problem is None, problem
        with torch.device("cuda"):
            yield
        return
    module = pytest.importorskip("ssm_kernels._simulated", reason="built by `make setup` only")
    monkeypatch.setattr(native_extension, "_on_host", module)
    module.set_backwards(request.param == "backwards")
    yield
    module.set_backwards(False)


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)
