"""Make the helpers beside the tests importable; initial values do not depend on earlier tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def _same_initial_values_every_time() -> None:
    torch.manual_seed(0)
