"""What the package transformers runs for Mamba-2 without a GPU: its scan and its mixer."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


def load_scan(chunk_size: int) -> Callable[..., Tensor]:
    """Its SSD scan in plain PyTorch: (x, dt, A, B, C, D) -> y, see `ssm_kernels.ssd_scan`."""
    module = _module()
    if not hasattr(module, "mamba2_chunk_scan"):
        raise ImportError("this version of transformers has no mamba2_chunk_scan, 5.23 has")

    def scan(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
        y: Tensor = module.mamba2_chunk_scan(x, dt, A, B, C, chunk_size, D=D)
        return y

    return scan


def load_mixer(d_model: int, config: Any, chunk_size: int) -> nn.Module:
    """Its mixer with the sizes of our `config` (`ssm_core.Mamba2Config`); names are the same."""
    module = _module()
    options = module.Mamba2Config(
        hidden_size=d_model,
        num_heads=config.sizes(d_model).heads,
        head_dim=config.sizes(d_model).headdim,
        state_size=config.d_state,
        n_groups=config.ngroups,
        expand=config.expand,
        conv_kernel=config.d_conv,
        chunk_size=chunk_size,
        num_hidden_layers=1,
    )
    mixer: nn.Module = module.Mamba2Mixer(options, layer_idx=0)
    # older versions choose this themselves where there is no GPU
    mixer.forward = getattr(mixer, "torch_forward", mixer.forward)
    return mixer


def _module() -> Any:
    logging.getLogger("transformers").setLevel(logging.ERROR)  # that its kernels are missing
    return importlib.import_module("transformers.models.mamba2.modeling_mamba2")
