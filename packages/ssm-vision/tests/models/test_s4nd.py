from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ssm_core.errors import ConfigError
from ssm_core.layers.s4_kernel import S4Kernel
from ssm_kernels.errors import ShapeError
from ssm_vision.models.s4nd import S4ND, S4NDConfig

#: step sizes large enough for every place of a small map to have a kernel value of its own
STEPS = {"dt_min": 0.3, "dt_max": 0.7, "d_state": 4}


def layer(d_model: int = 2, **options: Any) -> S4ND:
    torch.manual_seed(0)
    return S4ND(d_model, S4NDConfig(**STEPS | options)).double()


def by_recurrence(kernel: Any, l: int) -> Tensor:
    """K[t] = C Abar^t Bbar from the parameters, one state after the other: (c, h, l)."""
    c, h, n, _ = kernel.C.shape
    K = torch.zeros(c, h, l, dtype=torch.float64)
    for i in range(h):
        copy = i % kernel.A_real.shape[0]
        Lambda = torch.complex(-kernel.A_real[copy].exp(), -kernel.A_imag[copy])
        dt = kernel.inv_dt[i].exp()
        B, C = torch.view_as_complex(kernel.B[0, copy]), torch.view_as_complex(kernel.C[:, i])
        # with the conjugate of every state
        Lambda, B, C = (torch.cat([p, p.conj()], dim=-1) for p in (Lambda, B, C))
        eye = torch.eye(2 * n, dtype=torch.complex128)
        if isinstance(kernel, S4Kernel):
            P = torch.view_as_complex(kernel.P[0, copy])
            P = torch.cat([P, P.conj()])
            A = torch.diag(Lambda) - P[:, None] * P.conj()
            inverse = torch.linalg.inv(eye - dt / 2 * A)
            Abar, Bbar = inverse @ (eye + dt / 2 * A), inverse @ (dt * B)
            # what is stored is C (1 - Abar^length)
            C = C @ torch.linalg.inv(eye - torch.linalg.matrix_power(Abar, kernel.length))
        else:
            Abar, Bbar = torch.diag((dt * Lambda).exp()), ((dt * Lambda).exp() - 1) / Lambda * B
        state = Bbar
        for t in range(l):
            K[:, i, t] = (C @ state).real
            state = Abar @ state
    return K


def value(K: Tensor, c: int, lag: int, bidirectional: bool) -> Tensor:
    """The kernel c (h,) of an axis at a lag; backward kernels follow the forward ones."""
    if lag >= 0:
        return K[c, :, lag]
    if not bidirectional:
        return torch.zeros_like(K[0, :, 0])
    return K[c + len(K) // 2, :, -lag - 1]


def double_sum(mixer: S4ND, u: Tensor) -> Tensor:
    """sum over places and products of K_y K_x u: (b, y, x, c, d)."""
    (_, height, width, _), config = u.shape, mixer.config
    K_y, K_x = by_recurrence(mixer.kernel_y, height), by_recurrence(mixer.kernel_x, width)
    y = torch.zeros(*u.shape[:3], config.channels, u.shape[3], dtype=torch.float64)
    places = list(itertools.product(range(height), range(width)))
    for (s, t), (i, j), c in itertools.product(places, places, range(config.channels)):
        for r in range(config.rank):
            k = c * config.rank + r
            along_y = value(K_y, k, s - i, config.bidirectional)
            y[:, s, t, c] += along_y * value(K_x, k, t - j, config.bidirectional) * u[:, i, j]
    return y


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"kernel": "s4", "l_max": 8},
        {"channels": 2, "rank": 3, "n_ssm": 1},
        {"kernel": "s4", "l_max": 2, "rank": 2, "n_ssm": 1},  # lengthened by the first call
        {"bidirectional": False, "channels": 2},
        {"init": "lin", "train_B": False},
    ],
    ids=["s4d", "s4", "rank", "s4-rank", "one-way", "lin"],
)
def test_convolution_is_the_double_sum(options: dict[str, Any]) -> None:
    mixer, u = layer(**options), torch.randn(2, 3, 5, 2, dtype=torch.float64)
    with torch.no_grad():
        # parameters are made in float32, and l_max = 2 leaves few digits to C
        torch.testing.assert_close(mixer.convolve(u), double_sum(mixer, u), rtol=1e-6, atol=1e-8)


def test_layer_adds_skip_activation_and_gate() -> None:
    mixer, u = layer(channels=2), torch.randn(1, 2, 3, 2, dtype=torch.float64)
    with torch.no_grad():
        y = F.gelu((double_sum(mixer, u) + mixer.D * u[:, :, :, None]).flatten(3))
        a, b = mixer.output_linear[0](y).chunk(2, dim=-1)
        torch.testing.assert_close(mixer(u), a * b.sigmoid(), rtol=1e-6, atol=1e-8)


def test_without_output_map_and_activation() -> None:
    mixer = layer(final_act=None, activation=None, rank=2)
    u = torch.randn(1, 4, 1, 2, dtype=torch.float64)
    with torch.no_grad():
        expected = double_sum(mixer, u).squeeze(3) + mixer.D[0] * u
        torch.testing.assert_close(mixer(u), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kernel", ["s4d", "s4"])
def test_gradients_of_every_parameter(kernel: str) -> None:
    mixer = layer(kernel=kernel, l_max=4, rank=2)
    u = torch.randn(1, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(mixer, (u,))
    mixer(u).square().sum().backward()
    for name, parameter in mixer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_dropout_of_single_numbers_or_whole_features() -> None:
    u = torch.randn(4, 5, 6, 2, dtype=torch.float64)
    for tie in (False, True):
        mixer = layer(final_act=None, activation=None, dropout=0.5, tie_dropout=tie)
        dropped = mixer(u) == 0
        assert 0 < dropped.sum() < dropped.numel()
        by_image = dropped.flatten(1, 2)
        assert bool((by_image.all(1) | ~by_image.any(1)).all()) == tie
        assert not (mixer.eval()(u) == 0).any()


def test_wrong_shapes_and_options() -> None:
    with pytest.raises(ShapeError, match=r"S4ND: x has shape \(2, 6, 2\), expected"):
        layer()(torch.zeros(2, 6, 2))
    with pytest.raises(ShapeError, match=r"expected \(b, y, x, d\) = \(b, y, x, 2\)"):
        layer()(torch.zeros(2, 3, 3, 4))
    for options, message in [
        ({"kernel": "s5"}, "kernel is 's5'"),
        ({"rank": 0}, "rank is 0"),
        ({"l_max": 0}, "l_max is 0"),
        ({"kernel": "s4", "init": "lin"}, "init is 'lin' and disc 'zoh' with kernel 's4'"),
        ({"d_state": 3}, "d_state is 3"),
    ]:
        with pytest.raises(ConfigError, match=message):
            S4NDConfig(**options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="n_ssm is 3, expected a divisor of d_model, 4"):
        S4ND(4, S4NDConfig(n_ssm=3))
