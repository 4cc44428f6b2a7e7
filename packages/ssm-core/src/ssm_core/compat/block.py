"""The residual blocks of mamba_ssm, which hand two streams on: the branch and the sum before it.

Source: Gu & Dao 2023, arXiv:2312.00752, section 3.4. Equal to x + mixer(norm(x)) but for the place
of the addition: each block adds what the one before it computed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ssm_core.compat.cache import InferenceParams
from ssm_core.compat.norm import add_norm

Make = Callable[[int], nn.Module]
"""width -> module"""


class Block(nn.Module):
    """`mamba_ssm.modules.block.Block` of 2.x: a mixer and perhaps an MLP, each behind a norm.

    Parameters: norm, mixer, and with an MLP norm2 and mlp.
    """

    mlp: nn.Module | None
    layer_idx: int | None  # set by models on their blocks

    def __init__(
        self,
        dim: int,
        mixer_cls: Make,
        mlp_cls: Make,
        norm_cls: Make = nn.LayerNorm,
        fused_add_norm: bool = False,
        residual_in_fp32: bool = False,
    ) -> None:
        """Make a block of width `dim` from what makes its parts.

        Args:
            mlp_cls: `nn.Identity` means none.
            fused_add_norm: the norm reads the sum of the streams before it is rounded.
            residual_in_fp32: keep the sum in float32.
        """
        super().__init__()
        self.residual_in_fp32 = residual_in_fp32
        self.fused_add_norm = fused_add_norm
        self.norm = norm_cls(dim)
        self.mixer = mixer_cls(dim)
        self.mlp = None
        if mlp_cls is not nn.Identity:
            self.norm2 = norm_cls(dim)
            self.mlp = mlp_cls(dim)

    def forward(
        self,
        hidden_states: Tensor,
        residual: Tensor | None = None,
        inference_params: InferenceParams | None = None,
        **mixer_kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        """Return the block's branch and the sum that it is to be added to, both (b, l, d).

        Args:
            hidden_states: branch of the block before, or the input.
            residual: the sum that this one is to be added to; None: nothing.
            mixer_kwargs: further arguments of the mixer.
        """
        x, residual = self._add_norm(self.norm, hidden_states, residual)
        x = self.mixer(x, inference_params=inference_params, **mixer_kwargs)
        if self.mlp is not None:
            x, residual = self._add_norm(self.norm2, x, residual)
            x = self.mlp(x)
        return x, residual

    # the original's arguments, for the mixer
    def allocate_inference_cache(
        self, batch_size: int, max_seqlen: int, dtype: torch.dtype | None = None, **kwargs: Any
    ) -> Any:
        """Return the mixer's cache."""
        allocate: Any = self.mixer.allocate_inference_cache
        return allocate(batch_size, max_seqlen, dtype=dtype, **kwargs)

    def _add_norm(
        self, norm: nn.Module, x: Tensor, residual: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        return add_norm(norm, x, residual, self.fused_add_norm, self.residual_in_fp32)


class MixerBlock(Block):
    """`mamba_ssm.modules.mamba_simple.Block` of 1.x and of vision forks: a block without an MLP."""

    def __init__(
        self,
        dim: int,
        mixer_cls: Make,
        norm_cls: Make = nn.LayerNorm,
        fused_add_norm: bool = False,
        residual_in_fp32: bool = False,
    ) -> None:
        """Make a block of width `dim`; see `Block`."""
        super().__init__(dim, mixer_cls, nn.Identity, norm_cls, fused_add_norm, residual_in_fp32)

    def forward(  # type: ignore[override]  # fewer arguments, as in 1.x
        self,
        hidden_states: Tensor,
        residual: Tensor | None = None,
        inference_params: InferenceParams | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the block's branch and the sum that it is to be added to, both (b, l, d)."""
        return super().forward(hidden_states, residual, inference_params)
