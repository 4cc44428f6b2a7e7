"""`Mamba2Simple` with the constructor and the calls of mamba_ssm.

Source: Dao & Gu 2024, arXiv:2405.21060, section 7.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ssm_core.compat.arguments import plain
from ssm_core.compat.packing import offsets_of
from ssm_core.compat.placement import convert, made_on
from ssm_core.layers import mamba2
from ssm_core.layers.checks import one_of
from ssm_core.layers.mamba2_config import Mamba2Config
from ssm_core.norm import GatedRMSNorm


class Mamba2Simple(mamba2.Mamba2):
    """Mamba-2 mixer without a cache, (b, l, d) -> (b, l, d), like the one of mamba_ssm.

    Its state before the first step may be learned. With several groups its norm takes one mean for
    each (`use_mem_eff_path`) or one over all channels: the two paths of the original differ.
    `forward` has other arguments than that of a sequence layer, so it cannot stand where one is
    expected. New code uses `ssm_core.Mamba2`.
    """

    # The arguments and their order are the original's.
    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        d_conv: int = 4,
        conv_init: float | None = None,
        expand: float = 2,
        headdim: int = 128,
        ngroups: int = 1,
        A_init_range: tuple[float, float] = (1, 16),
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init_floor: float = 1e-4,
        dt_limit: tuple[float, float] = (0.0, math.inf),
        learnable_init_states: bool = False,
        activation: str = "swish",
        bias: bool = False,
        conv_bias: bool = True,
        chunk_size: int = 256,
        use_mem_eff_path: bool = True,
        layer_idx: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Make a mixer.

        Args:
            d_state .. conv_bias: as in `ssm_core.Mamba2Config`; `expand` need not be whole.
            activation: "swish" or "silu", which are the same.
            use_mem_eff_path: one mean per group in the norm, not one over all channels.
            chunk_size, layer_idx: kept as attributes; the scan here chooses its own chunks.
        Raises:
            ConfigError: a value out of range, or sizes that do not divide one another.
        """
        one_of("Mamba2Simple", "activation", activation, ("swish", "silu"))
        d_model, d_state, d_conv = plain(d_model), plain(d_state), plain(d_conv)
        headdim, ngroups = plain(headdim), plain(ngroups)
        config = Mamba2Config(
            d_state=d_state,
            d_conv=d_conv,
            conv_init=conv_init,
            d_inner=int(expand * d_model),
            headdim=headdim,
            ngroups=ngroups,
            A_init_range=A_init_range,
            dt_min=dt_min,
            dt_max=dt_max,
            dt_init_floor=dt_init_floor,
            dt_limit=dt_limit,
            learnable_init_states=learnable_init_states,
            bias=bias,
            conv_bias=conv_bias,
        )
        with made_on(device):
            super().__init__(d_model, config)
            self.norm = GatedRMSNorm(self.sizes.d_ssm, ngroups if use_mem_eff_path else 1)
        convert(dtype, self.in_proj, self.conv1d, self.norm, self.out_proj)
        self.d_state, self.d_conv, self.conv_init, self.expand = d_state, d_conv, conv_init, expand
        self.d_inner, self.headdim = self.sizes.d_ssm, headdim
        self.ngroups, self.nheads = ngroups, self.sizes.heads
        self.dt_limit, self.learnable_init_states = dt_limit, learnable_init_states
        self.activation, self.act = activation, nn.SiLU()
        self.chunk_size, self.use_mem_eff_path = chunk_size, use_mem_eff_path
        self.layer_idx = layer_idx

    def forward(  # type: ignore[override]
        self, u: Tensor, seq_idx: Tensor | None = None
    ) -> Tensor:
        """Map u (b, l, d) to (b, l, d).

        Args:
            seq_idx: (b, l) integers; where they change along l, another sequence begins.
        Raises:
            ShapeError, DTypeError: an input of another shape or type.
        """
        offsets = offsets_of(u, seq_idx)
        rows = u if offsets is None else u.flatten(0, 1).unsqueeze(0)
        self.check_call(rows, cu_seqlens=offsets)
        y, _ = self.mix(rows, None, offsets, return_state=False)
        return y.view(u.shape)
