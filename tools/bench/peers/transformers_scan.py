"""What the package transformers runs for Mamba without a GPU: its function in plain PyTorch."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from torch import Tensor


def load() -> Callable[..., Tensor]:
    module = importlib.import_module("transformers.models.mamba.modeling_mamba")
    if not hasattr(module, "mamba_selective_scan"):
        raise ImportError("this version of transformers has no mamba_selective_scan, 5.23 has")
    function: Callable[..., Tensor] = module.mamba_selective_scan
    return function
