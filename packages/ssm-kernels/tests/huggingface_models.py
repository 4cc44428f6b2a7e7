"""Tiny models of transformers for the tests of `ssm_kernels.huggingface`."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
import transformers
from torch import Tensor, nn

from ssm_kernels.huggingface import functions, inference

VOCABULARY = 61
COMMON = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2}
ATTENTION = {"num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 48}
HEADS = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 16, "mamba_n_groups": 2}
JAMBA = {"attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 1, "mamba_dt_rank": 4}
CONFIGS: dict[str, dict[str, Any]] = {
    "Mamba": {"state_size": 8},
    "FalconMamba": {"state_size": 8},
    "Mamba2": {"num_heads": 4, "head_dim": 16, "state_size": 16, "n_groups": 2, "chunk_size": 8},
    "Jamba": ATTENTION | JAMBA | {"mamba_d_state": 8},
    "Bamba": ATTENTION | HEADS | {"attn_layer_indices": [1], "mamba_chunk_size": 8},
    "FalconH1": ATTENTION | HEADS | {"mamba_d_ssm": 64, "mamba_chunk_size": 8},
}


def build(family: str, **changes: Any) -> nn.Module:
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**COMMON | CONFIGS[family] | changes)
    model: nn.Module = getattr(transformers, f"{family}ForCausalLM")(config)
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms as they start hide mistakes
            parameter += 0.05 * torch.randn_like(parameter)
    return model.eval()


def tokens(b: int = 2, l: int = 11) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(1, VOCABULARY, (b, l), generator=generator)


def mixers(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if hasattr(module, "A_log")]


class Calls(NamedTuple):
    """How often each of our operators was called through the functions of the package."""

    counts: dict[str, int]

    @property
    def scans(self) -> int:
        names = ("selective_scan", "ssd_scan", "fused_mamba_directions")
        return sum(self.counts[name] for name in names)


def count_calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    names = ("selective_scan", "ssd_scan", "conv1d", "conv1d_update", "selective_state_update")
    fused = ("fused_mamba_directions", "fused_rms_norm", "fused_gated_rms_norm", "fused_linear")
    counts = dict.fromkeys((*names, *fused), 0)

    def counted(module: Any, name: str) -> Any:
        operator = getattr(module, name)

        def call(*arguments: Any, **options: Any) -> Any:
            result = operator(*arguments, **options)
            counts[name] += result is not None  # None: it leaves the call to others
            return result

        return call

    for module, own in ((functions, names), (inference, fused)):
        for name in own:
            monkeypatch.setattr(module, name, counted(module, name))
    return Calls(counts)
