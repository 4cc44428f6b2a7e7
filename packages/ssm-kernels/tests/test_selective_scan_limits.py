"""The selective scan at its limits: mixed types, extreme values, NaN, odd gradients, no steps."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from kernel_cases import (
    BACKENDS,
    TOLERANCE,
    assert_close,
    assert_same_special_values,
    parameter,
    run,
)
from scan_cases import EVERYTHING
from torch import Tensor

from ssm_kernels import BackendError, selective_scan, selective_scan_reference


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("dtypes", "work"),
    [
        ((torch.bfloat16, torch.float32, torch.bfloat16, torch.bfloat16), torch.float32),
        ((torch.float32, torch.bfloat16, torch.float16, torch.float32), torch.float32),
        ((torch.float16, torch.bfloat16, torch.float16, torch.bfloat16), torch.float32),
        ((torch.float32, torch.float64, torch.float32, torch.float32), torch.float64),
    ],
)
def test_mixed_types_compute_in_the_widest(
    backend: str, dtypes: tuple[torch.dtype, ...], work: torch.dtype
) -> None:
    leaves = EVERYTHING.leaves(torch.float32)
    for name, dtype in zip(("u", "delta", "B", "z"), dtypes, strict=True):
        leaves[name] = parameter(leaves[name].storage.detach(), dtype)
    cotangents = EVERYTHING.cotangents()
    got = run(selective_scan, leaves, cotangents, backend=backend, **EVERYTHING.options())
    assert got["y"].dtype is dtypes[0]
    assert got["final state"].dtype is work
    for name, dtype in zip(("u", "delta", "B", "z"), dtypes, strict=True):
        assert got[f"gradient of {name}"].dtype is dtype

    wide = {name: leaf.widened() for name, leaf in leaves.items()}
    cotangents = (cotangents[0].to(dtypes[0]), cotangents[1])
    expected = run(selective_scan_reference, wide, cotangents, **EVERYTHING.options())
    for name, value in expected.items():
        stored = got[name].dtype
        tolerance = max(TOLERANCE[stored], 1e-5)
        assert_close(got[name], value, tolerance, name)


@pytest.mark.parametrize("backend", BACKENDS)
def test_autocast_changes_nothing(backend: str) -> None:
    views = {k: v.view(v.storage).detach() for k, v in EVERYTHING.leaves(torch.float32).items()}
    call = partial(selective_scan, **views, **EVERYTHING.options(), backend=backend)
    plain = call()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(call(), plain)


EXTREMES = {
    "steps that underflow every decay": ("delta", 1e4),
    "vanishing steps": ("delta", 1e-30),
    "no decay": ("A", 0.0),
    "instant decay": ("A", -1e30),
    "growth to infinity": ("A", 80.0),
    "huge input": ("u", 1e30),
    "closed gate": ("z", -1e4),
    "open gate": ("z", 1e4),
    "step far above the softplus threshold": ("delta_bias", 50.0),
    "step far below the softplus threshold": ("delta_bias", -200.0),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", EXTREMES)
def test_extreme_values(backend: str, name: str) -> None:
    argument, value = EXTREMES[name]
    leaves = EVERYTHING.leaves(torch.float32)
    leaves[argument] = parameter(torch.full_like(leaves[argument].storage, value), torch.float32)
    cotangents = EVERYTHING.cotangents()
    wide = {name: leaf.widened() for name, leaf in leaves.items()}
    expected = run(selective_scan_reference, wide, cotangents, **EVERYTHING.options())
    got = run(selective_scan, leaves, cotangents, backend=backend, **EVERYTHING.options())
    for key, exact in expected.items():
        finite = exact.abs() < 1e37  # beyond, float32 may round to infinity
        assert torch.equal(torch.isfinite(got[key]) | ~finite, torch.ones_like(finite)), key
        assert_close(
            got[key].where(finite, 0) * finite, exact.where(finite, 0), 3e-5, f"{name}: {key}"
        )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("argument", ["u", "delta", "A", "B", "C", "D", "z", "initial_state"])
def test_special_values_spread_as_in_the_reference(
    backend: str, value: float, argument: str
) -> None:
    views = {k: v.view(v.storage).detach() for k, v in EVERYTHING.leaves(torch.float32).items()}
    views[argument] = views[argument].clone()
    views[argument].view(-1)[views[argument].numel() // 2] = value
    call = partial(selective_scan, **views, delta_softplus=True, return_final_state=True)
    for name, got, expected in zip(
        ("y", "final state"), call(backend=backend), call(backend="reference"), strict=True
    ):
        assert_same_special_values(got, expected, name)


def test_gradcheck() -> None:
    case = replace(EVERYTHING, b=1, l=5, d=3, n=2, groups=(1, 3))
    leaves = case.leaves(torch.float64)
    names = list(leaves)

    def call(*tensors: Tensor) -> object:
        arguments = dict(zip(names, tensors, strict=True))
        return selective_scan(**arguments, **case.options(), return_final_state=True, backend="cpu")

    assert torch.autograd.gradcheck(call, [x.storage for x in leaves.values()])


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradient_through_the_final_state_alone(backend: str) -> None:
    leaves = EVERYTHING.leaves(torch.float64)
    tensors = {k: v.storage for k, v in leaves.items()}
    wanted = [tensors[k] for k in ("u", "delta", "A", "B", "initial_state")]
    weights = torch.randn(2, 12, 5, dtype=torch.float64)

    def gradients(**options: object) -> tuple[Tensor, ...]:
        _, state = selective_scan(
            **tensors, **EVERYTHING.options(), return_final_state=True, **options
        )
        return torch.autograd.grad((state * weights).sum(), wanted)

    for got, expected in zip(
        gradients(backend=backend), gradients(backend="reference"), strict=True
    ):
        assert_close(got, expected, 1e-12)


def test_only_wanted_gradients_are_returned() -> None:
    tensors = {k: v.storage.detach() for k, v in EVERYTHING.leaves(torch.float32).items()}
    tensors["A"].requires_grad_()
    selective_scan(**tensors, backend="cpu").sum().backward()
    assert tensors["A"].grad is not None
    assert all(tensors[k].grad is None for k in tensors if k != "A")


def test_second_derivatives() -> None:
    """The kernel refuses them, even for one part of a loss only; the reference has them."""
    tensors = {k: v.storage for k, v in EVERYTHING.leaves(torch.float32).items()}

    def penalty(backend: str) -> Tensor:
        y = selective_scan(**tensors, backend=backend)
        (gradient,) = torch.autograd.grad(y.sum(), tensors["u"], create_graph=True)
        return gradient.square().sum() + y.sum()

    with pytest.raises(BackendError, match=r"selective_scan: .* cannot be differentiated again"):
        penalty("cpu").backward()
    penalty("reference").backward()
    assert tensors["u"].grad is not None


def test_input_changed_before_backward_is_noticed() -> None:
    tensors = {k: v.storage for k, v in EVERYTHING.leaves(torch.float32).items()}
    tensors["delta"] = tensors["delta"].detach().clone()
    y = selective_scan(**tensors, backend="cpu")
    tensors["delta"].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("backend", BACKENDS)
def test_final_state_of_no_steps_is_a_copy_of_the_initial(backend: str) -> None:
    u = torch.randn(2, 0, 3)
    state = torch.randn(2, 3, 4)
    y, final = selective_scan(
        u,
        u,
        -torch.rand(3, 4),
        torch.randn(2, 0, 4),
        torch.randn(3, 4),
        initial_state=state,
        return_final_state=True,
        backend=backend,
    )
    assert y.shape == (2, 0, 3)
    assert torch.equal(final, state)
    assert final.data_ptr() != state.data_ptr()


def test_repeated_calls_give_the_same_bits() -> None:
    leaves = replace(EVERYTHING, l=200, b=3).leaves(torch.float32)
    cotangents = torch.randn(3, 200, 12), torch.randn(3, 12, 5)
    first, second = (
        run(selective_scan, leaves, cotangents, backend="cpu", **EVERYTHING.options())
        for _ in range(2)
    )
    for name in first:
        assert torch.equal(first[name], second[name]), name
