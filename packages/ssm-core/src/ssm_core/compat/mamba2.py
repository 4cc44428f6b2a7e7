"""`Mamba2` with the constructor and the calls of mamba_ssm.

Source: Dao & Gu 2024, arXiv:2405.21060, section 7.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ssm_core.compat.arguments import plain
from ssm_core.compat.cache import (
    InferenceParams,
    States,
    cached_states,
    check_step,
    last_inputs,
    shift_in,
)
from ssm_core.compat.packing import offsets_of, with_rest
from ssm_core.compat.placement import convert, made_on
from ssm_core.errors import ConfigError
from ssm_core.layers import mamba2
from ssm_core.layers.mamba2 import Mamba2State
from ssm_core.layers.mamba2_config import Mamba2Config
from ssm_core.norm import at_least_float32


class Mamba2(mamba2.Mamba2):
    """Mamba-2 mixer, (b, l, d) -> (b, l, d), to be called like the one of mamba_ssm.

    Parameters are those of `ssm_core.Mamba2`; dt_bias, A_log and D are float32 whatever `dtype`.
    A subclass for the computation alone: `forward` and `step` have other arguments than those of a
    sequence layer, so it cannot stand where one is expected. New code uses `ssm_core.Mamba2`.
    """

    # The arguments and their order are the original's.
    def __init__(
        self,
        d_model: int,
        d_state: int = 128,
        d_conv: int = 4,
        conv_init: float | None = None,
        expand: float = 2,
        headdim: int = 64,
        d_ssm: int | None = None,
        ngroups: int = 1,
        A_init_range: tuple[float, float] = (1, 16),
        D_has_hdim: bool = False,
        rmsnorm: bool = True,
        norm_before_gate: bool = False,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init_floor: float = 1e-4,
        dt_limit: tuple[float, float] = (0.0, math.inf),
        bias: bool = False,
        conv_bias: bool = True,
        chunk_size: int = 256,
        use_mem_eff_path: bool = True,
        layer_idx: int | None = None,
        process_group: object = None,
        sequence_parallel: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Make a mixer.

        Args:
            d_state .. conv_bias: as in `ssm_core.Mamba2Config`; `expand` need not be whole.
            chunk_size, use_mem_eff_path, sequence_parallel: kept as attributes. They decide how
                the original computes, not what; the scan here chooses its own chunks.
            layer_idx: where the cache is kept in `InferenceParams`.
            process_group: None; a mixer is not divided among processes.
        Raises:
            ConfigError: a value out of range, sizes that do not divide one another, or a
                `process_group`.
        """
        if process_group is not None:
            raise ConfigError(
                "Mamba2: process_group is set, expected None: tensor parallelism is not there; "
                "use data parallelism"
            )
        d_model, d_state, d_conv = plain(d_model), plain(d_state), plain(d_conv)
        headdim, d_ssm, ngroups = plain(headdim), plain(d_ssm), plain(ngroups)
        config = Mamba2Config(
            d_state=d_state,
            d_conv=d_conv,
            conv_init=conv_init,
            d_inner=int(expand * d_model),
            headdim=headdim,
            d_ssm=d_ssm,
            ngroups=ngroups,
            A_init_range=A_init_range,
            D_has_hdim=D_has_hdim,
            rmsnorm=rmsnorm,
            norm_before_gate=norm_before_gate,
            dt_min=dt_min,
            dt_max=dt_max,
            dt_init_floor=dt_init_floor,
            dt_limit=dt_limit,
            bias=bias,
            conv_bias=conv_bias,
        )
        with made_on(device):
            super().__init__(d_model, config)
        convert(dtype, self.in_proj, self.conv1d, self.norm, self.out_proj)
        self.d_state, self.d_conv, self.conv_init, self.expand = d_state, d_conv, conv_init, expand
        self.process_group, self.sequence_parallel = process_group, sequence_parallel
        self.world_size, self.local_rank = 1, 0
        self.d_inner, self.headdim = int(expand * d_model), headdim
        self.d_ssm, self.nheads, self.ngroups = self.sizes.d_ssm, self.sizes.heads, ngroups
        self.D_has_hdim, self.rmsnorm, self.norm_before_gate = D_has_hdim, rmsnorm, norm_before_gate
        self.dt_limit, self.activation, self.act = dt_limit, "silu", nn.SiLU()
        self.chunk_size, self.use_mem_eff_path = chunk_size, use_mem_eff_path
        self.layer_idx = layer_idx

    def forward(  # type: ignore[override]
        self,
        u: Tensor,
        seqlen: int | None = None,
        seq_idx: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        inference_params: InferenceParams | None = None,
    ) -> Tensor:
        """Map (b, l, d) to (b, l, d).

        Args:
            seqlen: l of an input and output of shape (b l, d); None: they are (b, l, d).
            seq_idx: (b, l) integers; where they change along l, another sequence begins.
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
        x = u if seqlen is None else u.unflatten(0, (-1, seqlen))
        if cu_seqlens is None:
            offsets = offsets_of(x, seq_idx)
        else:
            offsets = with_rest(cu_seqlens, x.shape[:-1].numel())
        rows = x if offsets is None or len(x) == 1 else x.flatten(0, 1).unsqueeze(0)
        self.check_call(rows, cu_seqlens=offsets)
        if inference_params is None:
            y, _ = self.mix(rows, None, offsets, return_state=False)
        else:
            padded = cu_seqlens is not None
            y = self._cached(rows, offsets, inference_params, padded)
        return y.view_as(u) if y.shape != u.shape else y

    def step(  # type: ignore[override]
        self, hidden_states: Tensor, conv_state: Tensor, ssm_state: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Map one step (b, 1, d) to (b, 1, d); both states are advanced in place and returned.

        Args:
            conv_state: (b, d_ssm + 2 g n, k), the last k inputs of the convolution.
            ssm_state: (b, h, p, n).
        Raises:
            ShapeError: hidden_states is not (b, 1, d).
        """
        check_step("Mamba2", hidden_states)
        self.check_call(hidden_states)
        state = Mamba2State(conv_state[..., 1:], ssm_state)
        if torch.is_grad_enabled():  # what a gradient needs must not be overwritten
            state = Mamba2State(*(at_least_float32(part).clone() for part in state))
            streams = self._project(hidden_states)
            y, state = self._scan(streams, state, None)
            out = self._join(y, streams)
            x = streams.conv_input.squeeze(1)
        else:
            streams = self._project(hidden_states.squeeze(1))
            y, state = self._step(streams, state)
            out = self._join(y, streams).unsqueeze(1)
            x = streams.conv_input
        shift_in(conv_state, x)
        ssm_state.copy_(state.ssm)
        return out, conv_state, ssm_state

    # `max_seqlen` and `kwargs` are the original's; neither changes these states.
    def allocate_inference_cache(
        self, batch_size: int, max_seqlen: int, dtype: torch.dtype | None = None, **kwargs: Any
    ) -> States:
        """Return zero states (b, d_ssm + 2 g n, k) and (b, h, p, n).

        Args:
            dtype: of both; None: the convolution's weight's, and at least float32 for the scan.
        """
        sizes = self.sizes
        # the steps lie apart in memory, as in the original
        conv = self.conv1d.weight.new_zeros(
            batch_size, self.d_conv, sizes.d_conv_inner, dtype=dtype
        ).transpose(1, 2)
        real = at_least_float32(self.A_log)
        shape = (batch_size, sizes.heads, sizes.headdim, self.d_state)
        return conv, real.new_zeros(shape, dtype=dtype)

    def _get_states_from_cache(
        self, inference_params: InferenceParams, batch_size: int, initialize_states: bool = False
    ) -> States:
        # public models call it by this name
        return cached_states(self, inference_params, batch_size, initialize_states)

    def _cached(
        self, x: Tensor, offsets: Tensor | None, params: InferenceParams, padded: bool
    ) -> Tensor:
        """Mix x; states of all sequences, without the padding after them, go into the cache."""
        batch = len(x) if offsets is None else len(offsets) - 1 - padded
        states = self._get_states_from_cache(params, batch)
        if params.seqlen_offset > 0:
            return self.step(x, *states)[0]
        streams = self._project(x)
        y, state = self._scan(streams, None, offsets)
        states[0].copy_(last_inputs(streams.conv_input, self.d_conv, offsets)[:batch])
        states[1].copy_(state.ssm[:batch])
        return self._join(y, streams)
