"""Language models from checkpoints of the original repositories, and back.

model = ssm_text.from_official(state_dict, config)
state_dict, config = to_official(model, "huggingface")
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ssm_core.official.tensors import StateDict, Tensors, collect
from ssm_text.mamba_lm import MambaLM
from ssm_text.official.config import Format, read_config
from ssm_text.official.export import to_official
from ssm_text.official.fill import Placement, fill
from ssm_text.official.names import in_our_names

__all__ = ["Format", "from_official", "to_official"]

OWNER = "mamba-lm"


def from_official(
    state_dict: StateDict,
    config: Mapping[str, Any],
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> MambaLM:
    """Build a language model from the tensors of state-spaces/mamba (`MambaLMHeadModel`) or of
    transformers (`MambaForCausalLM`, `Mamba2ForCausalLM`), in evaluation mode.

    The names of the tensors and the configuration may be of either, whichever goes with which. The
    tensors are copied. Nothing is unpickled.

    Args:
        state_dict: name -> tensor. Names may lack "backbone.", and "lm_head.weight" where it is
            tied to the embedding; "module." and "_orig_mod." of wrappers are dropped.
        config: content of the model's config.json. Keys that say nothing about what is computed,
            and unknown ones, are ignored; unknown options of the mixer (`ssm_cfg`) are not.
        dtype: type of the weights; None: that of the tensors. What decides over decays (A_log, D,
            step-size biases) stays float32 where `dtype` is a half precision.
        device: where the model goes; None: where the tensors are.
    Raises:
        ConfigError: a configuration that contradicts itself or that this model cannot have.
        CheckpointError: tensors are missing, left over or misshapen: one line with all of them.

    Cost: one copy of the tensors; the model is built without memory of its own.
    """
    tensors = collect(OWNER, state_dict, "", ".")
    return build(tensors, config, Placement(dtype, device, copy=True))


def build(tensors: Tensors, config: Mapping[str, Any], placement: Placement) -> MambaLM:
    """Do what `from_official` does; without `placement.copy` the tensors become the parameters."""
    options = read_config(config)
    with torch.device("meta"):
        model = MambaLM(options)
    return fill(OWNER, model, in_our_names(tensors), placement).eval()
