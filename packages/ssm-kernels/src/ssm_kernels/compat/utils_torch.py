"""mamba_ssm.utils.torch: decorators of autograd Functions, as copies of the original use them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Function = Callable[..., Any]


def custom_fwd(*args: Any, **kwargs: Any) -> Function:
    """Decorate a forward pass as `torch.amp.custom_fwd` does, for the autocast of CUDA."""
    decorated: Function = torch.amp.custom_fwd(*args, device_type="cuda", **kwargs)
    return decorated


def custom_bwd(*args: Any, **kwargs: Any) -> Function:
    """Decorate a backward pass as `torch.amp.custom_bwd` does, for the autocast of CUDA."""
    decorated: Function = torch.amp.custom_bwd(*args, device_type="cuda", **kwargs)
    return decorated
