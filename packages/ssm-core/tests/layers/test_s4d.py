"""S4D against the equations as loops, official weights, single steps, dropout, wrong options."""

from __future__ import annotations

import cmath
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from ssm_core.errors import ConfigError
from ssm_core.layers.convolution_layer import ConvolutionState
from ssm_core.layers.s4d import S4D, S4DConfig
from ssm_core.layers.s4d_kernel import S4DKernel

DATA = Path(__file__).parents[1] / "data"
POSITIVE = {
    "exp": math.exp,
    "softplus": lambda x: math.log1p(math.exp(x)),
    "relu": lambda x: max(x, 0.0) + 1e-4,
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
}


def moved(config: S4DConfig, d_model: int = 4, seed: int = 0) -> S4D:
    """A layer in float64 whose every parameter matters, of every state and feature its own."""
    torch.manual_seed(seed)
    layer = S4D(d_model, config).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
        layer.kernel.inv_dt.add_(1.0)
    return layer


def loop(layer: S4D, u: list[list[float]]) -> list[list[list[float]]]:
    """The recurrences of all kernels over one sequence u (l, h), number by number: (l, c, h)."""
    config = layer.config
    assert isinstance(config, S4DConfig)
    W = {name.removeprefix("kernel."): p.tolist() for name, p in layer.state_dict().items()}
    copies, kernels, features = len(W["A_real"]), len(W["C"]), len(W["inv_dt"])
    ys = [[[0.0] * features for _ in range(kernels)] for _ in u]
    for h in range(features):
        rows = range(len(W["A_real"][0]))
        x = [0j for _ in rows]
        for t, u_t in enumerate(u):
            for n in rows:
                s = h % copies
                step = W["inv_dt"][h][n if len(W["inv_dt"][h]) > 1 else 0]
                dt = POSITIVE[config.dt_transform](step)
                Lambda = complex(
                    -POSITIVE[config.real_transform](W["A_real"][s][n]), -W["A_imag"][s][n]
                )
                B = complex(*W["B"][0][s][n])
                if config.disc == "zoh":
                    A_bar = cmath.exp(dt * Lambda)
                    B_bar = B * (A_bar - 1) / Lambda
                else:
                    A_bar = (1 + dt * Lambda / 2) / (1 - dt * Lambda / 2)
                    B_bar = B * dt / (1 - dt * Lambda / 2)
                x[n] = A_bar * x[n] + B_bar * u_t[h]
            for c in range(kernels):
                ys[t][c][h] = 2 * sum((complex(*W["C"][c][h][n]) * x[n]).real for n in rows)
    return ys


def expected_output(layer: S4D, x: Tensor) -> Tensor:
    """The layer on one sequence x (l, d) from the loop."""
    config, l = layer.config, len(x)
    y = torch.tensor(loop(layer, x.tolist()), dtype=torch.float64)  # (l, kernels, h)
    if config.bidirectional:
        y, backward = y[:, : config.channels], torch.zeros_like(y[:, : config.channels])
        flipped = torch.tensor(loop(layer, x.flip(0).tolist()), dtype=torch.float64)
        # step t hears the backward kernel of the steps after it
        backward[: l - 1] = flipped.flip(0)[1:, config.channels :]
        y = y + backward
    y = (y + layer.D * x.unsqueeze(1)).flatten(1)
    if config.activation == "gelu":
        y = y * 0.5 * (1 + torch.erf(y / math.sqrt(2)))
    if config.final_act is None:
        return y
    linear = layer.output_linear[0]  # type: ignore[index]
    first, second = (y @ linear.weight.T + linear.bias).chunk(2, dim=1)
    return first * torch.sigmoid(second)


CASES = {
    "legs": S4DConfig(6),
    "lin, bilinear": S4DConfig(6, init="lin", disc="bilinear"),
    "inv, shared": S4DConfig(4, init="inv", n_ssm=2),
    "real, one copy": S4DConfig(4, init="real", n_ssm=1, activation=None),
    "a step size per state": S4DConfig(4, dt_tie=False, dt_transform="softplus"),
    "softplus": S4DConfig(4, real_transform="softplus"),
    "relu": S4DConfig(4, real_transform="relu"),
    "sigmoid, no map": S4DConfig(4, real_transform="sigmoid", final_act=None),
    "channels": S4DConfig(4, channels=3, disc="bilinear"),
    "both directions": S4DConfig(4, bidirectional=True),
    "both directions, channels": S4DConfig(4, bidirectional=True, channels=2, n_ssm=2),
    "constant B": S4DConfig(4, init="lin", train_B=False),
    "bare": S4DConfig(4, activation=None, final_act=None),
}


@pytest.mark.parametrize("config", CASES.values(), ids=CASES.keys())
@torch.no_grad()
def test_equals_the_equations(config: S4DConfig) -> None:
    layer = moved(config)
    x = torch.randn(2, 9, 4, dtype=torch.float64)
    expected = torch.stack([expected_output(layer, sequence) for sequence in x])
    torch.testing.assert_close(layer(x), expected, rtol=1e-10, atol=1e-10)
    if layer.causal:
        y, _ = layer(x, return_state=True)
        torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)


def relative_error(y: Tensor, expected: Tensor) -> float:
    return float((y - expected).abs().max() / expected.abs().max())


@torch.no_grad()
def test_official_weights() -> None:
    golden = load_file(DATA / "s4_diag_uni.safetensors")
    layer = S4D(8, S4DConfig(d_state=16, activation=None, final_act=None))
    layer.load_state_dict({k[3:]: v for k, v in golden.items() if k.startswith("sd.")})
    assert relative_error(layer.kernel(40), golden["K"]) < 1e-5
    assert relative_error(layer(golden["x"]), golden["y"]) < 1e-5
    assert relative_error(layer(golden["x"], return_state=True)[0], golden["y"]) < 1e-5


@torch.no_grad()
def test_weights_of_the_minimal_s4d() -> None:
    golden = load_file(DATA / "s4d_minimal.safetensors")
    official = {k[3:]: v for k, v in golden.items() if k.startswith("sd.")}
    layer = S4D(8, S4DConfig(d_state=16, init="lin", train_B=False))
    layer.load_state_dict(
        {
            "D": official["D"].unsqueeze(0),
            "kernel.inv_dt": official["kernel.log_dt"].unsqueeze(1),
            "kernel.A_real": official["kernel.log_A_real"],
            "kernel.A_imag": -official["kernel.A_imag"],  # Lambda = .. + i A_imag there
            "kernel.B": layer.kernel.B,  # 1: it is the buffer that "lin" starts with
            "kernel.C": official["kernel.C"].unsqueeze(0),
            "output_linear.0.weight": official["output_linear.0.weight"].squeeze(2),
            "output_linear.0.bias": official["output_linear.0.bias"],
        }
    )
    assert relative_error(layer.kernel(40)[0], golden["K"]) < 1e-5
    assert relative_error(layer(golden["x"]), golden["y"]) < 1e-5


@pytest.mark.parametrize("config", [CASES["legs"], CASES["channels"], CASES["inv, shared"]])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_single_steps_with_and_without_a_gradient_agree(
    config: S4DConfig, dtype: torch.dtype
) -> None:
    layer = moved(config).to(dtype)
    tol = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]
    state = ConvolutionState(torch.randn(3, 4, config.d_state // 2, dtype=torch.complex128))
    x = torch.randn(3, 4, dtype=dtype)
    y, following = layer.step(x, state)
    assert y.requires_grad
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            other_y, other = layer.step(x, state)
        torch.testing.assert_close(other_y, y, rtol=tol, atol=tol)
        torch.testing.assert_close(other, following, rtol=tol, atol=tol)
        assert isinstance(other, ConvolutionState)
        assert other.ssm.dtype == layer.initial_state(1).ssm.dtype


def test_single_step_without_a_gradient_is_direct(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the operator for whole sequences was called")

    layer = S4D(4)
    monkeypatch.setattr("ssm_core.layers.s4d_kernel.selective_scan", refuse)
    with torch.no_grad():
        layer.step(torch.randn(2, 4), layer.initial_state(2))
        with pytest.raises(AssertionError, match="whole sequences"):
            layer(torch.randn(2, 2, 4), state=layer.initial_state(2))


@torch.no_grad()
def test_single_steps_discretise_again_where_a_parameter_changed() -> None:
    layer = S4D(3, S4DConfig(d_state=4)).double()
    x = torch.randn(2, 3, dtype=torch.float64)
    layer.step(x, layer.initial_state(2))
    kept = layer.kernel._kept
    layer.step(x, layer.initial_state(2))
    assert kept is not None
    assert layer.kernel._kept is kept
    layer.kernel.inv_dt.add_(1.0)
    y, _ = layer.step(x, layer.initial_state(2))
    assert layer.kernel._kept is not kept
    torch.testing.assert_close(y, layer(x.unsqueeze(1)).squeeze(1))


def test_state_is_complex_and_at_least_single() -> None:
    for dtype, expected in (
        (torch.bfloat16, torch.complex64),
        (torch.float32, torch.complex64),
        (torch.float64, torch.complex128),
    ):
        layer = S4D(4, S4DConfig(6)).to(dtype)
        state = layer(torch.randn(2, 3, 4, dtype=dtype), return_state=True)[1]
        for part in (state, layer.initial_state(2)):
            assert part.ssm.shape == (2, 4, 3)
            assert part.ssm.dtype == expected


def test_tied_dropout_drops_whole_features_of_a_sequence() -> None:
    layer = S4D(
        64, S4DConfig(d_state=4, dropout=0.5, tie_dropout=True, activation=None, final_act=None)
    )
    x = torch.randn(4, 7, 64)
    whole = layer.eval()(x)
    kept = layer.train()(x) / whole
    assert torch.allclose(kept, kept[:, :1].expand_as(kept).round(), atol=1e-3)
    assert set(kept.round().flatten().tolist()) == {0.0, 2.0}
    assert not torch.equal(kept[0].round(), kept[1].round())

    offsets = torch.tensor([0, 3, 3, 7])
    packed = x[:1]
    kept = (layer(packed, cu_seqlens=offsets) / layer.eval()(packed, cu_seqlens=offsets)).round()
    assert torch.equal(kept[:, :3], kept[:, :1].expand(1, 3, 64))
    assert torch.equal(kept[:, 3:], kept[:, 3:4].expand(1, 4, 64))
    assert not torch.equal(kept[:, 2], kept[:, 3])


def test_free_dropout_drops_single_numbers() -> None:
    layer = S4D(8, S4DConfig(d_state=4, dropout=0.25, activation=None, final_act=None)).train()
    x = torch.randn(2, 200, 8)
    dropped = layer(x) == 0
    assert 0.2 < dropped.float().mean() < 0.3
    assert dropped.any(dim=1).all()
    assert not dropped.all(dim=1).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_state": 7}, "S4DConfig: d_state is 7, expected an even number"),
        ({"d_state": 0}, "S4DConfig: d_state is 0, expected an integer of at least 1"),
        ({"channels": 0}, "S4DConfig: channels is 0, expected an integer of at least 1"),
        ({"n_ssm": 0}, "S4DConfig: n_ssm is 0, expected an integer of at least 1"),
        ({"dropout": 1.0}, "S4DConfig: dropout is 1.0, expected a number in [0, 1)"),
        (
            {"init": "hippo"},
            "S4DConfig: init is 'hippo', expected 'legs' or 'lin' or 'inv' or 'real'",
        ),
        ({"disc": "euler"}, "S4DConfig: disc is 'euler', expected 'zoh' or 'bilinear'"),
        (
            {"dt_transform": "relu"},
            "S4DConfig: dt_transform is 'relu', expected 'exp' or 'softplus'",
        ),
        (
            {"real_transform": "none"},
            "S4DConfig: real_transform is 'none', "
            "expected 'exp' or 'softplus' or 'relu' or 'sigmoid'",
        ),
        (
            {"dt_min": 0.2},
            "S4DConfig: dt_min is 0.2 and dt_max 0.1, expected 0 < dt_min <= dt_max",
        ),
        ({"lr": -1.0}, "S4DConfig: lr is -1.0, expected a number from 0 or None"),
        ({"activation": "relu"}, "S4DConfig: activation is 'relu', expected 'gelu' or None"),
        ({"final_act": "gelu"}, "S4DConfig: final_act is 'gelu', expected 'glu' or None"),
        (
            {"final_act": None, "channels": 2},
            "S4DConfig: channels is 2 without an output map, expected 1, or final_act 'glu'",
        ),
        (
            {"init": "real", "real_transform": "sigmoid"},
            "S4DConfig: real_transform is 'sigmoid' with init 'real', whose values reach "
            "d_state / 2, expected 'exp', 'softplus' or 'relu'",
        ),
    ],
)
def test_config_errors(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        S4DConfig(**options)  # type: ignore[arg-type]
    assert str(caught.value) == message


def test_sizes_that_do_not_fit() -> None:
    with pytest.raises(ConfigError, match="S4D: d_model is 0, expected an integer of at least 1"):
        S4D(0)
    with pytest.raises(
        ConfigError, match="S4DConfig: n_ssm is 3, expected a divisor of d_model, 4"
    ):
        S4D(4, S4DConfig(n_ssm=3))
    assert isinstance(S4D(4).kernel, S4DKernel)
