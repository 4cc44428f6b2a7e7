"""What the package transformers runs for language models of Mamba without a GPU."""

from __future__ import annotations

import importlib
import logging
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from ssm_text import MambaLM
from ssm_text.official import to_official

CLASSES = {"mamba": "Mamba", "mamba2": "Mamba2"}


def load(model: MambaLM) -> nn.Module:
    """Its model with the weights of ours."""
    logging.getLogger("transformers").setLevel(logging.ERROR)  # that its kernels are missing
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the import, which is not what is measured
        transformers = importlib.import_module("transformers")
    tensors, config = to_official(model, "huggingface")
    name = CLASSES[model.config.mixer]
    options = getattr(transformers, f"{name}Config").from_dict(config)
    theirs: Any = getattr(transformers, f"{name}ForCausalLM")(options)
    theirs.load_state_dict(tensors, strict=False)  # a tied head is not repeated
    theirs.tie_weights()
    found: nn.Module = theirs.eval()
    return found


def prefill(theirs: Any, ids: Tensor) -> Tensor:
    """Logits (b, V) after ids (b, l)."""
    logits: Tensor = theirs(ids, use_cache=True, logits_to_keep=1).logits
    return logits[:, -1]


def continued(theirs: Any, ids: Tensor, count: int) -> Tensor:
    """The likeliest `count` tokens after ids (b, l), by its own loop: (b, l + count)."""
    generated: Tensor = theirs.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=count,
        min_new_tokens=count,
        do_sample=False,
        pad_token_id=0,
    )
    return generated
