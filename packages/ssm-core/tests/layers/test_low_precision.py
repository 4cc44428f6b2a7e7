"""Every state space layer under autocast: finite on hard inputs, and close to float32."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ssm_core.layers.protocol import SequenceLayer
from ssm_core.mixers import build_mixer

WIDTH, LENGTH = 8, 4096
OPTIONS: dict[str, dict[str, object]] = {
    "mamba": {},
    "bimamba": {},
    "mamba2": {},
    "s4": {},
    "s4d": {},
    "s5": {},
}

# Its gradients are not finite in float16 where those of float32 would fit (8.9e3 with large steps,
# 239 with tiny ones), and for the largest inputs its values are not either. Not understood yet.
MAMBA3_IN_FLOAT16 = pytest.param(
    "mamba3", torch.float16, 0.01, marks=pytest.mark.xfail(reason="gradients of in_proj overflow")
)
CASES = [
    *((name, torch.bfloat16, 0.05) for name in [*OPTIONS, "mamba3"]),
    *((name, torch.float16, 0.01) for name in OPTIONS),
    MAMBA3_IN_FLOAT16,
]

#: what moves the step sizes, and what the decay rates, of any layer
STEP_SIZES = ("dt_proj.bias", "dt_proj_b.bias", "dt_bias", "kernel.inv_dt", "log_step")
DECAYS = ("A_log", "A_b_log", "kernel.A_real")


def as_made(layer: SequenceLayer) -> None:
    """Initial values."""


def large_steps(layer: SequenceLayer) -> None:
    shift(layer, STEP_SIZES, 6.0)


def tiny_steps(layer: SequenceLayer) -> None:
    shift(layer, STEP_SIZES, -20.0)


def fast_decay(layer: SequenceLayer) -> None:
    shift(layer, DECAYS, 10.0)  # A near -2e4 and beyond
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if name == "Lambda_re":
                parameter.mul_(4e4)


def shift(layer: SequenceLayer, names: tuple[str, ...], amount: float) -> None:
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if name in names:
                parameter.add_(amount)


def inputs() -> dict[str, Tensor]:
    return {
        "zeros": torch.zeros(1, LENGTH, WIDTH),
        "constant": torch.full((1, LENGTH, WIDTH), 3.0),
        "noise": torch.randn(1, LENGTH, WIDTH),
        "large": torch.randn(1, LENGTH, WIDTH) * 8,  # a Mamba returns its fifth power
    }


@pytest.mark.parametrize("change", [as_made, large_steps, tiny_steps, fast_decay])
@pytest.mark.parametrize(("name", "dtype", "tol"), CASES)
def test_finite_and_close_to_float32(
    name: str, dtype: torch.dtype, tol: float, change: Callable[[SequenceLayer], None]
) -> None:
    """Values within `tol` of float32 by norm, and all gradients finite."""
    layer = build_mixer(name, WIDTH, OPTIONS.get(name))
    change(layer)
    for kind, values in inputs().items():
        x = values.requires_grad_()
        layer.zero_grad()
        with torch.autocast("cpu", dtype):
            y = layer(x)
        assert y.dtype is dtype, kind
        assert y.isfinite().all(), kind
        y.float().square().mean().backward()
        for other, parameter in [("x", x), *layer.named_parameters()]:
            assert parameter.grad is not None, (kind, other)
            assert parameter.grad.isfinite().all(), (kind, other)
        with torch.no_grad():
            full = layer(x)
        assert (y.float() - full).norm() <= tol * full.norm() + 1e-6, kind
