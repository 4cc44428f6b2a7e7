"""Every backend against the float64 reference: values and gradients, whatever the arguments."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, product

import pytest
import torch
from diagonal_cases import (
    ALL_DTYPES,
    CONSTANT,
    EVERYTHING,
    Case,
    cases,
    factors,
    long_cases,
    randn,
    slack,
    state_type,
    tolerance,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import BACKENDS, Leaf, assert_all_close, assert_close, examples, parameter, run
from torch import Tensor

from ssm_kernels import diagonal_scan, diagonal_scan_reference, native


def compare(case: Case, backend: str, dtype: torch.dtype) -> None:
    """Compare values and gradients with the reference in double precision."""
    leaves, cotangents = case.leaves(dtype), case.cotangents(dtype)
    wide = {name: leaf.widened() for name, leaf in leaves.items()}
    expected = run(diagonal_scan_reference, wide, cotangents, reverse=case.reverse)
    got = run(diagonal_scan, leaves, cotangents, backend=backend, reverse=case.reverse)
    assert got["y"].dtype is dtype
    assert got["final state"].dtype is state_type(dtype)
    for name, made in leaves.items():
        assert got[f"gradient of {name}"].dtype is made.storage.dtype
    assert_all_close(got, expected, tolerance(dtype), slack(dtype))


@pytest.mark.parametrize("dtype", ALL_DTYPES)
@pytest.mark.parametrize("backend", BACKENDS)
@examples
@given(case=cases)
def test_values_and_gradients(case: Case, backend: str, dtype: torch.dtype) -> None:
    compare(case, backend, dtype)


@pytest.mark.parametrize("name", native.available_isas() if native.AVAILABLE else [])
@examples
@given(case=cases, dtype=st.sampled_from(ALL_DTYPES))
def test_every_instruction_set(case: Case, name: str, dtype: torch.dtype) -> None:
    before = native.isa()
    native.set_isa(name)
    try:
        compare(case, "cpu", dtype)
    finally:
        native.set_isa(before)


@pytest.mark.slow
@pytest.mark.parametrize("name", native.available_isas() if native.AVAILABLE else [])
@settings(max_examples=6, deadline=None)
@given(case=long_cases, dtype=st.sampled_from(ALL_DTYPES))
def test_long_sequences_of_few_channels(case: Case, name: str, dtype: torch.dtype) -> None:
    before = native.isa()
    native.set_isa(name)
    try:
        compare(case, "cpu", dtype)
    finally:
        native.set_isa(before)


@pytest.mark.parametrize("own", list(product([False, True], repeat=3)))
@pytest.mark.parametrize("backend", BACKENDS)
def test_is_the_product_with_the_matrix_of_decays(
    backend: str, own: tuple[bool, bool, bool]
) -> None:
    """h[t] is the sum over s <= t of a[s+1] ... a[t] u[s]."""
    shape = [size if each else 1 for size, each in zip((3, 9, 5), own, strict=True)]
    a, u = factors(*shape, dtype=torch.complex128), randn(3, 9, 5, dtype=torch.complex128)
    full = a.expand(3, 9, 5)
    expected = torch.zeros_like(u)
    for t in range(9):
        for s in range(t + 1):
            expected[:, t] += full[:, s + 1 : t + 1].prod(1) * u[:, s]
    assert_close(diagonal_scan(a, u, backend=backend), expected, 1e-13)


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_axis_of_a_is_the_channels(backend: str) -> None:
    u = torch.randn(2, 20, 5)
    one = torch.rand(5, requires_grad=True)
    three = one.detach().view(1, 1, 5).requires_grad_()
    y, expected = (diagonal_scan(a, u, backend=backend) for a in (one, three))
    assert torch.equal(y, expected)
    y.square().sum().backward()
    expected.square().sum().backward()
    assert one.grad is not None
    assert three.grad is not None
    assert torch.equal(one.grad, three.grad.view(5))


REAL_TYPES = [torch.float32, torch.float64, torch.bfloat16]
COMPLEX_TYPES = [torch.complex64, torch.complex128]


@pytest.mark.parametrize("shape", [(2, 9, 5), (1, 1, 5), (5,)])
@pytest.mark.parametrize("type_of_a", REAL_TYPES + COMPLEX_TYPES)
@pytest.mark.parametrize("type_of_u", REAL_TYPES + COMPLEX_TYPES)
@pytest.mark.parametrize("type_of_state", [None, torch.float32, torch.complex64])
def test_mixed_types(
    shape: tuple[int, ...],
    type_of_a: torch.dtype,
    type_of_u: torch.dtype,
    type_of_state: torch.dtype | None,
) -> None:
    made = {
        "a": parameter(factors(*shape, dtype=type_of_a), type_of_a),
        "u": parameter(randn(2, 9, 5, dtype=type_of_u), type_of_u),
    }
    if type_of_state is not None:
        made["initial_state"] = parameter(randn(2, 5, dtype=type_of_state), type_of_state)
    types = [x.storage.dtype for x in made.values()]
    any_complex = any(dtype.is_complex for dtype in types)
    double = {torch.float64, torch.complex128}
    state = torch.float64 if double & {type_of_a, type_of_u} else torch.float32
    result = type_of_u
    if any_complex:
        state = state.to_complex()
        result = torch.complex128 if type_of_u in double else torch.complex64

    cotangents = randn(2, 9, 5, dtype=result), randn(2, 5, dtype=state)
    wide = {name: leaf.widened() for name, leaf in made.items()}
    expected = run(diagonal_scan_reference, wide, cotangents)
    loose = max(2e-2 if dtype is torch.bfloat16 else 1e-5 for dtype in types)
    for backend in BACKENDS:
        got = run(diagonal_scan, made, cotangents, backend=backend)
        assert got["y"].dtype is result
        assert got["final state"].dtype is state
        for name, leaf in made.items():
            assert got[f"gradient of {name}"].dtype is leaf.storage.dtype
        assert_all_close(got, expected, loose, 5.0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reverse", [False, True])
@examples
@given(cut=st.integers(0, 37), case=cases)
def test_carried_state_joins_the_pieces(backend: str, reverse: bool, cut: int, case: Case) -> None:
    case = replace(case, l=37, reverse=reverse, carry=True)
    leaves = case.leaves(torch.complex128)

    def in_two(
        a: Tensor, u: Tensor, initial_state: Tensor, *, return_final_state: bool, **rest: object
    ) -> object:
        assert return_final_state
        spans = [slice(0, cut), slice(cut, None)]
        state, pieces = initial_state, []
        for span in reversed(spans) if reverse else spans:
            piece = a[:, span] if case.own[1] else a
            h, state = diagonal_scan(
                piece, u[:, span], initial_state=state, return_final_state=True, **rest
            )
            pieces.append(h)
        return torch.cat(pieces[::-1] if reverse else pieces, 1), state

    options = {"reverse": reverse, "backend": backend}
    cotangents = case.cotangents(torch.complex128)
    whole = run(diagonal_scan, leaves, cotangents, **options)
    assert_all_close(run(in_two, leaves, cotangents, **options), whole, 1e-11)


@pytest.mark.parametrize("backend", BACKENDS)
@examples
@given(case=cases)
def test_reverse_is_forward_on_flipped_steps(backend: str, case: Case) -> None:
    leaves = case.leaves(torch.float64)
    cotangents = case.cotangents(torch.float64)

    def flipped(
        a: Tensor, u: Tensor, initial_state: Tensor | None = None, **rest: object
    ) -> tuple[Tensor, Tensor]:
        h, final = diagonal_scan(
            a.flip(1), u.flip(1), initial_state=initial_state, reverse=True, **rest
        )
        return h.flip(1), final

    forward = run(diagonal_scan, leaves, cotangents, backend=backend)
    backward = run(flipped, leaves, cotangents, backend=backend)
    assert_all_close(backward, forward, 1e-12)


def separate_calls(offsets: list[int]) -> object:
    """Return an operator that runs the reference on one sequence after another."""

    def one_by_one(
        a: Tensor, u: Tensor, initial_state: Tensor, *, return_final_state: bool, **rest: object
    ) -> tuple[Tensor, Tensor]:
        assert return_final_state
        outputs, states = [u[:, :0]], [initial_state[:0]]
        for i, (start, stop) in enumerate(pairwise(offsets)):
            h, state = diagonal_scan_reference(
                a if a.shape[1] == 1 != u.shape[1] else a[:, start:stop],
                u[:, start:stop],
                initial_state=initial_state[i : i + 1],
                return_final_state=True,
                **rest,
            )
            outputs.append(h)
            states.append(state)
        return torch.cat(outputs, 1), torch.cat(states)

    return one_by_one


def check_packed(case: Case, lengths: list[int], backend: str, dtype: torch.dtype) -> None:
    case = replace(case, b=1, l=sum(lengths), carry=False)
    leaves = case.leaves(dtype)
    leaves["initial_state"] = parameter(randn(len(lengths), case.d, dtype=dtype), dtype)
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    cotangents = case.cotangents(dtype)[0], randn(len(lengths), case.d, dtype=dtype)
    options = {"reverse": case.reverse}
    wide = {name: leaf.widened() for name, leaf in leaves.items()}
    expected = run(separate_calls(offsets.tolist()), wide, cotangents, **options)
    for integers in (torch.int32, torch.int64):
        options |= {"backend": backend, "cu_seqlens": offsets.to(integers)}
        got = run(diagonal_scan, leaves, cotangents, **options)
        assert_all_close(got, expected, tolerance(dtype), slack(dtype))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@examples
@given(lengths=st.lists(st.sampled_from([0, 1, 2, 5, 9, 300]), max_size=6), case=cases)
def test_packed_sequences_are_separate_calls(
    backend: str, dtype: torch.dtype, lengths: list[int], case: Case
) -> None:
    check_packed(case, lengths, backend, dtype)


@pytest.mark.slow
@pytest.mark.parametrize("own", [(True, True, True), CONSTANT, (True, False, False)])
@pytest.mark.parametrize("reverse", [False, True])
def test_long_and_short_packed_sequences(own: tuple[bool, bool, bool], reverse: bool) -> None:
    case = replace(EVERYTHING, d=11, own=own, reverse=reverse)
    check_packed(case, [5, 4097, 0, 300, 8200, 1], "cpu", torch.float64)


def test_packed_sequences_do_not_leak() -> None:
    """Not even NaN and infinity pass a border, in either direction of time or gradient."""
    u = torch.randn(1, 12, 3)
    u[:, 4:8] = torch.tensor([float("nan"), float("inf"), -float("inf"), 1e38]).view(4, 1)
    a = torch.rand(1, 12, 3) * 2
    offsets = torch.tensor([0, 4, 8, 12])
    for reverse in (False, True):
        leaves = {"a": Leaf(a.requires_grad_(), lambda t: t), "u": parameter(u, torch.float32)}
        got = run(
            diagonal_scan,
            leaves,
            (torch.ones(1, 12, 3), torch.ones(3, 3)),
            reverse=reverse,
            cu_seqlens=offsets,
            backend="cpu",
        )
        for name in ("y", "gradient of a", "gradient of u"):
            assert got[name][:, [0, 1, 2, 3, 8, 9, 10, 11]].isfinite().all(), name
        assert got["final state"][[0, 2]].isfinite().all()
        assert not got["y"][:, 4:8].isfinite().all()
