"""The reference against the equations, every backend against the reference."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kernel_cases import (
    BACKENDS,
    DTYPES,
    TOLERANCE,
    assert_all_close,
    assert_close,
    examples,
    gradient_slack,
    parameter,
    run,
)
from ssd_cases import EVERYTHING, LENGTHS, Case, cases
from torch import Tensor
from torch.nn import functional as F

from ssm_kernels import (
    native_ssd_scan,
    selective_scan_reference,
    ssd_scan,
    ssd_scan_reference,
    ssd_steps,
)


def compare(case: Case, dtype: torch.dtype, **options: object) -> None:
    """Compare values and gradients with the reference in double precision."""
    leaves, cotangents = case.leaves(dtype), case.cotangents()
    wide = {name: leaf.widened() for name, leaf in leaves.items()}
    expected = run(ssd_scan_reference, wide, cotangents, **case.options())
    got = run(ssd_scan, leaves, cotangents, **case.options(), **options)
    assert got["y"].dtype is dtype
    for name, made in leaves.items():
        assert got[f"gradient of {name}"].dtype is made.storage.dtype
    assert_all_close(got, expected, TOLERANCE[dtype], gradient_slack(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", BACKENDS)
@examples
@given(case=cases(), chunk_size=st.sampled_from([None, 1, 5, 64, 100]))
def test_values_and_gradients(
    case: Case, chunk_size: int | None, backend: str, dtype: torch.dtype
) -> None:
    # steps at a limit, whose gradient depends on the last bit
    case = replace(case, limited=case.limited and dtype.itemsize > 2)
    compare(case, dtype, backend=backend, chunk_size=chunk_size)


@pytest.mark.parametrize("l", LENGTHS)
@pytest.mark.parametrize("reverse", [False, True])
def test_is_the_selective_scan_with_one_decay_per_head(l: int, reverse: bool) -> None:
    case = replace(EVERYTHING, l=l, reverse=reverse, limited=False)
    leaves, cotangents = case.leaves(torch.float64), case.cotangents()

    def by_selective_scan(
        x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor,
        dt_bias: Tensor, initial_state: Tensor, **options: object,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        b, l, h, p = x.shape
        n = B.shape[-1]
        y, state = selective_scan_reference(
            x.flatten(2),
            dt.repeat_interleave(p, 2),
            A.repeat_interleave(p).unsqueeze(1).expand(h * p, n),
            B,
            C,
            D.flatten(),
            z.flatten(2),
            dt_bias.repeat_interleave(p),
            True,
            initial_state=initial_state.flatten(1, 2),
            return_final_state=True,
            reverse=reverse,
        )
        return y.view(b, l, h, p), state.view(b, h, p, n)

    expected = run(by_selective_scan, leaves, cotangents)
    for backend in BACKENDS:
        got = run(ssd_scan, leaves, cotangents, **case.options(), backend=backend)
        assert_all_close(got, expected, 1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_is_the_product_with_the_matrix_of_decays(backend: str) -> None:
    """y[i] is the sum over j <= i of exp(sum of dt A after j) (C[i] B[j]) dt[j] x[j]."""
    x, dt = torch.randn(1, 9, 1, 2, dtype=torch.float64), torch.rand(1, 9, 1, dtype=torch.float64)
    B, C = torch.randn(2, 1, 9, 1, 3, dtype=torch.float64)
    A = torch.tensor([-0.7], dtype=torch.float64)
    expected = torch.zeros_like(x)
    for i in range(9):
        for j in range(i + 1):
            decay = torch.exp(A[0] * dt[0, j + 1 : i + 1, 0].sum())
            factor = decay * (C[0, i, 0] @ B[0, j, 0]) * dt[0, j, 0]
            expected[0, i, 0] += factor * x[0, j, 0]
    got = ssd_scan(x, dt, A, B, C, chunk_size=4, backend=backend)
    assert_close(got, expected, 1e-14)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("softplus", [False, True])
def test_step_sizes_are_confined_and_the_gradient_is_zero_outside(
    backend: str, softplus: bool
) -> None:
    dt = torch.tensor([-3.0, 0.2, 0.4, 5.0, 25.0]).view(1, 5, 1).requires_grad_()
    ones = torch.ones(1, 5, 1, 1)
    bias = torch.tensor([0.1])
    call = partial(ssd_scan, ones, A=torch.tensor([-1.0]), B=ones, C=ones, backend=backend)
    y = call(dt=dt, dt_bias=bias, dt_softplus=softplus, dt_limit=(0.35, 4.0))
    step = dt.detach() + bias
    step = F.softplus(step) if softplus else step
    assert_close(y, call(dt=step.clamp(0.35, 4.0)), 1e-6)
    y.sum().backward()
    inside = (step > 0.35) & (step < 4.0)
    assert torch.equal(dt.grad != 0, inside)
    assert call(dt=-torch.ones(1, 5, 1)).abs().max() == 0  # by default not below 0


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reverse", [False, True])
@examples
@given(cut=st.integers(0, 130), case=cases())
def test_carried_state_joins_the_pieces(backend: str, reverse: bool, cut: int, case: Case) -> None:
    case = replace(case, b=2, l=130, reverse=reverse, carry=True)
    leaves, cotangents = case.leaves(torch.float64), case.cotangents()
    options = {**case.options(), "backend": backend}

    def in_two(**arguments: object) -> tuple[Tensor, Tensor]:
        spans = [slice(0, cut), slice(cut, None)]
        state, pieces = arguments.pop("initial_state"), []
        for span in reversed(spans) if reverse else spans:
            piece = {
                k: v[:, span] if k in ("x", "dt", "B", "C", "z") else v
                for k, v in arguments.items()
            }
            y, state = ssd_scan(**piece, initial_state=state)
            pieces.append(y)
        return torch.cat(pieces[::-1] if reverse else pieces, 1), state

    whole = run(ssd_scan, leaves, cotangents, **options)
    assert_all_close(run(in_two, leaves, cotangents, **options), whole, 1e-11)


@pytest.mark.parametrize("backend", BACKENDS)
@examples
@given(lengths=st.lists(st.sampled_from([0, 1, 5, 64, 70]), max_size=5), case=cases())
def test_packed_sequences_are_separate_calls(backend: str, lengths: list[int], case: Case) -> None:
    case = replace(case, b=1, l=sum(lengths), carry=False)
    leaves = case.leaves(torch.float64)
    count = len(lengths)
    shape = count, case.h, case.p, case.n
    leaves["initial_state"] = parameter(torch.randn(shape), torch.float64)
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    options = case.options()

    def one_by_one(x: Tensor, initial_state: Tensor, **rest: object) -> tuple[Tensor, Tensor]:
        outputs, states = [x[:, :0]], [initial_state[:0]]
        for i, (start, stop) in enumerate(pairwise(offsets.tolist())):
            steps = {
                k: v[:, start:stop] if k in ("dt", "B", "C", "z") else v for k, v in rest.items()
            }
            state = initial_state[i : i + 1]
            y, state = ssd_scan_reference(x[:, start:stop], **steps, initial_state=state)
            outputs.append(y)
            states.append(state)
        return torch.cat(outputs, 1), torch.cat(states)

    cotangents = case.cotangents(count)
    expected = run(one_by_one, leaves, cotangents, **options)
    for integers in (torch.int32, torch.int64):
        packed = {"cu_seqlens": offsets.to(integers), "backend": backend}
        got = run(ssd_scan, leaves, cotangents, **options, **packed)
        assert_all_close(got, expected, 1e-11)


@pytest.mark.parametrize("case", [EVERYTHING, replace(EVERYTHING, l=70, skip=1, g=4)])
def test_gradcheck(case: Case) -> None:
    leaves = {k: x.storage for k, x in case.leaves(torch.float64).items()}
    assert torch.autograd.gradcheck(
        lambda *tensors: ssd_scan(
            **dict(zip(leaves, tensors, strict=True)),
            **case.options(),
            return_final_state=True,
            chunk_size=16,
            backend="cpu",
        ),
        tuple(leaves.values()),
        fast_mode=True,
    )


def test_second_derivatives_of_the_reference() -> None:
    case = replace(EVERYTHING, b=1, l=3, h=2, g=1, p=2, n=2)
    leaves = {k: x.storage for k, x in case.leaves(torch.float64).items()}
    assert torch.autograd.gradgradcheck(
        lambda *tensors: ssd_scan(
            **dict(zip(leaves, tensors, strict=True)), **case.options(), backend="reference"
        ),
        tuple(leaves.values()),
        fast_mode=True,
    )


def test_long_sums_keep_their_digits() -> None:
    """Decays near 1 after large ones: a difference of sums would have lost them."""
    l = 64
    dt = torch.full((1, l, 1), 1e-3)
    dt[:, 0] = 4000.0
    x, B = torch.randn(1, l, 1, 2), torch.randn(1, l, 1, 3)
    arguments = {"x": x, "dt": dt, "A": torch.tensor([-8.0]), "B": B, "C": B}
    expected = ssd_scan_reference(**{k: v.double() for k, v in arguments.items()})
    scale = expected[:, 1:].abs().max()
    got = ssd_scan(**arguments, backend="cpu")
    assert (got - expected)[:, 1:].abs().max() < 1e-6 * scale


def test_packed_sequences_do_not_leak() -> None:
    x = torch.randn(1, 12, 2, 3)
    x[:, 4:8] = torch.tensor([math.nan, math.inf, -math.inf, 1e38]).view(4, 1, 1)
    leaves = {
        "x": parameter(x, torch.float32),
        "dt": parameter(torch.rand(1, 12, 2), torch.float32),
        "A": parameter(-torch.rand(2), torch.float32),
        "B": parameter(torch.randn(1, 12, 1, 4), torch.float32),
        "C": parameter(torch.randn(1, 12, 1, 4), torch.float32),
    }
    cotangents = torch.ones(1, 12, 2, 3), torch.ones(3, 2, 3, 4)
    offsets = torch.tensor([0, 4, 8, 12])
    for reverse in (False, True):
        options = {"cu_seqlens": offsets, "reverse": reverse, "backend": "cpu"}
        got = run(ssd_scan, leaves, cotangents, **options)
        for name in ("y", *(f"gradient of {k}" for k in ("x", "dt", "B", "C"))):
            assert got[name][:, [0, 1, 2, 3, 8, 9, 10, 11]].isfinite().all(), name
        assert got["final state"][[0, 2]].isfinite().all()
        assert not got["y"][:, 4:8].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_nothing(dtype: torch.dtype) -> None:
    leaves, cotangents = EVERYTHING.leaves(torch.float32), EVERYTHING.cotangents()
    options = {**EVERYTHING.options(), "backend": "cpu"}
    expected = run(ssd_scan, leaves, cotangents, **options)
    with torch.autocast("cpu", dtype):
        got = run(ssd_scan, leaves, cotangents, **options)
    for name, tensor in expected.items():
        assert torch.equal(got[name], tensor), name


def test_mixed_types_meet_in_the_wider_one() -> None:
    case = replace(EVERYTHING, limited=False)
    leaves = case.leaves(torch.float32)
    tensors = {k: x.storage.detach() for k, x in leaves.items()}
    expected = ssd_scan(**tensors, **case.options())
    tensors["x"] = tensors["x"].bfloat16()
    y, state = ssd_scan(**tensors, **case.options(), return_final_state=True)
    assert y.dtype is torch.bfloat16
    assert state.dtype is torch.float32
    assert_close(y, expected, 2e-2)
    tensors["dt"] = tensors["dt"].double()
    _, state = ssd_scan(**tensors, **case.options(), return_final_state=True)
    assert state.dtype is torch.float64


@pytest.mark.parametrize(
    ("p", "n", "forward", "backward"),
    [(64, 128, "chunks", "chunks"), (16, 16, "steps", "chunks"), (4, 64, "steps", "steps")],
)
@pytest.mark.parametrize("groups", [1, 3])
def test_large_heads_take_chunks(
    p: int, n: int, forward: str, backward: str, groups: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than a chunk, several tasks per group: both ways give the reference's numbers."""
    torch.manual_seed(0)
    shapes = {"x": (1, 130, 18, p), "dt": (1, 130, 18), "A": (18,)}
    shapes |= {name: (1, 130, groups, n) for name in "BC"}
    leaves = {name: torch.randn(shape, dtype=torch.float64) for name, shape in shapes.items()}
    leaves["A"] = -leaves["A"].abs()
    taken: list[str] = []
    for module, way in ((ssd_steps, "steps"), (native_ssd_scan, "chunks")):
        for name in ("forward", "backward"):
            full = name if module is ssd_steps else f"ssd_scan_{name}"
            monkeypatch.setattr(module, full, noted(getattr(module, full), taken, way))
    found = []
    for scan in (ssd_scan, ssd_scan_reference):
        own = [leaf.clone().requires_grad_() for leaf in leaves.values()]
        y = scan(*own, dt_softplus=True)
        found.append([y, *torch.autograd.grad(y.square().sum(), own)])
    for got, expected in zip(*found, strict=True):
        torch.testing.assert_close(got, expected)
    assert taken == [forward, backward]


def noted(function: Callable[..., Any], calls: list[str], name: str) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        calls.append(name)
        return function(*arguments, **options)

    return call


@pytest.mark.parametrize("gate", [False, True])
def test_gradients_are_the_same_bits_for_any_number_of_threads(gate: bool) -> None:
    case = replace(EVERYTHING, b=3, l=130, h=6, p=17, n=40, gate=gate)
    found = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            leaves, cotangents = case.leaves(torch.float32), case.cotangents()
            found.append(run(ssd_scan, leaves, cotangents, **case.options(), backend="cpu"))
    finally:
        torch.set_num_threads(threads)
    for name, tensor in found[0].items():
        assert torch.equal(tensor, found[1][name]), name


def test_a_step_does_not_see_later_ones() -> None:
    """Not even infinities, which a product with 0 would pass on."""
    leaves = replace(EVERYTHING, b=1, l=70, h=2, p=17, n=40, gate=False).leaves(torch.float32)
    tensors = {name: made.storage.detach().clone() for name, made in leaves.items()}
    options = {**EVERYTHING.options(), "reverse": False, "backend": "cpu"}
    expected = ssd_scan(**tensors, **options)
    for step in (1, 7, 30, 63, 64, 69):
        changed = {k: v.clone() for k, v in tensors.items()}
        for name, value in (("x", math.inf), ("dt", math.nan), ("B", -math.inf), ("C", math.nan)):
            changed[name][:, step] = value
        got = ssd_scan(**changed, **options)
        assert torch.equal(got[:, :step], expected[:, :step])
        assert not got[:, step].isfinite().any()
