"""transformers' models on our operators: the numbers of its own PyTorch functions, everywhere."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from ssm_kernels import ArgumentError, BackendError, huggingface
from ssm_kernels.huggingface import dispatch, functions, patch

COMMON = {"vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 2, "pad_token_id": 0}
ATTENTION = {"num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 48}
HEADS = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 16, "mamba_n_groups": 2}
MAMBA2 = {"num_heads": 4, "head_dim": 16, "state_size": 16, "n_groups": 2, "chunk_size": 8}
JAMBA = {"attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 1, "mamba_dt_rank": 4}
CONFIGS: dict[str, dict[str, Any]] = {
    "Mamba": {"state_size": 8},
    "FalconMamba": {"state_size": 8},
    "Mamba2": MAMBA2,
    "Jamba": ATTENTION | JAMBA | {"mamba_d_state": 8},
    "Bamba": ATTENTION | HEADS | {"attn_layer_indices": [1], "mamba_chunk_size": 8},
    "FalconH1": ATTENTION | HEADS | {"mamba_d_ssm": 64, "mamba_chunk_size": 8},
}


def build(family: str, **changes: Any) -> nn.Module:
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**COMMON | CONFIGS[family] | changes)
    model: nn.Module = getattr(transformers, f"{family}ForCausalLM")(config)
    for parameter in model.parameters():  # biases and norms at their start hide mistakes
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model.eval()
