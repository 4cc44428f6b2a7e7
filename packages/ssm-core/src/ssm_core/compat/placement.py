"""The arguments `device` and `dtype` of the original constructors."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn


def made_on(device: torch.device | str | None) -> AbstractContextManager[object]:
    """Within it, parameters are made on `device`; None: where they are made anyway."""
    return nullcontext() if device is None else torch.device(device)


def convert(dtype: torch.dtype | None, *modules: nn.Module | None) -> None:
    """Convert the parameters of `modules` in place, their marks for optimizers included."""
    for module in modules:
        if module is not None and dtype is not None:
            module.to(dtype)
