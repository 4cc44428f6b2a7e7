"""S4 against official outputs, the length of its kernel, its copies, directions and marks."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_dplr import impulse_response
from torch import Tensor

from ssm_core.errors import ConfigError
from ssm_core.hippo import confined_B, legs
from ssm_core.layers import dplr
from ssm_core.layers.s4 import S4, S4Config

GOLDEN = Path(__file__).parent.parent / "data" / "s4_dplr_uni.safetensors"


def true_C(layer: S4) -> Tensor:
    """C (c, h, n) as the parameters stand, complex128."""
    model, C = layer.kernel._model()
    A = dplr.as_matrix(dplr.discretise(model))
    return dplr.recover(C, dplr.power(A, layer.kernel.length)).detach()


def small(l_max: int = 12, d: int = 3, **options: object) -> S4:
    return S4(d, S4Config(4, l_max=l_max, **options)).double()  # type: ignore[arg-type]


def plain(l_max: int = 12, d: int = 3, **options: object) -> S4:
    """Without an output map: y = K * x + D x."""
    return small(l_max, d, activation=None, final_act=None, **options)


@pytest.fixture
def golden() -> tuple[S4, dict[str, Tensor]]:
    """A layer with official weights, made for another length."""
    tensors = load_file(GOLDEN)
    layer = S4(8, S4Config(16, activation=None, final_act=None))
    assert layer.kernel.length == 1024
    layer.load_state_dict({k[3:]: v for k, v in tensors.items() if k.startswith("sd.")})
    return layer, tensors


@torch.no_grad()
def test_official_outputs(golden: tuple[S4, dict[str, Tensor]]) -> None:
    layer, expected = golden
    assert layer.kernel.length == 40
    x, y = expected["x"], expected["y"]
    state, steps = layer.initial_state(2), []
    for x_t in x.unbind(1):
        y_t, state = layer.step(x_t, state)
        steps.append(y_t)
    for got in (layer(x), layer(x, return_state=True)[0], torch.stack(steps, 1)):
        assert (got - y).abs().max() < 3e-6 * y.abs().max()
    assert (layer.kernel(40) - expected["K"]).abs().max() < 3e-6 * expected["K"].abs().max()


def test_keys_and_shapes_of_official_checkpoints() -> None:
    layer = S4(8, S4Config(16, channels=2, bidirectional=True, n_ssm=4))
    assert {k: tuple(v.shape) for k, v in layer.state_dict().items()} == {
        "D": (2, 8),
        "kernel.inv_dt": (8, 1),
        "kernel.A_real": (4, 8),
        "kernel.A_imag": (4, 8),
        "kernel.B": (1, 4, 8, 2),
        "kernel.C": (4, 8, 8, 2),
        "kernel.P": (1, 4, 8, 2),
        "kernel.l_kernel": (),
        "output_linear.0.weight": (16, 16),
        "output_linear.0.bias": (16,),
    }
    assert layer.kernel.l_kernel.dtype is torch.int64


@torch.no_grad()
def test_a_checkpoint_that_was_never_called_holds_the_true_C() -> None:
    source, layer = plain(12), plain(12)
    state = source.state_dict()
    C = true_C(source)
    state |= {"kernel.C": torch.view_as_real(C), "kernel.l_kernel": torch.tensor(0)}
    layer.load_state_dict(state)
    assert layer.kernel.length == int(layer.kernel.l_kernel) == 12
    torch.testing.assert_close(layer.kernel(9), impulse_response(layer.kernel._model()[0], C, 9))
    torch.testing.assert_close(true_C(layer), C)


@torch.no_grad()
def test_a_partial_checkpoint_leaves_the_kernel_as_it_is() -> None:
    layer = plain(12)
    before = layer.kernel(12)
    layer.load_state_dict({"kernel.l_kernel": torch.tensor(12)}, strict=False)
    layer.load_state_dict({"D": torch.ones(1, 3)}, strict=False)
    assert torch.equal(layer.kernel(12), before)


@torch.no_grad()
@pytest.mark.parametrize("l_max", [1, 7, 12])
def test_longer_sequences_double_the_kernel_and_nothing_else(l_max: int) -> None:
    layer = plain(l_max)
    C, first = true_C(layer), layer.kernel(l_max)
    K = layer.kernel(50)
    expected = {1: 64, 7: 56, 12: 96}[l_max]
    assert layer.kernel.length == int(layer.kernel.l_kernel) == expected
    assert K.shape == (1, 3, 50)
    torch.testing.assert_close(K[..., :l_max], first)
    torch.testing.assert_close(K, impulse_response(layer.kernel._model()[0], C, 50))
    torch.testing.assert_close(true_C(layer), C)
    other = plain(5)
    other.load_state_dict(layer.state_dict())
    assert other.kernel.length == expected
    torch.testing.assert_close(other.kernel(50), K, rtol=0, atol=0)


@torch.no_grad()
def test_shorter_sequences_take_the_beginning() -> None:
    layer = plain(12)
    torch.testing.assert_close(layer.kernel(5), layer.kernel(12)[..., :5], rtol=0, atol=0)
    assert layer.kernel(0).shape == (1, 3, 0)
    assert layer.kernel.length == 12


def test_lengthening_within_a_training_step() -> None:
    layer = plain(4)
    loss = layer(torch.randn(1, 4, 3, dtype=torch.float64)).sum()
    loss = loss + layer(torch.randn(1, 9, 3, dtype=torch.float64)).sum()
    loss.backward()
    assert layer.kernel.length == 16
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


@torch.no_grad()
@pytest.mark.parametrize(
    "move", [copy.deepcopy, lambda layer: layer.to(torch.float64), lambda layer: layer.cpu()]
)
def test_the_length_follows_the_module(move: Callable[[S4], S4]) -> None:
    layer = plain(12)
    layer.kernel.lengthen(20)
    expected = layer.kernel(24)
    moved = move(layer)
    assert moved.kernel.length == 24
    torch.testing.assert_close(moved.kernel(24), expected, rtol=0, atol=0)


@torch.no_grad()
def test_copies_serve_the_features_in_turn() -> None:
    shared, full = plain(12, 6, n_ssm=2), plain(12, 6)
    state = shared.state_dict()
    for name, axis in (("A_real", 0), ("A_imag", 0), ("B", 1), ("P", 1)):
        key = f"kernel.{name}"
        state[key] = state[key] + 0.1 * torch.randn_like(state[key])
        shared.load_state_dict(state)
        rows = [state[key].select(axis, i % 2) for i in range(6)]
        full.load_state_dict({key: torch.stack(rows, axis)}, strict=False)
    full.load_state_dict({k: state[k] for k in ("kernel.C", "kernel.inv_dt")}, strict=False)
    assert shared.kernel.A_real.shape == (2, 2)
    torch.testing.assert_close(shared.kernel(12), full.kernel(12))


@torch.no_grad()
def test_the_backward_direction_starts_at_the_next_step() -> None:
    layer = plain(9, bidirectional=True)
    x = torch.randn(2, 7, 3, dtype=torch.float64)
    forward, backward = layer.kernel(7)
    expected = x * layer.D[0]
    for t in range(7):
        for s in range(7):
            K = forward[:, t - s] if s <= t else backward[:, s - t - 1]
            expected[:, t] += K * x[:, s]
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("l", [5, 6])
@pytest.mark.parametrize("l_max", [6, 7])
def test_gradients_of_the_convolution_kernel(l: int, l_max: int) -> None:
    kernel = plain(l_max, 2, channels=1, n_ssm=1).kernel
    names = [name for name, _ in kernel.named_parameters()]

    def run(*values: Tensor) -> Tensor:
        return torch.func.functional_call(kernel, dict(zip(names, values, strict=True)), (l,))

    values = [p.detach().clone().requires_grad_() for p in kernel.parameters()]
    assert torch.autograd.gradcheck(run, values)


def test_initial_values() -> None:
    torch.manual_seed(0)
    layer = S4(256, S4Config(8))
    kernel = layer.kernel
    assert kernel.length == 1024  # 1 / dt_min, rounded up
    log_dt = kernel.inv_dt.detach()
    assert log_dt.min() >= math.log(1e-3)
    assert log_dt.max() <= math.log(0.1)
    assert abs(log_dt.mean().item() - math.log(1e-2)) < 0.25
    C = true_C(layer)
    assert abs(C.abs().square().mean().item() - 1) < 0.1
    assert abs(C.real.mean().item()) < 0.06
    assert abs(layer.D.mean().item()) < 0.2
    start = legs(8)
    torch.testing.assert_close(kernel.A_real.detach(), torch.full((256, 4), -math.log(2)))
    expected = {"A_imag": -start.Lambda.imag.expand(256, -1)}
    for name, value in (("B", confined_B(start.B)), ("P", start.P)):
        expected[name] = torch.view_as_real(value).expand(1, 256, -1, -1)
    for name, value in expected.items():
        torch.testing.assert_close(getattr(kernel, name).detach(), value.float())


@torch.no_grad()
def test_the_length_does_not_change_the_model_that_one_starts_with() -> None:
    kernels = []
    for l_max in (16, 100, None):
        torch.manual_seed(0)
        kernels.append(S4(4, S4Config(8, l_max=l_max)).kernel(16))
    for K in kernels[1:]:
        torch.testing.assert_close(K, kernels[0], rtol=1e-4, atol=1e-5)


def test_marks_for_optimisers() -> None:
    layer = S4(4, S4Config(4, lr=2e-3, lr_dt=3e-3))
    marks = {k: p._optim for k, p in layer.named_parameters() if hasattr(p, "_optim")}
    slow = {"lr": 2e-3, "weight_decay": 0.0}
    assert marks.pop("kernel.C", {}) == {}
    assert marks == {
        "kernel.inv_dt": {"lr": 3e-3, "weight_decay": 0.0},
        **{f"kernel.{name}": slow for name in ("A_real", "A_imag", "B", "P")},
    }


def test_config_errors() -> None:
    with pytest.raises(ConfigError) as caught:
        S4Config(l_max=0)
    assert str(caught.value) == "S4Config: l_max is 0, expected an integer of at least 1"
    with pytest.raises(ConfigError, match="S4: d_model is 0, expected an integer of at least 1"):
        S4(0)
    with pytest.raises(ConfigError, match="S4Config: n_ssm is 3, expected a divisor of d_model, 4"):
        S4(4, S4Config(n_ssm=3))
    assert S4Config(dt_min=0.3, dt_max=2.0).kernel_length() == 4
    assert S4Config(dt_min=2.0, dt_max=2.0).kernel_length() == 1
