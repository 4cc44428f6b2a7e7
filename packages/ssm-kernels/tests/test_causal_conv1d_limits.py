"""The causal convolution at its limits: NaN, extreme values, odd gradients, threads."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from conv_cases import EVERYTHING, Case
from kernel_cases import (
    BACKENDS,
    assert_all_close,
    assert_same_special_values,
    parameter,
    run,
)
from torch import Tensor

from ssm_kernels import BackendError, causal_conv1d, causal_conv1d_reference


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("argument", ["x", "weight", "bias", "initial_state"])
def test_special_values_spread_as_in_the_reference(
    backend: str, value: float, argument: str
) -> None:
    views = {k: v.storage.detach() for k, v in EVERYTHING.leaves(torch.float32).items()}
    views[argument].view(-1)[views[argument].numel() // 2] = value
    call = partial(causal_conv1d, **views, activation="silu", return_final_state=True)
    for name, got, expected in zip(
        ("y", "final state"), call(backend=backend), call(backend="reference"), strict=True
    ):
        assert_same_special_values(got, expected, name)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("scale", [1e-30, 1e4, 1e30])
def test_extreme_values(backend: str, scale: float) -> None:
    leaves = EVERYTHING.leaves(torch.float32)
    leaves["x"] = parameter(leaves["x"].storage.detach() * scale, torch.float32)
    cotangents = EVERYTHING.cotangents()
    wide = {name: leaf.widened() for name, leaf in leaves.items()}
    expected = run(causal_conv1d_reference, wide, cotangents, **EVERYTHING.options())
    got = run(causal_conv1d, leaves, cotangents, backend=backend, **EVERYTHING.options())
    assert_all_close(got, expected, 1e-5)


def test_gradcheck() -> None:
    leaves = replace(EVERYTHING, b=1, l=5, d=3).leaves(torch.float64)

    def call(*tensors: Tensor) -> object:
        return causal_conv1d(
            **dict(zip(leaves, tensors, strict=True)),
            activation="silu",
            return_final_state=True,
            backend="cpu",
        )

    assert torch.autograd.gradcheck(call, [x.storage for x in leaves.values()])


def test_only_wanted_gradients_are_returned() -> None:
    tensors = {k: v.storage.detach() for k, v in EVERYTHING.leaves(torch.float32).items()}
    tensors["weight"].requires_grad_()
    causal_conv1d(**tensors, backend="cpu").sum().backward()
    assert tensors["weight"].grad is not None
    assert all(tensors[k].grad is None for k in tensors if k != "weight")


def test_second_derivatives() -> None:
    """The kernel refuses them, even for one part of a loss only; the reference has them."""
    tensors = {k: v.storage for k, v in EVERYTHING.leaves(torch.float32).items()}

    def penalty(backend: str) -> Tensor:
        y = causal_conv1d(**tensors, activation="silu", backend=backend)
        (gradient,) = torch.autograd.grad(y.sum(), tensors["x"], create_graph=True)
        return gradient.square().sum() + y.sum()

    with pytest.raises(BackendError, match=r"causal_conv1d: .* cannot be differentiated again"):
        penalty("cpu").backward()
    penalty("reference").backward()
    assert tensors["x"].grad is not None


def test_pending_negations_are_carried_out() -> None:
    def lazily(t: Tensor) -> Tensor:
        made = torch.complex(torch.zeros_like(t), -t).conj().imag
        assert made.is_neg()
        return made

    made = Case(2, 9, 17, 4, "contiguous", True, True, True, False, 3).leaves(torch.float32)
    plain = {name: leaf.storage for name, leaf in made.items()}
    grad_y = torch.randn(2, 9, 17)
    results = []
    for change in (lambda t: t, lazily):
        y = causal_conv1d(
            **{name: change(t) for name, t in plain.items()}, activation="silu", backend="cpu"
        )
        results.append([y, *torch.autograd.grad(y, list(plain.values()), change(grad_y))])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_thread_count_does_not_change_the_bits() -> None:
    leaves = Case(5, 300, 70, 4, "contiguous", True, True, True, False, 3).leaves(torch.float32)
    cotangents = torch.randn(5, 300, 70), torch.randn(5, 70, 3)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            options = {"activation": "silu", "backend": "cpu"}
            results.append(run(causal_conv1d, leaves, cotangents, **options))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for name, value in results[0].items():
            assert torch.equal(other[name], value), name
