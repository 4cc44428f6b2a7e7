"""What can be taken out of the mixers of this package, exactly: see `ssm_core.units`.

Not offered, because nothing there can be taken out exactly or worth the while: channels of the
residual stream (LayerNorms look at all of them, merging and expanding of patches read and make
them), states of S4's own kernels (a low rank term couples them), and the hidden channels of
squeeze-and-excitation (a handful).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from ssm_core.errors import ConfigError
from ssm_core.layers.checks import positive_int
from ssm_core.layers.s4d_kernel import S4DKernel
from ssm_core.units import CHANNELS, BlockAdapter, Slice, UnitGroup, places

if TYPE_CHECKING:
    from ssm_vision.models.mambavision_blocks import Attention
    from ssm_vision.models.mambavision_mixer import MambaVisionMixer
    from ssm_vision.models.s4nd import S4ND
    from ssm_vision.models.ss2d import SS2D


def the_one_size(owner: str, name: str, sizes: Mapping[str, Any]) -> int:
    """The one number that a part can be given.

    Raises:
        ConfigError: something else is given.
    """
    if set(sizes) != {name}:
        raise ConfigError(f"{owner}: sizes are {dict(sizes)}, expected {name!r} alone")
    return positive_int(owner, name, sizes[name])


def ss2d_units(mixer: SS2D) -> BlockAdapter:
    """Inner channels and states of SS2D."""
    R, n = mixer.dt_rank, mixer.config.d_state
    B_and_C = Slice("x_proj_weight", 1, places(n, R, R + n))
    states = UnitGroup(
        kind="states",
        count=n,
        removed=(B_and_C, Slice("A_logs", 1, places(n))),
        masked=(Slice("x_proj_weight", 1, places(n, R + n)),),  # nobody reads the state
        scored=(B_and_C,),
        sizes=lambda kept: {"d_state": len(kept)},
    )
    return BlockAdapter((_ss2d_channels(mixer), states), ("out_proj.weight",))


def _ss2d_channels(mixer: SS2D) -> UnitGroup:
    """A channel is masked at its source, so that it is 0 where the norm takes mean and variance.

    The smaller norm goes on counting it as a 0 (`norm_width`). What the norm makes of it, its bias
    for instance, is not read.
    """
    E = mixer.d_inner
    width = mixer.config.norm_width or E
    own, routes = places(E), places(E, 0, E, 2 * E, 3 * E)
    in_proj = Slice("in_proj.weight", 0, places(E, 0, E) if mixer.config.gated else own)
    convolution = [Slice("conv2d.weight", 0, own)]
    if mixer.conv2d.bias is not None:
        convolution.append(Slice("conv2d.bias", 0, own))
    x_proj, out_proj = Slice("x_proj_weight", 2, own), Slice("out_proj.weight", 1, own)
    others = (
        Slice("dt_projs_weight", 1, own),
        Slice("dt_projs_bias", 1, own),
        Slice("A_logs", 0, routes),
        Slice("Ds", 0, routes),
        Slice("out_norm.weight", 0, own),
        Slice("out_norm.bias", 0, own),
    )
    return UnitGroup(
        kind="channels",
        count=E,
        removed=(in_proj, *convolution, x_proj, *others, out_proj),
        masked=(*convolution, out_proj),
        scored=(in_proj, x_proj, out_proj),
        sizes=lambda kept: {"d_inner": len(kept), "norm_width": width},
        round_to=CHANNELS,
    )


def mambavision_mixer_units(mixer: MambaVisionMixer) -> BlockAdapter:
    """Channels of both branches and states of MambaVision's mixer."""
    R, n = mixer.dt_proj.in_features, mixer.config.d_state
    B_and_C = Slice("x_proj.weight", 0, places(n, R, R + n))
    states = UnitGroup(
        kind="states",
        count=n,
        removed=(B_and_C, Slice("A_log", 1, places(n))),
        masked=(Slice("x_proj.weight", 0, places(n, R + n)),),
        scored=(B_and_C,),
        sizes=lambda kept: {"d_state": len(kept)},
    )
    return BlockAdapter((_mambavision_channels(mixer), states), ("out_proj.weight",))


def _mambavision_channels(mixer: MambaVisionMixer) -> UnitGroup:
    """The channels of the scan and those of the other branch have nothing to do with each other,
    but there are equally many of each."""
    half = mixer.D.numel()
    all_, own = places(2 * half), places(half)
    scan, beside = torch.arange(half), torch.arange(half, 2 * half)
    in_proj, out_proj = Slice("in_proj.weight", 0, all_), Slice("out_proj.weight", 1, all_)
    x_proj = Slice("x_proj.weight", 1, own, scan)
    rows = ("conv1d_x.weight", "dt_proj.weight", "dt_proj.bias", "A_log", "D")
    others = [Slice(name, 0, own, scan) for name in rows]
    others.append(Slice("conv1d_z.weight", 0, own, beside))
    return UnitGroup(
        kind="channels",
        count=2 * half,
        removed=(in_proj, x_proj, *others, out_proj),
        masked=(x_proj, out_proj),
        scored=(in_proj, x_proj, out_proj),
        sizes=lambda kept: {"d_inner": len(kept)},
        round_to=CHANNELS,
        parts=2,
    )


def attention_units(attention: Attention) -> BlockAdapter:
    """The heads of MambaVision's attention; nobody reads the output of a masked one."""
    h, d = attention.n_heads, attention.proj.in_features
    p = d // h
    rows = [Slice("qkv.weight", 0, places(h, 0, d, 2 * d, width=p))]
    if attention.qkv.bias is not None:
        rows.append(Slice("qkv.bias", 0, places(h, 0, d, 2 * d, width=p)))
    proj = Slice("proj.weight", 1, places(h, width=p))
    heads = UnitGroup(
        kind="heads",
        count=h,
        removed=(*rows, proj),
        masked=(proj,),
        scored=(rows[0], proj),
        sizes=lambda kept: {"n_heads": len(kept)},
    )
    return BlockAdapter((heads,), ("proj.weight", "proj.bias"))


def s4nd_units(mixer: S4ND) -> BlockAdapter:
    """States of both axes of S4ND, in conjugate pairs; equally many of each axis stay."""
    silenced = tuple(n for n, _ in mixer.output_linear.named_parameters(prefix="output_linear"))
    if not isinstance(mixer.kernel_y, S4DKernel):
        return BlockAdapter((), silenced)
    pairs = mixer.config.d_state // 2
    own = places(pairs)
    removed, outputs = [], []
    for axis, name in enumerate(("kernel_y", "kernel_x")):
        units = torch.arange(pairs) + axis * pairs
        outputs.append(Slice(f"{name}.C", 2, own, units))
        removed += [Slice(f"{name}.{matrix}", 1, own, units) for matrix in ("A_real", "A_imag")]
        removed.append(Slice(f"{name}.B", 2, own, units))
        if not mixer.config.dt_tie:
            removed.append(Slice(f"{name}.inv_dt", 1, own, units))
    states = UnitGroup(
        kind="states",
        count=2 * pairs,
        removed=(*removed, *outputs),
        masked=tuple(outputs),
        scored=tuple(outputs),
        # two numbers per pair, in one of the two axes
        sizes=lambda kept: {"d_state": len(kept)},
        parts=2,
    )
    return BlockAdapter((states,), silenced)
