"""The language models of mamba_ssm on the layers of these packages, under their names.

`ssm_kernels.compat` makes `import mamba_ssm` find them; nothing here does so by itself.
"""

from __future__ import annotations

import gc
import time
from collections import namedtuple
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Optional, Union

import torch
from einops import rearrange, repeat
from torch import Tensor
from torch.nn import functional as F

from ssm_core.compat.block import Block
from ssm_core.compat.mamba import Mamba
from ssm_core.compat.mamba2 import Mamba2
from ssm_kernels.compat.layer_norm import RMSNorm, layer_norm_fn, rms_norm_fn
from ssm_text.compat.config import MambaConfig
from ssm_text.compat.decoding import DecodeOutput, GenerationMixin, Streamer, decode, sample
from ssm_text.compat.files import load_config_hf, load_state_dict_hf
from ssm_text.compat.graphs import (
    DecodingCGCache,
    _update_kv_cache,
    capture_graph,
    modify_logit_for_repetition_penalty,
    modify_logits_for_min_p_filtering,
    modify_logits_for_top_k_filtering,
    modify_logits_for_top_p_filtering,
    update_graph_cache,
)
from ssm_text.compat.lm_head import MambaLMHeadModel
from ssm_text.compat.mha import MHA
from ssm_text.compat.mixer_model import MixerModel, create_block, init_weights
from ssm_text.compat.mlp import GatedMLP

__all__ = ["compat_modules"]

# `from mamba_ssm.utils.generation import *` also gives what that module imports, and public code
# goes on with these names.
_IMPORTED_THERE: dict[str, Any] = {
    **{"torch": torch, "F": F, "Tensor": Tensor, "rearrange": rearrange, "repeat": repeat},
    **{"dataclass": dataclass, "field": field, "partial": partial},
    **{"gc": gc, "namedtuple": namedtuple, "time": time},
    **{"TextStreamer": Streamer, "GenerateDecoderOnlyOutput": DecodeOutput},  # transformers'
    **{"Callable": Callable, "Sequence": Sequence, "Optional": Optional, "Union": Union},
}


def compat_modules() -> dict[str, dict[str, object]]:
    """Return original module path -> name there -> what stands for it."""
    files: dict[str, object] = {
        "load_config_hf": load_config_hf,
        "load_state_dict_hf": load_state_dict_hf,
    }
    parts = {
        # modules of the original have these too, and public code takes them from there
        **{"Mamba": Mamba, "Mamba2": Mamba2, "MHA": MHA, "GatedMLP": GatedMLP, "Block": Block},
        **{"RMSNorm": RMSNorm, "layer_norm_fn": layer_norm_fn, "rms_norm_fn": rms_norm_fn},
        **{"MambaConfig": MambaConfig, "GenerationMixin": GenerationMixin, **files},
    }
    return {
        "mamba_ssm": {"MambaLMHeadModel": MambaLMHeadModel},
        "mamba_ssm.models.config_mamba": {"MambaConfig": MambaConfig},
        "mamba_ssm.models.mixer_seq_simple": {
            "MambaLMHeadModel": MambaLMHeadModel,
            "MixerModel": MixerModel,
            "create_block": create_block,
            "_init_weights": init_weights,
            **parts,
        },
        "mamba_ssm.modules.mha": {"MHA": MHA, "_update_kv_cache": _update_kv_cache},
        "mamba_ssm.modules.mlp": {"GatedMLP": GatedMLP},
        "mamba_ssm.utils.generation": {
            "GenerationMixin": GenerationMixin,
            "decode": decode,
            "sample": sample,
            "DecodingCGCache": DecodingCGCache,
            "capture_graph": capture_graph,
            "modify_logit_for_repetition_penalty": modify_logit_for_repetition_penalty,
            "modify_logits_for_min_p_filtering": modify_logits_for_min_p_filtering,
            "modify_logits_for_top_k_filtering": modify_logits_for_top_k_filtering,
            "modify_logits_for_top_p_filtering": modify_logits_for_top_p_filtering,
            "update_graph_cache": update_graph_cache,
            **_IMPORTED_THERE,
        },
        "mamba_ssm.utils.hf": files,
    }
