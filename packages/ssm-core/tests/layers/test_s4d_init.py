"""What S4D starts from: names, shapes, distributions, and marks for optimizers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ssm_core.hippo import confined_B, legs
from ssm_core.init import zero_linear_biases
from ssm_core.layers.s4d import S4D, S4DConfig
from ssm_core.train.optim import parameter_groups


@pytest.mark.parametrize(
    ("config", "copies", "kernels", "steps"),
    [
        (S4DConfig(16), 6, 1, 1),
        (S4DConfig(16, n_ssm=2, channels=3, dt_tie=False), 2, 3, 8),
        (S4DConfig(16, n_ssm=1, channels=2, bidirectional=True, train_B=False), 1, 4, 1),
    ],
)
def test_state_dict_has_the_official_keys(
    config: S4DConfig, copies: int, kernels: int, steps: int
) -> None:
    layer = S4D(6, config)
    assert {name: tuple(value.shape) for name, value in layer.state_dict().items()} == {
        "D": (config.channels, 6),
        "kernel.inv_dt": (6, steps),
        "kernel.A_real": (copies, 8),
        "kernel.A_imag": (copies, 8),
        "kernel.B": (1, copies, 8, 2),
        "kernel.C": (kernels, 6, 8, 2),
        "output_linear.0.weight": (12, 6 * config.channels),
        "output_linear.0.bias": (12,),
    }
    assert all(value.is_contiguous() for value in layer.state_dict().values())
    assert ("kernel.B" in dict(layer.named_parameters())) is config.train_B
    bare = S4D(6, S4DConfig(16, final_act=None))
    assert not any(name.startswith("output_linear") for name in bare.state_dict())


@pytest.mark.parametrize("real_transform", ["exp", "softplus", "relu", "sigmoid"])
@pytest.mark.parametrize("init", ["legs", "lin", "inv"])
def test_eigenvalues_and_B(init: Any, real_transform: Any) -> None:
    config = S4DConfig(d_state=16, init=init, real_transform=real_transform)
    kernel = S4D(3, config).kernel
    k = torch.arange(8, dtype=torch.float64)
    imag = {
        "legs": legs(16).Lambda.imag,
        # the official lower bound makes frequency 0 this
        "lin": -(math.pi * k).clamp(min=1e-4),
        "inv": -16 / math.pi * (16 / (2 * k + 1) - 1),
    }[init]
    B = confined_B(legs(16).B) if init == "legs" else torch.ones(8).to(torch.complex128)
    # relu adds 1e-4 to what is stored, which is the value itself, as in official checkpoints
    real = torch.full_like(imag, -0.5 - (1e-4 if real_transform == "relu" else 0))
    Lambda = torch.complex(real, imag).expand(3, 8)
    torch.testing.assert_close(kernel.Lambda(), Lambda, rtol=1e-6, atol=1e-7)
    own = kernel.B_and_C()[0]  # its sign is free
    torch.testing.assert_close(own * own.conj(), (B * B.conj()).expand(3, 8), rtol=1e-6, atol=0)


def test_real_eigenvalues() -> None:
    kernel = S4D(3, S4DConfig(d_state=16, init="real")).kernel
    Lambda = kernel.Lambda()
    k = torch.arange(8, dtype=torch.float64).expand(3, 8)
    torch.testing.assert_close(Lambda.real, -1 - k, rtol=1e-6, atol=0)
    torch.testing.assert_close(Lambda.imag, torch.full_like(k, -1e-4), rtol=1e-6, atol=0)


def test_copies_serve_features_in_turn() -> None:
    kernel = S4D(6, S4DConfig(d_state=4, n_ssm=2)).kernel
    with torch.no_grad():
        kernel.A_imag.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        kernel.B.fill_(0).select(3, 0)[0] = torch.tensor([[5.0, 6.0], [7.0, 8.0]])
    even, odd = torch.tensor([-1.0, -2.0]), torch.tensor([-3.0, -4.0])
    assert torch.equal(kernel.Lambda().imag.float(), torch.stack([even, odd] * 3))
    expected = torch.stack([torch.tensor([5.0, 6.0]), torch.tensor([7.0, 8.0])] * 3)
    assert torch.equal(kernel.B_and_C()[0].real.float(), expected)


def kolmogorov_smirnov(sample: torch.Tensor) -> float:
    """Distance from the uniform distribution on [0, 1], in units of 1 / sqrt(n)."""
    ordered = sample.double().sort().values
    uniform = (torch.arange(len(sample), dtype=torch.float64) + 0.5) / len(sample)
    return float((ordered - uniform).abs().max()) * math.sqrt(len(sample))


@pytest.mark.parametrize("dt_tie", [True, False])
@pytest.mark.parametrize("dt_transform", ["exp", "softplus"])
def test_step_sizes_are_log_uniform(dt_transform: Any, dt_tie: bool) -> None:
    config = S4DConfig(d_state=4, dt_min=1e-4, dt_max=1.0, dt_transform=dt_transform, dt_tie=dt_tie)
    kernel = S4D(2048, config).kernel
    dt = kernel.dt().detach()
    assert dt.shape == (2048, 1 if dt_tie else 2)
    assert dt.min() >= 0.999e-4
    assert dt.max() <= 1.001
    assert kolmogorov_smirnov((dt.log().flatten() - math.log(1e-4)) / math.log(1e4)) < 1.63
    stored = torch.exp if dt_transform == "exp" else F.softplus
    torch.testing.assert_close(stored(kernel.inv_dt.detach().double()), dt)


def test_C_and_D_are_normal() -> None:
    layer = S4D(512, S4DConfig(d_state=16, channels=2, bidirectional=True))
    normal = torch.distributions.Normal(0.0, 1.0)
    C, D = layer.kernel.C.detach(), layer.D.detach()
    for part in (C[..., 0], C[..., 1]):  # complex normal: variance 1 in total
        assert kolmogorov_smirnov(normal.cdf(part.flatten() * math.sqrt(2))) < 1.63
    assert abs(float((C[..., 0] * C[..., 1]).mean())) < 3 * 0.5 / math.sqrt(C[..., 0].numel())
    assert kolmogorov_smirnov(normal.cdf(D.flatten())) < 1.63


def test_parameters_have_the_default_type() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        layer = S4D(2, S4DConfig(4, train_B=False))
    finally:
        torch.set_default_dtype(torch.float32)
    assert {t.dtype for t in layer.state_dict().values()} == {torch.float64}
    assert {t.dtype for t in S4D(2).state_dict().values()} == {torch.float32}


def group_of(module: nn.Module, parameter: nn.Parameter) -> tuple[object, object]:
    """Learning rate and weight decay that an optimizer gives to a parameter."""
    (group,) = (
        g
        for g in parameter_groups(module, weight_decay=0.05)
        if any(p is parameter for p in g["params"])  # type: ignore[attr-defined]
    )
    return group.get("lr"), group["weight_decay"]


@pytest.mark.parametrize(
    ("rates", "A", "dt", "C"),
    [
        ({}, 1e-3, 1e-3, None),
        ({"lr_dt": None}, 1e-3, None, None),
        ({"lr": 0.01, "lr_dt": 0.02, "lr_C": 0.03}, 0.01, 0.02, 0.03),
        ({"lr": None, "lr_dt": None}, None, None, None),
        ({"lr": 0.0}, 0.0, 1e-3, None),
    ],
)
def test_learning_rates_reach_the_optimizer(
    rates: dict[str, float | None], A: float | None, dt: float | None, C: float | None
) -> None:
    layer = S4D(4, S4DConfig(4, **rates))  # type: ignore[arg-type]
    kernel = layer.kernel
    for parameter in (kernel.A_real, kernel.A_imag, kernel.B):
        assert isinstance(parameter, nn.Parameter)
        assert group_of(layer, parameter) == (A, 0.0)
    assert group_of(layer, kernel.inv_dt) == (dt, 0.0)
    assert group_of(layer, kernel.C) == (C, 0.05)
    assert group_of(layer, layer.D) == (None, 0.05)


def test_initial_values_survive_generic_passes() -> None:
    layer = S4D(4)
    kept = {n for n, p in layer.named_parameters() if getattr(p, "_no_reinit", False)}
    assert kept == {f"kernel.{name}" for name in ("inv_dt", "A_real", "A_imag", "B", "C")}
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    zero_linear_biases(layer)
    changed = {n for n, v in layer.state_dict().items() if not torch.equal(v, before[n])}
    assert changed == {"output_linear.0.bias"}
