"""`Mamba3` with the constructor and the calls of mamba_ssm.

Source: Lahoti et al. 2026, arXiv:2603.15569.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ssm_core.compat.arguments import plain
from ssm_core.compat.cache import InferenceParams, cached_states
from ssm_core.compat.packing import offsets_of, with_rest
from ssm_core.compat.placement import convert, made_on
from ssm_core.errors import ConfigError
from ssm_core.layers import mamba3
from ssm_core.layers.mamba3 import Mamba3State
from ssm_core.layers.mamba3_config import Mamba3Config
from ssm_core.norm import at_least_float32
from ssm_kernels.errors import ShapeError

States = tuple[Tensor, Tensor, Tensor, Tensor]
"""Angles (b, h, K), the scan's state (b, h, p, n), the last B (b, 1, h, n) and input (b, h, p)."""


class Mamba3(mamba3.Mamba3):
    """Mamba-3 mixer with one input and output, (b, l, d) -> (b, l, d), like the one of mamba_ssm.

    Parameters are those of `ssm_core.Mamba3`; dt_bias, D, B_bias and C_bias are float32 whatever
    `dtype`. `forward` and `step` have other arguments than those of a sequence layer, so it cannot
    stand where one is expected. New code uses `ssm_core.Mamba3`.
    """

    # The arguments and their order are the original's, and so is that others are ignored.
    def __init__(
        self,
        d_model: int,
        d_state: int = 128,
        expand: float = 2,
        headdim: int = 64,
        ngroups: int = 1,
        rope_fraction: float = 0.5,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init_floor: float = 1e-4,
        A_floor: float = 1e-4,
        is_outproj_norm: bool = False,
        is_mimo: bool = False,
        mimo_rank: int = 4,
        fuse_pregate_headwise_norm: bool = True,
        chunk_size: int = 64,
        dropout: float = 0.0,
        layer_idx: int | None = None,
        n_layer: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **kwargs: Any,
    ) -> None:
        """Make a mixer.

        Args:
            d_state .. is_outproj_norm: as in `ssm_core.Mamba3Config`; `expand` need not be whole.
            is_mimo: False; `mimo_rank` and `fuse_pregate_headwise_norm` belong to True.
            chunk_size: kept as an attribute; the scan here chooses its own chunks.
            layer_idx: where the cache is kept in `InferenceParams`.
            dropout, n_layer, kwargs: ignored, as in the original.
        Raises:
            ConfigError: a value out of range, sizes that do not divide one another, or `is_mimo`.
        """
        if is_mimo:
            raise ConfigError(
                "Mamba3: is_mimo is True, expected False: several inputs and outputs per channel "
                "are not there; use is_mimo=False"
            )
        d_model, d_state, headdim = plain(d_model), plain(d_state), plain(headdim)
        config = Mamba3Config(
            d_state=d_state,
            d_inner=int(expand * d_model),
            headdim=headdim,
            ngroups=plain(ngroups),
            rope_fraction=rope_fraction,
            dt_min=dt_min,
            dt_max=dt_max,
            dt_init_floor=dt_init_floor,
            A_floor=A_floor,
            is_outproj_norm=is_outproj_norm,
        )
        with made_on(device):
            super().__init__(d_model, config)
        convert(dtype, self.in_proj, self.B_norm, self.C_norm, self.norm, self.out_proj)
        self.d_state, self.expand, self.headdim = d_state, expand, headdim
        self.d_inner, self.nheads = self.sizes.d_inner, self.sizes.heads
        self.num_bc_heads, self.num_rope_angles = config.ngroups, self.sizes.angles
        self.rotary_dim_divisor = int(2 / rope_fraction)
        self.split_tensor_size = 2 * self.sizes.angles
        self.chunk_size, self.layer_idx, self.A_floor = chunk_size, layer_idx, A_floor
        self.is_outproj_norm, self.is_mimo, self.mimo_rank = is_outproj_norm, False, 1
        self.fuse_pregate_headwise_norm = False  # with is_mimo alone, in the original too

    def forward(  # type: ignore[override]
        self,
        u: Tensor,
        seq_idx: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        inference_params: InferenceParams | None = None,
    ) -> Tensor:
        """Map (b, l, d) to (b, l, d).

        Args:
            seq_idx: (b, l) integers; where they change along l, another sequence begins. The
                original ignores it.
            cu_seqlens: offsets [0, ..] of sequences packed in u (1, l, d), instead of `seq_idx`.
                Steps behind the last are padding.
            inference_params: the states after the last step go into the cache there, of each packed
                sequence its own; with a `seqlen_offset` above 0 this is one step that continues
                from them.
        Raises:
            ShapeError, DTypeError, ArgumentError: an input of another shape, or offsets that do not
                fit.
            ConfigError: a cache was asked of a mixer without `layer_idx`.
        """
        if cu_seqlens is None:
            offsets = offsets_of(u, seq_idx, "Mamba3")
        else:
            offsets = with_rest(cu_seqlens, u.shape[:-1].numel())
        rows = u if offsets is None or len(u) == 1 else u.flatten(0, 1).unsqueeze(0)
        self.check_call(rows, cu_seqlens=offsets)
        if inference_params is None:
            return self.mix(rows, None, offsets, return_state=False)[0].view_as(u)
        padding = int(cu_seqlens is not None)
        batch = len(rows) if offsets is None else len(offsets) - 1 - padding
        states = self._get_states_from_cache(inference_params, batch)
        if inference_params.seqlen_offset > 0:
            return self.step(u, *states)[0]
        y, state = self.mix(rows, None, offsets, return_state=True)
        _write(states, Mamba3State(*(part[:batch] for part in state)))
        return y.view_as(u)

    # `kwargs` are the original's, and ignored there too
    def step(  # type: ignore[override]
        self,
        u: Tensor,
        angle_state: Tensor,
        ssm_state: Tensor,
        k_state: Tensor,
        v_state: Tensor,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Map one step (b, d) or (b, 1, d) to the same shape; the states are advanced in place.

        Args:
            angle_state: (b, h, K).
            ssm_state: (b, h, p, n).
            k_state: (b, 1, h, n).
            v_state: (b, h, p).
        Returns:
            y and the four states.
        Raises:
            ShapeError: u is neither (b, d) nor (b, 1, d).
        """
        x = u.unsqueeze(1) if u.dim() == 2 else u
        if x.dim() != 3 or x.shape[1] != 1:
            raise ShapeError(
                f"Mamba3.step: u has shape {tuple(u.shape)}, expected (b, d) or (b, 1, d): after "
                "the prompt (seqlen_offset above 0) steps are read one at a time"
            )
        self.check_call(x)
        states = (angle_state, ssm_state, k_state, v_state)
        old = Mamba3State(angle_state, ssm_state, k_state.squeeze(1), v_state)
        # what a gradient needs must not be overwritten
        old = Mamba3State(*(at_least_float32(part).clone() for part in old))
        y, new = self.mix(x, old, None, return_state=True)
        _write(states, new)
        return y.view_as(u), *states

    # `max_seqlen`, `inplace_state` and `kwargs` are the original's; none changes these states.
    def allocate_inference_cache(
        self,
        batch_size: int,
        max_seqlen: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        inplace_state: object = None,
        **kwargs: Any,
    ) -> States:
        """Return zero states; angles and the scan's are at least float32 whatever `dtype`."""
        angle, ssm, k, v = self.initial_state(batch_size)
        dtype = self.in_proj.weight.dtype if dtype is None else dtype
        last = k.unsqueeze(1).to(dtype), v.to(dtype)
        if device is not None:
            return angle.to(device), ssm.to(device), last[0].to(device), last[1].to(device)
        return angle, ssm, *last

    def _get_states_from_cache(
        self, inference_params: InferenceParams, batch_size: int, initialize_states: bool = False
    ) -> States:
        # public models call it by this name
        return cached_states(self, inference_params, batch_size, initialize_states)


def _write(states: States, new: Mamba3State) -> None:
    values = (new.angle, new.ssm, new.k.unsqueeze(1), new.v)
    for state, value in zip(states, values, strict=True):
        state.copy_(value)
