"""Make the helpers beside the tests importable; start every test with the notices not yet given."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ssm_kernels import backends, native

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


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)
