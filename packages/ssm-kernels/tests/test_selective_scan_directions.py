"""Scans of the same steps in several directions against sums of single scans in float64."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kernel_cases import (
    BACKENDS,
    DTYPES,
    TOLERANCE,
    Leaf,
    assert_all_close,
    examples,
    gradient_slack,
    layouts,
    leaf,
    parameter,
)
from torch import Tensor

from ssm_kernels import (
    ArgumentError,
    BackendError,
    DTypeError,
    ShapeError,
    selective_scan,
    selective_scan_directions,
    selective_scan_directions_reference,
)

NAMES = ("forward", "backward", "down", "up")


@dataclass(frozen=True)
class Case:
    b: int
    image: tuple[int, int]
    d: int
    n: int
    groups: tuple[int, int]
    directions: tuple[str, ...]
    shared: bool
    is_complex: bool
    skip: bool
    gate: bool
    bias: bool
    softplus: bool
    layout: str
    seed: int

    def leaves(self, dtype: torch.dtype) -> dict[str, Leaf]:
        torch.manual_seed(self.seed)
        b, l, k, d, n = self.b, self.image[0] * self.image[1], len(self.directions), self.d, self.n
        real = torch.float64 if dtype is torch.float64 else torch.float32
        state = real.to_complex() if self.is_complex else real
        A = -torch.rand(k, d, n) * 2
        A = A + 3j * torch.randn(k, d, n) if self.is_complex else A
        per_direction = (b, l, k, d)
        delta = torch.randn if self.softplus else lambda *s: torch.rand(*s) + 0.05
        made = {
            "u": leaf(torch.randn, (b, l, d) if self.shared else per_direction, dtype, self.layout),
            "delta": leaf(delta, per_direction, dtype, self.layout),
            "A": parameter(A, state),
        }
        for name, groups in zip("BC", self.groups, strict=True):
            shape = (b, l, k, n) if groups == 0 else (b, l, k, groups, n)
            values = partial(torch.randn, dtype=state)
            made[name] = leaf(values, shape, state if self.is_complex else dtype, self.layout)
        if self.skip:
            made["D"] = parameter(torch.randn(k, d), real)
        if self.gate:
            made["z"] = leaf(torch.randn, (b, l, d), dtype, self.layout)
        if self.bias:
            made["delta_bias"] = parameter(torch.rand(k, d) * 0.5, real)
        return made

    def options(self) -> dict[str, object]:
        return {
            "delta_softplus": self.softplus,
            "directions": self.directions,
            "columns": max(1, self.image[1]),
        }


cases = st.builds(
    Case,
    b=st.integers(0, 2),
    image=st.tuples(st.sampled_from([0, 1, 3, 7, 33]), st.sampled_from([1, 2, 5, 34])),
    d=st.sampled_from([0, 2, 4, 18, 34]),
    n=st.sampled_from([1, 3, 16]),
    groups=st.tuples(st.sampled_from([0, 1, 2]), st.sampled_from([0, 1, 2])),
    directions=st.lists(st.sampled_from(NAMES), min_size=1, max_size=4).map(tuple),
    shared=st.booleans(),
    is_complex=st.booleans(),
    skip=st.booleans(),
    gate=st.booleans(),
    bias=st.booleans(),
    softplus=st.booleans(),
    layout=layouts,
    seed=st.integers(0, 2**16),
)


def run(operator, leaves: dict[str, Leaf], grad_y: Tensor, **options) -> dict[str, Tensor]:
    views = {name: leaf.view(leaf.storage) for name, leaf in leaves.items()}
    y = operator(**views, **options)
    storages = [leaf.storage for leaf in leaves.values()]
    gradients = torch.autograd.grad(
        y, storages, grad_y.to(y.dtype), allow_unused=True, materialize_grads=True
    )
    names = (f"gradient of {name}" for name in leaves)
    return {"y": y.detach(), **dict(zip(names, gradients, strict=True))}


@examples
@given(case=cases, dtype=st.sampled_from(DTYPES))
def test_any_call_matches_the_reference_in_float64(case: Case, dtype: torch.dtype) -> None:
    leaves = case.leaves(dtype)
    grad_y = torch.randn(case.b, case.image[0] * case.image[1], case.d).to(dtype)
    wide = {name: leaf.widened() for name, leaf in leaves.items()}
    expected = run(selective_scan_directions_reference, wide, grad_y.double(), **case.options())
    slack = gradient_slack(dtype, case.is_complex)
    for backend in BACKENDS:
        got = run(selective_scan_directions, leaves, grad_y, backend=backend, **case.options())
        assert got["y"].dtype == dtype
        assert_all_close(got, expected, TOLERANCE[dtype], slack)


def arguments(k: int, rows: int = 5, columns: int = 8) -> dict[str, Tensor]:
    torch.manual_seed(0)
    l, d, n = rows * columns, 18, 3
    return {
        "u": torch.randn(2, l, d),
        "delta": torch.rand(2, l, k, d) * 0.5,
        "A": -torch.rand(k, d, n),
        "B": torch.randn(2, l, k, n),
        "C": torch.randn(2, l, k, n),
        "D": torch.randn(k, d),
        "z": torch.randn(2, l, d),
    }


@pytest.mark.parametrize("backend", BACKENDS)
def test_both_ways_is_the_sum_of_two_gated_scans(backend: str) -> None:
    x = arguments(2)
    y = selective_scan_directions(**x, backend=backend)
    total = torch.zeros_like(y)
    for k in range(2):
        total += selective_scan(
            x["u"], x["delta"][:, :, k], x["A"][k], x["B"][:, :, k], x["C"][:, :, k], x["D"][k],
            x["z"], reverse=k == 1, backend="reference",
        )  # fmt: skip
    assert torch.allclose(y, total, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_columns_are_visited_one_after_the_other(backend: str) -> None:
    # Without decay and with B = C = delta = 1 the scan counts what it has seen.
    rows, columns = 3, 4
    ones = torch.ones(1, rows * columns, 1, 1)
    y = selective_scan_directions(
        ones[..., 0], ones, torch.zeros(1, 1, 1), ones, ones,
        directions="down", columns=columns, backend=backend,
    )  # fmt: skip
    seen = y.reshape(rows, columns)
    assert seen.T.flatten().tolist() == list(range(1, rows * columns + 1))


def test_bits_do_not_depend_on_the_number_of_threads() -> None:
    x = {name: t.requires_grad_() for name, t in arguments(4).items()}
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            y = selective_scan_directions(**x, directions=NAMES, columns=8)
            results.append([y, *torch.autograd.grad(y.square().sum(), list(x.values()))])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_gradcheck() -> None:
    x = [t.double().requires_grad_() for t in arguments(4, 2, 3).values()]

    def call(*tensors: Tensor) -> Tensor:
        return selective_scan_directions(*tensors, directions=NAMES, columns=3)

    assert torch.autograd.gradcheck(call, x)


def test_second_derivatives_are_refused() -> None:
    x = {name: t.requires_grad_() for name, t in arguments(2).items()}
    y = selective_scan_directions(**x, backend="cpu")
    (gradient,) = torch.autograd.grad(y.sum(), x["u"], create_graph=True)
    with pytest.raises(BackendError, match=r"selective_scan_directions.*backend='reference'"):
        gradient.sum().backward()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"directions": ()}, ArgumentError, r"directions is \(\), expected one or more of"),
        ({"directions": ("sideways", "up")}, ArgumentError, "directions is"),
        ({"directions": ("down", "up")}, ArgumentError, "columns is None"),
        ({"columns": 7}, ArgumentError, "columns is 7, expected a divisor of l = 40"),
        ({"columns": 0}, ArgumentError, "columns is 0"),
        ({"u": torch.zeros(2, 40, 3, 18)}, ShapeError, "u has shape"),
        ({"delta": torch.zeros(2, 40, 18)}, ShapeError, r"delta has shape .* \(2, 40, 2, 18\)"),
        ({"A": torch.zeros(18, 3)}, ShapeError, "A has shape"),
        ({"B": torch.zeros(2, 40, 3)}, ShapeError, "B has shape"),
        ({"C": torch.zeros(2, 40, 2, 4, 3)}, ShapeError, "g dividing d = 18"),
        ({"D": torch.zeros(18)}, ShapeError, "D has shape"),
        ({"z": torch.zeros(2, 40, 2, 18)}, ShapeError, "z has shape"),
        ({"B": torch.zeros(2, 40, 2, 3, dtype=torch.complex64)}, DTypeError, "like A"),
        ({"u": torch.zeros(2, 40, 18, dtype=torch.int64)}, DTypeError, "u has dtype"),
    ],
)
def test_wrong_arguments_are_named(change: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        selective_scan_directions(**{**arguments(2), **change})
    assert "\n" not in str(caught.value)
