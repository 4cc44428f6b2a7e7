"""`MixerModel`, `create_block` and `_init_weights` of mamba_ssm.

Sources: Gu & Dao 2023, arXiv:2312.00752; Radford et al. 2019, GPT-2 (residual rescaling).
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ssm_core.compat.block import Block
from ssm_core.compat.cache import InferenceParams
from ssm_core.compat.mamba import Mamba
from ssm_core.compat.mamba2 import Mamba2
from ssm_core.compat.mamba3 import Mamba3
from ssm_core.compat.norm import add_norm
from ssm_core.errors import UnknownNameError
from ssm_kernels.compat.layer_norm import RMSNorm
from ssm_text.compat.mha import MHA
from ssm_text.compat.mlp import GatedMLP

Config = dict[str, Any]
MIXERS = {"Mamba1": Mamba, "Mamba2": Mamba2, "Mamba3": Mamba3}


# The arguments and their order are the original's, here and below.
def create_block(
    d_model: int,
    d_intermediate: int,
    ssm_cfg: Config | None = None,
    attn_layer_idx: list[int] | None = None,
    attn_cfg: Config | None = None,
    norm_epsilon: float = 1e-5,
    rms_norm: bool = False,
    residual_in_fp32: bool = False,
    fused_add_norm: bool = False,
    layer_idx: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Block:
    """Make block number `layer_idx` of a model; for the arguments see `MambaConfig`.

    Raises:
        UnknownNameError: an `ssm_cfg["layer"]` that is not there.
        ConfigError: options that the mixer refuses.
    """
    factory: Config = {"device": device, "dtype": dtype}
    mixer: Any
    if layer_idx in (attn_layer_idx or ()):
        mixer = partial(MHA, layer_idx=layer_idx, **(attn_cfg or {}), **factory)
    else:
        options = dict(ssm_cfg or {})
        layer = options.pop("layer", "Mamba1")
        if layer not in MIXERS:
            raise UnknownNameError.of("ssm_cfg layer", str(layer), MIXERS)
        mixer = partial(MIXERS[layer], layer_idx=layer_idx, **options, **factory)
    norm: Any = partial(RMSNorm if rms_norm else nn.LayerNorm, eps=norm_epsilon, **factory)
    mlp: Any = nn.Identity
    if d_intermediate:
        mlp = partial(GatedMLP, hidden_features=d_intermediate, out_features=d_model, **factory)
    block = Block(d_model, mixer, mlp, norm, fused_add_norm, residual_in_fp32)
    block.layer_idx = layer_idx
    return block


@torch.no_grad()
def init_weights(
    module: nn.Module,
    n_layer: int,
    initializer_range: float = 0.02,
    rescale_prenorm_residual: bool = True,
    n_residuals_per_layer: int = 1,
) -> None:
    """Set the initial values of one module of a model with `n_layer` blocks; for `Module.apply`.

    Biases of a Linear become 0 unless marked `_no_reinit`, embeddings N(0, initializer_range^2).
    With `rescale_prenorm_residual` the last matrix of each branch is drawn anew, divided by
    sqrt(n_residuals_per_layer n_layer).
    """
    if next(module.parameters(), torch.empty(0)).is_meta:  # nothing to fill
        return
    if isinstance(module, nn.Linear) and module.bias is not None:
        if not getattr(module.bias, "_no_reinit", False):
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=initializer_range)
    if rescale_prenorm_residual:
        for name, weight in module.named_parameters():
            if name in ("out_proj.weight", "fc2.weight"):
                nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
                weight.div_(math.sqrt(n_residuals_per_layer * n_layer))


class MixerModel(nn.Module):
    """Embedding, blocks and final norm: ids (b, l) -> (b, l, d).

    Parameters: embedding.weight, layers.{i}.norm, .mixer (and .norm2, .mlp), norm_f.
    """

    def __init__(
        self,
        d_model: int,
        n_layer: int,
        d_intermediate: int,
        vocab_size: int,
        ssm_cfg: Config | None = None,
        attn_layer_idx: list[int] | None = None,
        attn_cfg: Config | None = None,
        norm_epsilon: float = 1e-5,
        rms_norm: bool = False,
        initializer_cfg: Config | None = None,
        fused_add_norm: bool = False,
        residual_in_fp32: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Make a model; for the arguments see `MambaConfig`.

        Args:
            initializer_cfg: further arguments of `init_weights`.
        Raises:
            UnknownNameError, ConfigError: options that `create_block` refuses.
        """
        super().__init__()
        self.residual_in_fp32, self.fused_add_norm = residual_in_fp32, fused_add_norm
        # not nn.Embedding(..), which draws values of its own first
        weight = torch.empty(vocab_size, d_model, device=device, dtype=dtype)
        self.embedding = nn.Embedding.from_pretrained(weight, freeze=False)
        make = partial(
            create_block,
            *(d_model, d_intermediate, ssm_cfg, attn_layer_idx, attn_cfg, norm_epsilon, rms_norm),
            *(residual_in_fp32, fused_add_norm),
            device=device,
            dtype=dtype,
        )
        self.layers = nn.ModuleList(make(layer_idx=i) for i in range(n_layer))
        norm: Any = RMSNorm if rms_norm else nn.LayerNorm
        self.norm_f = norm(d_model, eps=norm_epsilon, device=device, dtype=dtype)
        branches = 2 if d_intermediate else 1
        self.apply(
            partial(
                init_weights,
                n_layer=n_layer,
                n_residuals_per_layer=branches,
                **(initializer_cfg or {}),
            )
        )

    # `kwargs` are the original's, for the mixers
    def allocate_inference_cache(
        self, batch_size: int, max_seqlen: int, dtype: torch.dtype | None = None, **kwargs: Any
    ) -> dict[int, Any]:
        """Return the caches of all blocks by their number."""
        caches: dict[int, Any] = {}
        for i, block in enumerate(self.layers):
            allocate: Any = block.allocate_inference_cache
            caches[i] = allocate(batch_size, max_seqlen, dtype=dtype, **kwargs)
        return caches

    def forward(
        self,
        input_ids: Tensor,
        inference_params: InferenceParams | None = None,
        **mixer_kwargs: Any,
    ) -> Tensor:
        """Map ids (b, l) to (b, l, d); `mixer_kwargs` go to the mixers."""
        x: Tensor = self.embedding(input_ids)
        residual: Tensor | None = None
        for block in self.layers:
            x, residual = block(x, residual, inference_params=inference_params, **mixer_kwargs)
        norm_f = self.norm_f
        return add_norm(norm_f, x, residual, self.fused_add_norm, self.residual_in_fp32)[0]
