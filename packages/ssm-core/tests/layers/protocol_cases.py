"""Every layer of the package in a small size, and what the tests of the protocol do with it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from ssm_core.block import Block
from ssm_core.layers.attention import Attention, AttentionConfig
from ssm_core.layers.bimamba import BiMamba, BiMambaConfig
from ssm_core.layers.mamba import Mamba, MambaConfig
from ssm_core.layers.mamba2 import Mamba2
from ssm_core.layers.mamba2_config import Mamba2Config
from ssm_core.layers.mamba3 import Mamba3
from ssm_core.layers.mamba3_config import Mamba3Config
from ssm_core.layers.protocol import SequenceLayer
from ssm_core.layers.rnn import RNN, RNNConfig
from ssm_core.layers.s4 import S4, S4Config
from ssm_core.layers.s4d import S4D, S4DConfig
from ssm_core.layers.s5 import S5
from ssm_core.layers.s5_config import S5Config
from ssm_core.tower import Tower, TowerConfig

D_MODEL = 4
SMALL = MambaConfig(d_state=3, d_conv=3, dt_rank=2, bias=True)


def mamba() -> Mamba:
    return Mamba(D_MODEL, SMALL)


SMALL_2 = Mamba2Config(d_state=3, d_conv=3, headdim=2, ngroups=2, bias=True)


def mamba2() -> Mamba2:
    return Mamba2(D_MODEL, SMALL_2)


def mamba2_with_everything() -> Mamba2:
    config = Mamba2Config(
        d_state=3,
        d_conv=2,
        headdim=3,
        d_ssm=6,
        D_has_hdim=True,
        norm_before_gate=True,
        dt_limit=(0.01, 1.0),
        chunk_size=16,
        learnable_init_states=True,
    )
    return Mamba2(D_MODEL, config)


def s5(**options: Any) -> S5:
    # clipped: `moved` would let states grow
    return S5(D_MODEL, S5Config(d_state=8, clip_eigs=True, **options))


def causal_attention() -> Attention:
    return Attention(D_MODEL, AttentionConfig(n_heads=2))


CAUSAL: dict[str, Callable[[], SequenceLayer]] = {
    "mamba": mamba,
    "mamba-width-1": lambda: Mamba(D_MODEL, MambaConfig(d_state=1, d_conv=1, conv_bias=False)),
    "s4": lambda: S4(D_MODEL, S4Config(d_state=6, n_ssm=1)),
    "s4-channels": lambda: S4(
        D_MODEL, S4Config(2, channels=2, n_ssm=2, dt_tie=False, dt_transform="softplus", l_max=37)
    ),
    "s4d": lambda: S4D(D_MODEL, S4DConfig(d_state=6)),
    "s4d-bilinear-channels": lambda: S4D(
        D_MODEL, S4DConfig(4, channels=2, init="inv", disc="bilinear", n_ssm=2, dt_tie=False)
    ),
    "mamba2": mamba2,
    "mamba2-everything": mamba2_with_everything,
    "mamba2-no-norm": lambda: Mamba2(
        D_MODEL, Mamba2Config(d_state=1, d_conv=1, headdim=8, rmsnorm=False, conv_bias=False)
    ),
    "s5": s5,
    "s5-blocks": lambda: s5(
        blocks=4, conj_sym=False, discretization="bilinear", activation="full_glu"
    ),
    "mamba3": lambda: Mamba3(D_MODEL, Mamba3Config(d_state=5, headdim=2, ngroups=2)),
    "mamba3-norm": lambda: Mamba3(
        D_MODEL, Mamba3Config(d_state=2, headdim=4, rope_fraction=1.0, is_outproj_norm=True)
    ),
    "rnn": lambda: RNN(D_MODEL),
    "rnn-hidden": lambda: RNN(D_MODEL, RNNConfig(hidden=3, nonlinearity="relu")),
    "attention": causal_attention,
    "block": lambda: Block(D_MODEL, mamba(), mlp_hidden=5, norm="layer"),
    "tower-mamba": lambda: Tower(mamba, TowerConfig(D_MODEL, n_layers=2, mlp_hidden=5)),
    "tower-attention": lambda: Tower(causal_attention, TowerConfig(D_MODEL, n_layers=2)),
}
NOT_CAUSAL: dict[str, Callable[[], SequenceLayer]] = {
    "bimamba": lambda: BiMamba(D_MODEL, BiMambaConfig(d_state=3, d_conv=3, dt_rank=2)),
    "s4": lambda: S4(D_MODEL, S4Config(4, bidirectional=True, l_max=9)),
    "s4d": lambda: S4D(D_MODEL, S4DConfig(4, channels=2, bidirectional=True, init="lin")),
    "s5": lambda: s5(bidirectional=True, activation="half_glu2"),
    "s5-one-C": lambda: s5(bidirectional=True, C_init="complex_normal", activation="gelu"),
    "attention": lambda: Attention(D_MODEL, AttentionConfig(n_heads=2, causal=False)),
    "tower": lambda: Tower(NOT_CAUSAL["bimamba"], TowerConfig(D_MODEL, n_layers=2)),
}
each_causal = pytest.mark.parametrize("make", CAUSAL.values(), ids=CAUSAL.keys())
each_not_causal = pytest.mark.parametrize("make", NOT_CAUSAL.values(), ids=NOT_CAUSAL.keys())
each_layer = pytest.mark.parametrize(
    "make",
    [*CAUSAL.values(), *NOT_CAUSAL.values()],
    ids=[*CAUSAL, *(f"{name}-not-causal" for name in NOT_CAUSAL)],
)


def moved(layer: SequenceLayer, dtype: torch.dtype, seed: int = 0) -> SequenceLayer:
    """Move every parameter off its initial value, so that each one matters to the output."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            scale = parameter.shape[-1] ** -0.5 if parameter.dim() > 1 else 0.5
            parameter.add_((noise * scale).to(parameter.dtype))
    return layer.to(dtype)


def random(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def is_mask(t: Tensor) -> bool:
    return t.dtype is torch.bool


def random_state(layer: SequenceLayer, batch: int, dtype: torch.dtype) -> Any:
    """A state that a real sequence left behind."""
    return layer(random(batch, 3, D_MODEL, dtype=dtype, seed=2), return_state=True)[1]


def run_in_chunks(layer: SequenceLayer, x: Tensor, state: Any) -> tuple[Tensor, Any]:
    length = x.shape[1]
    cuts = sorted({0, 1, length // 3, length // 2, length} & set(range(length + 1)))
    pieces = []
    for start, stop in [(0, 0), *pairwise(cuts)]:
        y, state = layer(x[:, start:stop], state=state, return_state=True)
        pieces.append(y)
    return torch.cat(pieces, dim=1), state


def run_in_steps(layer: SequenceLayer, x: Tensor, state: Any) -> tuple[Tensor, Any]:
    pieces = []
    for x_t in x.unbind(1):
        y_t, state = layer.step(x_t, state)
        pieces.append(y_t)
    return (torch.stack(pieces, dim=1) if pieces else x), state


def offsets_of(lengths: list[int]) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0)
