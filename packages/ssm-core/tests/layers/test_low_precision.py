"""Every state space layer under autocast: finite on hard inputs, and close to float32."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

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
    "mamba3": {},
    "s4": {},
    "s4d": {},
    "s5": {},
}

CASES = [
    *((name, torch.bfloat16, 0.05) for name in OPTIONS),
    *((name, torch.float16, 0.01) for name in OPTIONS),
]
# A Mamba returns the fifth power of its inputs; that of Mamba-3 adds up over all steps, and with
# 8 leaves the range of float16 in exact arithmetic too (1e5 and more).
LARGE = {"mamba3": 2.0}

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


def inputs(large: float) -> dict[str, Tensor]:
    return {
        "zeros": torch.zeros(1, LENGTH, WIDTH),
        "constant": torch.full((1, LENGTH, WIDTH), 3.0),
        "noise": torch.randn(1, LENGTH, WIDTH),
        "large": torch.randn(1, LENGTH, WIDTH) * large,
    }


def gradients(layer: SequenceLayer, x: Tensor, y: Tensor, scale: float) -> dict[str, Tensor]:
    """Gradients of the mean square of y times `scale`, by name."""
    wanted = {"x": x, **dict(layer.named_parameters())}
    loss = y.float().square().mean() * scale
    return dict(zip(wanted, torch.autograd.grad(loss, list(wanted.values())), strict=True))


def loss_scale(gradients: Iterable[Tensor]) -> float:
    """Return what a `torch.amp.GradScaler` finds: 65536, halved until no gradient passes 1024."""
    largest = max(float(gradient.abs().max()) for gradient in gradients)
    return 2.0 ** min(16, 10 - math.ceil(math.log2(largest))) if largest else 1.0


@pytest.mark.parametrize("change", [as_made, large_steps, tiny_steps, fast_decay])
@pytest.mark.parametrize(("name", "dtype", "tol"), CASES)
def test_finite_and_close_to_float32(
    name: str, dtype: torch.dtype, tol: float, change: Callable[[SequenceLayer], None]
) -> None:
    """Values within `tol` of float32 by norm, gradients within 5 `tol` of their own or all."""
    layer = build_mixer(name, WIDTH, OPTIONS[name])
    change(layer)
    for kind, values in inputs(LARGE.get(name, 8.0)).items():
        x = values.requires_grad_()
        full = layer(x)
        expected = gradients(layer, x, full, 1.0)
        scale = loss_scale(expected.values()) if dtype is torch.float16 else 1.0
        every = math.hypot(*(float(gradient.norm()) for gradient in expected.values()))
        with torch.autocast("cpu", dtype):
            y = layer(x)
        assert y.dtype is dtype, kind
        assert y.isfinite().all(), kind
        assert (y.float() - full).norm() <= tol * full.norm() + 1e-6, kind
        for other, gradient in gradients(layer, x, y, scale).items():
            error = (gradient / scale - expected[other]).norm()
            assert error <= 5 * tol * expected[other].norm() + 0.1 * tol * every, (kind, other)
