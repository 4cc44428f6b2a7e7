"""`MambaLMHeadModel` of mamba_ssm.

Sources: Gu & Dao 2023, arXiv:2312.00752; Dao & Gu 2024, arXiv:2405.21060; tied weights: Press &
Wolf 2017, arXiv:1608.05859.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from ssm_core.compat.cache import InferenceParams
from ssm_core.errors import CheckpointError
from ssm_core.linear import Linear
from ssm_core.official.tensors import mismatches
from ssm_text.compat.config import MambaConfig, config_from
from ssm_text.compat.decoding import GenerationMixin
from ssm_text.compat.files import load_config_hf, load_state_dict_hf
from ssm_text.compat.mixer_model import MixerModel, init_weights
from ssm_text.official.names import EMBEDDING, HEAD, in_our_names
from ssm_text.weight_files import CONFIG

#: the one file that the original's `from_pretrained` reads
WEIGHTS = "pytorch_model.bin"
Model = TypeVar("Model", bound="MambaLMHeadModel")


class CausalLMOutput(NamedTuple):
    """What `MambaLMHeadModel` returns."""

    logits: Tensor
    """(b, l, V)"""


class MambaLMHeadModel(nn.Module, GenerationMixin):
    """Next-token logits: ids (b, l) -> .logits (b, l, V), to be called like the one of mamba_ssm.

    V is `config.vocab_size` rounded up to `config.pad_vocab_size_multiple`. Parameters:
    backbone (see `MixerModel`) and lm_head.weight (V, d), with `config.tie_embeddings` the
    embedding's.

    New code uses `ssm_text.MambaLM`, whose states are arguments and results.
    """

    def __init__(
        self,
        config: MambaConfig,
        initializer_cfg: dict[str, Any] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Make an untrained model.

        Args:
            initializer_cfg: further arguments of `ssm_text.compat.mixer_model.init_weights`.
        Raises:
            UnknownNameError, ConfigError: options that `create_block` refuses.
        """
        super().__init__()
        self.config = config
        multiple = config.pad_vocab_size_multiple
        rows = -(-config.vocab_size // multiple) * multiple
        self.backbone = MixerModel(
            config.d_model,
            config.n_layer,
            config.d_intermediate,
            rows,
            config.ssm_cfg,
            config.attn_layer_idx,
            config.attn_cfg,
            rms_norm=config.rms_norm,
            initializer_cfg=initializer_cfg,
            fused_add_norm=config.fused_add_norm,
            residual_in_fp32=config.residual_in_fp32,
            device=device,
            dtype=dtype,
        )
        self.lm_head = Linear(config.d_model, rows, bias=False, device=device, dtype=dtype)
        # once more, as in the original: with an MLP the branches end up divided by sqrt(n_layer)
        self.apply(partial(init_weights, n_layer=config.n_layer, **(initializer_cfg or {})))
        self.tie_weights()

    def tie_weights(self) -> None:
        """Make the head's matrix the embedding's, if the configuration says so."""
        if self.config.tie_embeddings:
            self.lm_head.weight = self.backbone.embedding.weight

    # `kwargs` are the original's, for the mixers
    def allocate_inference_cache(
        self, batch_size: int, max_seqlen: int, dtype: torch.dtype | None = None, **kwargs: Any
    ) -> dict[int, Any]:
        """Return the caches of all blocks by their number."""
        return self.backbone.allocate_inference_cache(batch_size, max_seqlen, dtype, **kwargs)

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor | None = None,
        inference_params: InferenceParams | None = None,
        num_last_tokens: int = 0,
        **mixer_kwargs: Any,
    ) -> CausalLMOutput:
        """Return an object with `.logits` of ids (b, l).

        Args:
            position_ids: not read; decoding loops pass them to every model.
            inference_params: see `ssm_core.compat.mamba.Mamba.forward`.
            num_last_tokens: only the logits of so many steps at the end; 0: all.
            mixer_kwargs: further arguments of the mixers.
        """
        x = self.backbone(input_ids, inference_params=inference_params, **mixer_kwargs)
        if num_last_tokens > 0:
            x = x[:, -num_last_tokens:]
        return CausalLMOutput(self.lm_head(x))

    @classmethod
    def from_pretrained(
        cls: type[Model],
        pretrained_model_name: str | Path,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **kwargs: Any,
    ) -> Model:
        """A model from a folder or the Hugging Face hub (extra `hub`); runs no code from there.

        Args:
            device, dtype: of the parameters; None: the defaults of PyTorch. A_log, D and dt_bias
                are float32 in any case.
            kwargs: further arguments of the constructor.
        Raises:
            CheckpointError: nothing is there, or it is damaged or of another model.
            ConfigError: the configuration is not one of state-spaces/mamba.
        """
        config = config_from(load_config_hf(pretrained_model_name))
        model = cls(config, device=device, dtype=dtype, **kwargs)
        tensors = in_our_names(load_state_dict_hf(pretrained_model_name))
        if config.tie_embeddings and EMBEDDING in tensors:  # a file need not repeat it
            tensors.setdefault(HEAD, tensors[EMBEDDING])
        problems = [text for text in mismatches(model.state_dict(), tensors) if text]
        if problems:
            raise CheckpointError(f"{pretrained_model_name}: does not fit: {'; '.join(problems)}")
        model.load_state_dict(tensors)
        return model

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write config.json and pytorch_model.bin, each all or nothing.

        A file of PyTorch, because the original reads no other; it is one of tensors alone.
        `ssm_text.MambaLM` reads and writes model.safetensors.
        """
        from ssm_core.train.checkpoint import write_atomically, write_text

        folder, tensors = Path(save_directory), self.state_dict()
        write_atomically(folder / WEIGHTS, lambda part: torch.save(dict(tensors), part))
        write_text(folder / CONFIG, json.dumps(vars(self.config), indent=4) + "\n")
