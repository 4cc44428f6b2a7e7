"""mamba_ssm.ops.triton.layernorm_gated: forward and backward alone, and the reference."""

from __future__ import annotations

import torch
from torch import Tensor

from .layernorm_gated import layernorm_fn, rmsnorm_fn
from .norms import wide_dtype
from .raw import gradients, leaves_of, stored


# The arguments and their order are the original's, here and below.
def rms_norm_ref(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    z: Tensor | None = None,
    eps: float = 1e-6,
    group_size: int | None = None,
    norm_before_gate: bool = True,
    upcast: bool = True,
) -> Tensor:
    """Compute `rmsnorm_fn`; sums are in float32 or wider whatever `upcast`."""
    return rmsnorm_fn(x, weight, bias, z, eps, group_size, norm_before_gate)


@torch.no_grad()
def _layer_norm_fwd(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    eps: float,
    z: Tensor | None = None,
    out: Tensor | None = None,
    group_size: int | None = None,
    norm_before_gate: bool = True,
    is_rms_norm: bool = False,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Compute `layernorm_fn` of x (m, d) without recording a gradient; arguments as there.

    Returns:
        y (m, d), in `out` if given; the means (g m,) of all rows group by group, None for the RMS
        norm; and what the deviations were multiplied by (g m,), both in float32 or wider.
    """
    y = layernorm_fn(x, weight, bias, z, eps, group_size, norm_before_gate, is_rms_norm)
    values = x.to(wide_dtype(x))
    if z is not None and not norm_before_gate:
        values = values * torch.nn.functional.silu(z.to(values.dtype))
    groups = values.unflatten(-1, (-1, group_size or x.shape[-1])).transpose(0, 1)
    mean = None if is_rms_norm else groups.mean(dim=-1)
    deviation = groups if mean is None else groups - mean.unsqueeze(-1)
    rstd = (deviation.square().mean(dim=-1) + eps).rsqrt().flatten()
    written = stored(y, out)
    assert written is not None
    return written, None if mean is None else mean.flatten(), rstd


def _layer_norm_bwd(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    eps: float,
    mean: Tensor | None,
    rstd: Tensor | None,
    z: Tensor | None = None,
    group_size: int | None = None,
    norm_before_gate: bool = True,
    is_rms_norm: bool = False,
    recompute_output: bool = False,
    dz: Tensor | None = None,
    out: Tensor | None = None,
) -> tuple[Tensor | None, ...]:
    """Return the gradients of x (m, d), weight, bias and z, None for None.

    Args:
        dy: (m, d) gradient of y.
        mean, rstd: what `_layer_norm_fwd` returned; not read.
        recompute_output: append y.
        dz, out: (m, d) tensors to write dz and y to, or None.

        The others as in `layernorm_fn`.

    Cost: that of both passes, as the forward pass runs again.
    """
    leaves = leaves_of({"x": x, "weight": weight, "bias": bias, "z": z})
    with torch.enable_grad():
        y = layernorm_fn(
            **leaves,  # type: ignore[arg-type]  # None for bias and z alone
            eps=eps,
            group_size=group_size,
            norm_before_gate=norm_before_gate,
            is_rms_norm=is_rms_norm,
        )
    found = gradients([y], [dy.to(y.dtype)], leaves)
    found["z"] = stored(found["z"], dz)
    if not recompute_output:
        return tuple(found.values())
    return (*found.values(), stored(y.detach(), out))
