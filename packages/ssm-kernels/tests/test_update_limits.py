"""The decode-step operators at their limits: NaN, extremes, gradients, threads, odd tensors."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from kernel_cases import BACKENDS, assert_close, assert_same_special_values
from torch import Tensor

from ssm_kernels import (
    ArgumentError,
    causal_conv1d_update,
    causal_conv1d_update_reference,
    selective_state_update,
    selective_state_update_reference,
)

Arguments = dict[str, Tensor]


def step_arguments(b: int = 2, d: int = 19, n: int = 21, is_complex: bool = False) -> Arguments:
    torch.manual_seed(1)
    number = torch.complex64 if is_complex else torch.float32
    A = -torch.rand(d, n) + (2j * torch.randn(d, n) if is_complex else 0)
    return {
        "state": torch.randn(b, d, n, dtype=number),
        "x": torch.randn(b, d),
        "dt": torch.randn(b, d),
        "A": A,
        "B": torch.randn(b, n, dtype=number),
        "C": torch.randn(b, n, dtype=number),
        "D": torch.randn(d),
        "z": torch.randn(b, d),
        "dt_bias": torch.rand(d),
    }


def conv_arguments(b: int = 2, d: int = 19, l: int = 3, s: int = 5) -> Arguments:
    torch.manual_seed(1)
    return {
        "x": torch.randn(b, l, d),
        "conv_state": torch.randn(b, d, s),
        "weight": torch.randn(d, 4),
        "bias": torch.randn(d),
    }


def step(arguments: Arguments, backend: str) -> Tensor:
    return selective_state_update(**arguments, dt_softplus=True, backend=backend)


def conv(arguments: Arguments, backend: str) -> Tensor:
    return causal_conv1d_update(**arguments, activation="silu", backend=backend)


OPERATORS: dict[str, tuple[Callable[[], Arguments], Callable[[Arguments, str], Tensor], str]] = {
    "selective_state_update": (step_arguments, step, "state"),
    "complex selective_state_update": (lambda: step_arguments(is_complex=True), step, "state"),
    "causal_conv1d_update": (conv_arguments, conv, "conv_state"),
}
each_operator = pytest.mark.parametrize("operator", OPERATORS)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@each_operator
def test_special_values_spread_as_in_the_reference(operator: str, value: float) -> None:
    make, call, state = OPERATORS[operator]
    for argument in make():
        if operator.startswith("complex") and argument == "A" and value == float("-inf"):
            continue  # torch before 2.7 makes exp(-inf + i x) NaN; the kernel makes it 0
        results = []
        for backend in BACKENDS:
            arguments = make()
            changed = arguments[argument]
            if changed.is_complex():
                changed = torch.view_as_real(changed)[..., 0]
            changed[(-1,) * changed.dim()] = value
            y = call(arguments, backend)
            results.append((y, arguments[state]))
        for name, got, expected in zip(("y", "state"), results[1], results[0], strict=True):
            if operator.startswith("complex"):  # what becomes of infinity times i is left open
                assert torch.equal(torch.isfinite(got), torch.isfinite(expected)), argument
            else:
                assert_same_special_values(got, expected, f"{argument}: {name}")


@pytest.mark.parametrize("n", [1, 5, 16, 21])
def test_infinite_input_reaches_only_its_own_channel(n: int) -> None:
    """The lanes of a vector that hold no state must not turn infinity into NaN."""
    arguments = step_arguments(n=n)
    arguments["x"][0, 3] = float("inf")
    for name in ("B", "C", "D"):
        arguments[name] = arguments[name].abs()
    arguments["z"] = arguments["z"].abs()
    y = step(arguments, "cpu")
    expected = torch.zeros_like(y)
    expected[0, 3] = float("inf")
    assert torch.equal(torch.isinf(y), torch.isinf(expected))
    assert not torch.isnan(y).any()


EXTREMES = {
    "steps that underflow every decay": ("dt", 1e4),
    "vanishing steps": ("dt", -1e4),
    "no decay": ("A", 0.0),
    "instant decay": ("A", -1e30),
    "growth": ("A", 20.0),
    "huge input": ("x", 1e30),
    "closed gate": ("z", -1e4),
    "open gate": ("z", 1e4),
    "step far above the softplus threshold": ("dt_bias", 50.0),
    "step far below the softplus threshold": ("dt_bias", -200.0),
}


@pytest.mark.parametrize("is_complex", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", EXTREMES)
def test_extreme_values(name: str, backend: str, is_complex: bool) -> None:
    argument, value = EXTREMES[name]
    arguments = step_arguments(is_complex=is_complex)
    arguments[argument].fill_(value)
    wide = {k: v.to(torch.promote_types(v.dtype, torch.float64)) for k, v in arguments.items()}
    expected = selective_state_update_reference(**wide, dt_softplus=True)
    y = step(arguments, backend)
    for key, got, exact in (("y", y, expected), ("state", arguments["state"], wide["state"])):
        finite = exact.abs() < 1e37
        assert torch.equal(torch.isfinite(got) | ~finite, torch.ones_like(finite)), key
        assert_close(got.where(finite, 0), exact.where(finite, 0), 3e-5, f"{name}: {key}")


@pytest.mark.parametrize("angle", [1e3, 1e5, 1e7])
def test_large_angles(angle: float) -> None:
    """Beyond the reach of the vector functions sine and cosine come from the C library."""
    arguments = step_arguments(is_complex=True)
    arguments["A"] = torch.complex(-torch.rand(19, 21) * 0.01, torch.full((19, 21), angle))
    arguments["dt"] = arguments["dt"].abs().ceil()  # so that dt A has no rounding of its own
    arguments["dt_bias"].zero_()
    arguments = {k: v.clone() for k, v in arguments.items()}
    wide = {k: v.to(torch.promote_types(v.dtype, torch.float64)) for k, v in arguments.items()}
    expected = selective_state_update_reference(**wide)
    y = selective_state_update(**arguments, backend="cpu")
    assert_close(y, expected, 1e-5)
    assert_close(arguments["state"], wide["state"], 1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@each_operator
def test_gradients_are_refused(operator: str, backend: str) -> None:
    make, call, state = OPERATORS[operator]
    for name in make():
        arguments = make()
        before = arguments[state].clone()
        arguments[name].requires_grad_()
        with pytest.raises(ArgumentError) as caught:
            call(arguments, backend)
        expected = f"{operator.split()[-1]}: {name} requires grad, but a state updated in place"
        assert str(caught.value).startswith(expected)
        assert "\n" not in str(caught.value)
        assert torch.equal(arguments[state], before)
        with torch.no_grad():
            assert call(arguments, backend).requires_grad is False
        assert not torch.equal(arguments[state], before)


@pytest.mark.parametrize("backend", BACKENDS)
@each_operator
def test_autograd_notices_that_the_state_changed(operator: str, backend: str) -> None:
    make, call, state = OPERATORS[operator]
    arguments = make()
    factor = torch.ones((), requires_grad=True)
    product = factor * arguments[state]
    with torch.no_grad():
        call(arguments, backend)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.abs().sum().backward()


@pytest.mark.parametrize("backend", BACKENDS)
@each_operator
def test_states_of_inference_mode(operator: str, backend: str) -> None:
    make, call, state = OPERATORS[operator]
    expected = make()
    y = call(expected, backend)
    with torch.inference_mode():
        arguments = make()
        assert arguments[state].is_inference()
        assert torch.equal(call(arguments, backend), y)
    assert torch.equal(arguments[state], expected[state])


@pytest.mark.parametrize("backend", BACKENDS)
@each_operator
def test_expanded_state_is_refused(operator: str, backend: str) -> None:
    make, call, state = OPERATORS[operator]
    arguments = make()
    arguments[state] = arguments[state][:1].expand_as(arguments[state])
    with pytest.raises(ArgumentError, match=rf"{state} is expanded \(strides \(0, "):
        call(arguments, backend)
    arguments = make()
    only_one = {k: v[:1] if v.shape[0] == 2 else v for k, v in arguments.items()}
    only_one[state] = only_one[state].expand(1, *arguments[state].shape[1:])
    assert call(only_one, backend).shape[0] == 1  # nothing is shared along an axis of one entry


@each_operator
def test_pending_negations_and_conjugations_are_carried_out(operator: str) -> None:
    def lazily(t: Tensor) -> Tensor:
        if t.is_complex():
            return t.conj().resolve_conj().conj()
        made = torch.complex(torch.zeros_like(t), -t).conj().imag
        assert made.is_neg()
        return made

    make, call, state = OPERATORS[operator]
    expected = make()
    y = call(expected, "cpu")
    for name in expected:
        arguments = make()
        arguments[name] = lazily(arguments[name])
        assert torch.equal(call(arguments, "cpu"), y), name
        assert torch.equal(arguments[state].resolve_conj(), expected[state]), name


@pytest.mark.parametrize("is_complex", [False, True])
def test_thread_count_does_not_change_the_bits(is_complex: bool) -> None:
    def run() -> list[Tensor]:
        steps = step_arguments(b=5, d=1500, n=20, is_complex=is_complex)
        conv_inputs = conv_arguments(b=5, d=1500, l=9)
        ys = [step(steps, "cpu"), conv(conv_inputs, "cpu")]
        return [*ys, steps["state"], conv_inputs["conv_state"]]

    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(run())
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
def test_autocast_changes_nothing(backend: str) -> None:
    for make, call, state in OPERATORS.values():
        expected, arguments = make(), make()
        y = call(expected, backend)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(call(arguments, backend), y)
        assert torch.equal(arguments[state], expected[state])


@pytest.mark.parametrize("backend", BACKENDS)
def test_mixed_types_compute_in_float32(backend: str) -> None:
    arguments = step_arguments()
    for name, dtype in {"x": torch.bfloat16, "dt": torch.float16, "B": torch.bfloat16}.items():
        arguments[name] = arguments[name].to(dtype)
    wide = {k: v.to(torch.float64) for k, v in arguments.items()}
    expected = selective_state_update_reference(**wide, dt_softplus=True)
    y = step(arguments, backend)
    assert y.dtype is torch.bfloat16
    assert_close(y, expected, 1e-2)
    assert_close(arguments["state"], wide["state"], 1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_low_precision_samples_keep_their_bits(backend: str) -> None:
    arguments = conv_arguments()
    low = {k: v.to(torch.bfloat16) for k, v in arguments.items()}
    wide = {k: v.double() for k, v in low.items()}
    expected = causal_conv1d_update_reference(**wide, activation="silu")
    y = conv(low, backend)
    assert_close(y, expected, 1e-2)
    assert torch.equal(low["conv_state"].double(), wide["conv_state"])
