"""`Mamba` with the constructor, the calls and the parameter names of mamba_ssm and its forks.

Sources: Gu & Dao 2023, arXiv:2312.00752; Zhu et al. 2024, arXiv:2401.09417 (both directions).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ssm_core.compat.arguments import check_dt_init, plain
from ssm_core.compat.cache import (
    InferenceParams,
    States,
    cached_states,
    check_step,
    last_inputs,
    shift_in,
)
from ssm_core.compat.directions import add_directions, direction_of, directions_of, run_all
from ssm_core.compat.placement import convert, made_on
from ssm_core.layers.mamba import MambaConfig
from ssm_core.layers.protocol import CausalityError
from ssm_core.layers.selective import MambaState, run_direction, step_direction
from ssm_core.linear import Linear
from ssm_core.norm import at_least_float32
from ssm_kernels.errors import ShapeError


class Mamba(nn.Module):
    """Mamba mixer, (b, l, d) -> (b, l, d), to be called like the one of mamba_ssm.

    Parameters, with E = int(expand * d_model): in_proj (2E, d), conv1d (E, 1, k), x_proj
    (R + 2n, E), dt_proj (E, R), A_log (E, n), D (E,), out_proj (d, E); with bimamba_type "v1" also
    A_b_log, with "v2" also conv1d_b, x_proj_b, dt_proj_b, A_b_log and D_b, with "v3" these and
    conv1d_s, x_proj_s, dt_proj_s, A_s_log and D_s; with a layer scale gamma (d,). A_log and D are
    float32 whatever `dtype`. Initial values are the original's, but for the biases of dt_proj_b
    and dt_proj_s: see `ssm_core.layers.bimamba`.

    New code uses `ssm_core.Mamba` and `ssm_core.BiMamba`.
    """

    conv1d: nn.Conv1d
    x_proj: nn.Linear
    dt_proj: nn.Linear
    A_log: nn.Parameter
    D: nn.Parameter

    # The arguments and their order are the original's; after `dtype` come those of forks.
    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: float = 2,
        dt_rank: int | str = "auto",
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init: str = "random",
        dt_scale: float = 1.0,
        dt_init_floor: float = 1e-4,
        conv_bias: bool = True,
        bias: bool = False,
        use_fast_path: bool = True,
        layer_idx: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        bimamba_type: str = "none",
        if_divide_out: bool = False,
        init_layer_scale: float | None = None,
        if_devide_out: bool = False,
        bimamba: bool | None = None,
        nslices: int | None = None,
        nframes: int | None = None,
    ) -> None:
        """Make a mixer.

        Args:
            d_state, d_conv, expand, dt_rank, bias, conv_bias: n, k, E / d, R and the biases, as in
                `ssm_core.MambaConfig`; `expand` need not be whole.
            dt_min, dt_max, dt_init_floor: range of the initial step sizes.
            dt_init, dt_scale: dt_proj.weight starts uniform up to dt_scale / sqrt(R) ("random"), or
                all of it there ("constant").
            use_fast_path: kept as an attribute; there is one path.
            layer_idx: where the cache is kept in `InferenceParams`.
            bimamba_type: "none", "v1" (a second scan, backward, with an A of its own), "v2" (a
                second direction with convolution, projections, A and D of its own; hustvl/Vim) or
                "v3" (a third one across slices, which reads the first step of every slice, then
                the second of every slice, and so on).
            if_divide_out, if_devide_out: halve the sum of both directions; "v2" only, as there.
            init_layer_scale: initial value of gamma, a factor per channel of the output.
            bimamba: True is "v2", False "none". OpenGVLab/VideoMamba.
            nslices, nframes: slices for "v3", which divide l; `nslices` sums the three scans
                (ge-xing/SegMamba), `nframes` takes their mean (scott-yjyang/Vivim).
        Raises:
            ConfigError: a value out of range, or arguments that contradict one another.
        """
        super().__init__()
        self.if_divide_out = if_divide_out or if_devide_out
        self._directions = directions_of(
            bimamba_type, bimamba, plain(nslices), plain(nframes), self.if_divide_out
        )
        self.bimamba_type = self._directions.kind
        self.nslices, self.nframes = nslices, nframes
        check_dt_init(dt_init)
        d_model, d_state, d_conv = plain(d_model), plain(d_state), plain(d_conv)
        config = MambaConfig(
            d_state=d_state,
            d_conv=d_conv,
            d_inner=int(expand * d_model),
            dt_rank=plain(dt_rank),
            bias=bias,
            conv_bias=conv_bias,
            dt_min=dt_min,
            dt_max=dt_max,
            dt_init_floor=dt_init_floor,
        )
        sizes = config.sizes(d_model)
        self.d_model, self.d_state, self.d_conv, self.expand = d_model, d_state, d_conv, expand
        self.d_inner, self.dt_rank = sizes.d_inner, sizes.dt_rank
        self.use_fast_path, self.layer_idx = use_fast_path, layer_idx
        self.activation, self.act = "silu", nn.SiLU()
        self.init_layer_scale = init_layer_scale
        self.gamma: nn.Parameter | None = None

        with made_on(device):
            self.in_proj = Linear(d_model, 2 * self.d_inner, bias=bias)
            add_directions(self, self.bimamba_type, sizes, dtype)
            self.out_proj = Linear(self.d_inner, d_model, bias=bias)
            if init_layer_scale is not None:
                self.gamma = nn.Parameter(torch.full((d_model,), float(init_layer_scale)))
        self._init_dt_proj(dt_init, dt_scale)
        convert(dtype, self.in_proj, self.out_proj)

    def forward(
        self, hidden_states: Tensor, inference_params: InferenceParams | None = None
    ) -> Tensor:
        """Map (b, l, d) to (b, l, d).

        With `inference_params` the states after the last step go into the cache there; if its
        `seqlen_offset` is above 0, this is one step that continues from them.

        Raises:
            ShapeError: hidden_states is not (b, l, d), or a step not (b, 1, d).
            CausalityError: a cache was asked of a mixer in several directions.
            ConfigError: a cache was asked of a mixer without `layer_idx`.
        """
        if hidden_states.dim() != 3 or hidden_states.shape[2] != self.d_model:
            raise ShapeError(
                f"Mamba: hidden_states has shape {tuple(hidden_states.shape)}, "
                f"expected (b, l, d) = (b, l, {self.d_model})"
            )
        if inference_params is None:
            x, z = self.in_proj(hidden_states).chunk(2, dim=-1)
            return self._project_out(run_all(self, self._directions, x, z))
        self._require_one_direction()
        states = self._get_states_from_cache(inference_params, hidden_states.shape[0])
        if inference_params.seqlen_offset > 0:
            return self.step(hidden_states, *states)[0]
        x, z = self.in_proj(hidden_states).chunk(2, dim=-1)
        y, state = run_direction(direction_of(self), x, z)
        states[0].copy_(last_inputs(x, self.d_conv, None))
        states[1].copy_(state.ssm)
        return self._project_out(y)

    def step(
        self, hidden_states: Tensor, conv_state: Tensor, ssm_state: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Map one step (b, 1, d) to (b, 1, d); both states are advanced in place and returned.

        Args:
            conv_state: (b, E, k), the last k inputs of the convolution.
            ssm_state: (b, E, n).
        Raises:
            ShapeError: hidden_states is not (b, 1, d).
            CausalityError: the mixer runs in several directions.
        """
        self._require_one_direction()
        check_step("Mamba", hidden_states)
        x, z = self.in_proj(hidden_states.squeeze(1)).chunk(2, dim=-1)
        state = MambaState(conv_state[..., 1:], ssm_state)
        if torch.is_grad_enabled():  # what a gradient needs must not be overwritten
            state = MambaState(*(at_least_float32(part).clone() for part in state))
            y, state = run_direction(direction_of(self), x.unsqueeze(1), z.unsqueeze(1), state)
            y = y.squeeze(1)
        else:
            y, state = step_direction(direction_of(self), x, z, state)
        shift_in(conv_state, x)
        ssm_state.copy_(state.ssm)
        return self._project_out(y).unsqueeze(1), conv_state, ssm_state

    # `max_seqlen` and `kwargs` are the original's; neither changes these states.
    def allocate_inference_cache(
        self, batch_size: int, max_seqlen: int, dtype: torch.dtype | None = None, **kwargs: Any
    ) -> States:
        """Return zero states (b, E, k) and (b, E, n).

        Args:
            dtype: of both; None: the convolution's weight's, and at least float32 for the scan.
        """
        weight = self.conv1d.weight
        conv = torch.zeros(
            batch_size, self.d_inner, self.d_conv, device=weight.device, dtype=dtype or weight.dtype
        )
        real = at_least_float32(self.A_log)
        ssm = real.new_zeros(batch_size, self.d_inner, self.d_state, dtype=dtype)
        return conv, ssm

    def _get_states_from_cache(
        self, inference_params: InferenceParams, batch_size: int, initialize_states: bool = False
    ) -> States:
        # public models call it by this name
        return cached_states(self, inference_params, batch_size, initialize_states)

    def _project_out(self, y: Tensor) -> Tensor:
        out: Tensor = self.out_proj(y)
        return out if self.gamma is None else out * self.gamma.to(out.dtype)

    def _init_dt_proj(self, dt_init: str, dt_scale: float) -> None:
        weight, bound = self.dt_proj.weight, dt_scale / math.sqrt(self.dt_rank)
        if weight.is_meta:  # nothing to fill
            return
        if dt_init == "constant":
            nn.init.constant_(weight, bound)
        elif dt_scale != 1.0:
            nn.init.uniform_(weight, -bound, bound)

    def _require_one_direction(self) -> None:
        if self.bimamba_type != "none":
            raise CausalityError(
                f"Mamba: bimamba_type is {self.bimamba_type!r}, which reads later steps too and "
                "has no step or cache; leave inference_params out"
            )
