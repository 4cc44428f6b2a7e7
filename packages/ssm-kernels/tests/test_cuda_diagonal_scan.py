"""The CUDA kernels of the diagonal scan, simulated, against the float64 reference."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, product

import pytest
import torch
from diagonal_cases import (
    ALL_DTYPES,
    CONSTANT,
    EVERYTHING,
    FULL,
    Case,
    factors,
    randn,
    slack,
    state_type,
    tolerance,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_cases import (
    assert_all_close,
    assert_same_special_values,
    layouts,
    parameter,
    run,
)
from torch import Tensor

from ssm_kernels import diagonal_scan, diagonal_scan_reference, native, native_extension

pytestmark = pytest.mark.usefixtures("simulated")
examples = settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
# A block of the simulated GPU runs 8 warps over 32 lanes; a run is 4 to 16 steps.
cases = st.builds(
    Case,
    b=st.integers(0, 3),
    l=st.sampled_from([0, 1, 2, 3, 7, 16, 33, 70, 130, 257]),
    d=st.sampled_from([0, 1, 2, 3, 15, 33, 66]),
    own=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    layout=layouts,
    layout_of_a=layouts,
    carry=st.booleans(),
    reverse=st.booleans(),
    seed=st.integers(0, 2**16),
)
# Few lanes and many steps: sequences are cut into chunks.
LONG = Case(2, 1100, 3, FULL, "contiguous", "contiguous", True, False, 1)
LAYOUTS_OF_AXES = ["contiguous", "transposed", "sliced", "time first"]


def compare(case: Case, dtype: torch.dtype, allowed: float | None = None) -> None:
    leaves, cotangents = case.leaves(dtype), case.cotangents(dtype)
    wide = {name: leaf.widened() for name, leaf in leaves.items()}
    expected = run(diagonal_scan_reference, wide, cotangents, reverse=case.reverse)
    got = run(diagonal_scan, leaves, cotangents, reverse=case.reverse)
    assert got["y"].dtype is dtype
    assert got["final state"].dtype is state_type(dtype)
    assert_all_close(got, expected, allowed or tolerance(dtype), slack(dtype))


@pytest.mark.parametrize("dtype", ALL_DTYPES)
@examples
@given(case=cases)
def test_values_and_gradients(case: Case, dtype: torch.dtype) -> None:
    compare(case, dtype)


@pytest.mark.parametrize("own", list(product([False, True], repeat=3)))
@pytest.mark.parametrize("reverse", [False, True])
def test_long_sequences_are_cut_into_chunks(own: tuple[bool, bool, bool], reverse: bool) -> None:
    compare(replace(LONG, own=own, reverse=reverse), torch.complex64)
    compare(replace(LONG, own=own, reverse=reverse, l=2111, d=1), torch.bfloat16)


@pytest.mark.parametrize("dtype", ALL_DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS_OF_AXES)
def test_every_layout_of_every_type(layout: str, dtype: torch.dtype) -> None:
    """Rows of whole pairs, odd rows, and steps as neighbours, forwards and backwards."""
    compare(Case(2, 37, 6, FULL, layout, "contiguous", True, False, 3), dtype)
    compare(Case(1, 150, 35, FULL, layout, layout, True, True, 3), dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bit_input_with_single_precision_factors(dtype: torch.dtype) -> None:
    torch.manual_seed(2)
    a = parameter(factors(2, 37, 6, dtype=torch.float32), torch.float32)
    leaves = {"a": a, "u": parameter(randn(2, 37, 6, dtype=dtype), dtype)}
    wide = {name: leaf.widened() for name, leaf in leaves.items()}
    cotangents = randn(2, 37, 6, dtype=dtype), randn(2, 6, dtype=torch.float32)
    got = run(diagonal_scan, leaves, cotangents)
    assert_all_close(got, run(diagonal_scan_reference, wide, cotangents), tolerance(dtype), 5.0)


def test_negative_strides() -> None:
    """PyTorch has none, the kernels do: tensors of reversed steps and channels."""
    a, u = factors(1, 40, 6, dtype=torch.float32), randn(1, 40, 6, dtype=torch.float32)
    expected = diagonal_scan_reference(a.flip(1, 2), u.flip(1, 2))
    assert isinstance(expected, Tensor)
    kernels = native_extension.module_for(u)
    h, state = torch.empty(1, 40, 6), torch.empty(1, 6)

    def flipped(x: Tensor) -> tuple[int, int, int, int, int]:
        return (x.data_ptr() + 4 * (x.numel() - 1), 240, -6, -1, 0)

    inputs = kernels.DiagonalInputs()
    inputs.set_sizes((1, 40, 6, 0), False)
    inputs.set_a(flipped(a), (True, True, True))
    inputs.set_mode(0, False, 1)
    native_extension.place(inputs, kernels, u)
    kernels.diagonal_scan_forward(inputs, flipped(u), flipped(h), state.data_ptr())
    assert_all_close({"h": h.flip(1, 2)}, {"h": expected}, 1e-6)


def packed_reference(offsets: list[int]) -> object:
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


def check_packed(case: Case, lengths: list[int], dtype: torch.dtype) -> None:
    case = replace(case, b=1, l=sum(lengths), carry=False)
    leaves = case.leaves(dtype)
    leaves["initial_state"] = parameter(randn(len(lengths), case.d, dtype=dtype), dtype)
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    cotangents = case.cotangents(dtype)[0], randn(len(lengths), case.d, dtype=dtype)
    wide = {name: leaf.widened() for name, leaf in leaves.items()}
    expected = run(packed_reference(offsets.tolist()), wide, cotangents, reverse=case.reverse)
    options = {"cu_seqlens": offsets, "reverse": case.reverse}
    got = run(diagonal_scan, leaves, cotangents, **options)
    assert_all_close(got, expected, tolerance(dtype), slack(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex128])
@examples
@given(lengths=st.lists(st.sampled_from([0, 1, 2, 5, 9, 140]), max_size=5), case=cases)
def test_packed_sequences_are_separate_calls(
    dtype: torch.dtype, lengths: list[int], case: Case
) -> None:
    check_packed(case, lengths, dtype)


@pytest.mark.parametrize("own", [FULL, CONSTANT, (True, True, False), (True, False, False)])
def test_long_and_short_packed_sequences(own: tuple[bool, bool, bool]) -> None:
    check_packed(replace(EVERYTHING, d=5, own=own), [5, 700, 0, 131, 1024, 1], torch.float64)


def test_nonsense_in_the_memory_of_the_offsets_is_confined() -> None:
    """The kernels cannot refuse what only the GPU knows: no step outside the tensors is touched."""
    a, u = factors(1, 40, 5, dtype=torch.float32), randn(1, 40, 5, dtype=torch.float32)
    for offsets in ([0, -7, 2**40, 40], [50, 20, -(2**50), 2**62], [0, 10, 30, 40]):
        packed = torch.tensor(offsets)
        h, state = native.diagonal_scan_forward(a, u, None, reverse=False, offsets=packed)
        native.diagonal_scan_backward(
            u, None, a, h, None, reverse=False, offsets=packed, wanted=(True, True, True)
        )
        assert state.shape == (3, 5)


@pytest.mark.parametrize("own", [FULL, CONSTANT, (False, True, True), (True, True, False)])
def test_same_bits_on_every_run(own: tuple[bool, bool, bool]) -> None:
    for case in (replace(LONG, own=own), replace(EVERYTHING, own=own)):
        leaves, cotangents = case.leaves(torch.float32), case.cotangents(torch.float32)
        first, second = (run(diagonal_scan, leaves, cotangents) for _ in range(2))
        assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("sizes", [(2, 150, 5), (1, 1100, 3)])
def test_final_state_is_the_last_one(sizes: tuple[int, int, int]) -> None:
    a, u = factors(*sizes, dtype=torch.float32), randn(*sizes, dtype=torch.float32)
    h, final = diagonal_scan(a, u, return_final_state=True)
    assert torch.equal(h[:, -1], final)
    h, final = diagonal_scan(a, u, return_final_state=True, reverse=True)
    assert torch.equal(h[:, 0], final)


@pytest.mark.parametrize("case", [replace(EVERYTHING, l=150, d=4), LONG])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("argument", ["a", "u", "initial_state"])
def test_special_values_spread_as_in_the_reference(argument: str, value: float, case: Case) -> None:
    """Products of decays underflow where 0 times infinity would give NaN."""
    leaves = case.leaves(torch.float32)
    with torch.no_grad():
        leaves["a"].storage.clamp_(min=0.1)
        view = leaves[argument].storage.view(-1)
        view[view.numel() // 2] = value
    cotangents = case.cotangents(torch.float32)
    got = run(diagonal_scan, leaves, cotangents)
    expected = run(diagonal_scan, leaves, cotangents, backend="reference")
    for name, result in expected.items():
        assert_same_special_values(got[name], result, name)


@pytest.mark.parametrize("case", [replace(EVERYTHING, l=400), LONG])
def test_products_that_overflow_do_not_harm_states_that_do_not(case: Case) -> None:
    leaves = replace(case, carry=False).leaves(torch.float32)
    with torch.no_grad():
        leaves["a"].storage.fill_(2.0)
        leaves["u"].storage.zero_()
        leaves["u"].storage[:, -20:] = 1.0
    h, final = diagonal_scan(leaves["a"].storage, leaves["u"].storage, return_final_state=True)
    assert torch.equal(final, torch.full_like(final, 2.0**20 - 1))
    assert not h[:, :-20].any()


@pytest.mark.parametrize("scale", [1e-30, 1e4, 1e30])
def test_extreme_values(scale: float) -> None:
    leaves = EVERYTHING.leaves(torch.float32)
    leaves["u"] = parameter(leaves["u"].storage.detach() * scale, torch.float32)
    cotangents = EVERYTHING.cotangents(torch.float32)
    wide = {name: leaf.widened() for name, leaf in leaves.items()}
    got = run(diagonal_scan, leaves, cotangents)
    assert_all_close(got, run(diagonal_scan_reference, wide, cotangents), 1e-5)


@pytest.mark.parametrize("own", [FULL, CONSTANT])
def test_slow_poles_stay_accurate(own: tuple[bool, bool, bool]) -> None:
    case = replace(LONG, b=1, l=6000, own=own, carry=False)
    leaves, cotangents = case.leaves(torch.float32), case.cotangents(torch.float32)
    with torch.no_grad():
        leaves["a"].storage.uniform_(0.999, 0.9999)
    wide = {name: leaf.widened() for name, leaf in leaves.items()}
    got = run(diagonal_scan, leaves, cotangents)
    assert_all_close(got, run(diagonal_scan_reference, wide, cotangents), 4e-6)


@pytest.mark.parametrize("wanted", ["a", "u", "initial_state"])
def test_only_wanted_gradients_are_returned(wanted: str) -> None:
    full = {k: v.storage for k, v in EVERYTHING.leaves(torch.float32).items()}
    expected = torch.autograd.grad(diagonal_scan(**full).sum(), full[wanted])[0]
    tensors = {k: v.detach() for k, v in full.items()}
    tensors[wanted].requires_grad_()
    diagonal_scan(**tensors).sum().backward()
    assert tensors[wanted].grad is not None
    assert torch.equal(tensors[wanted].grad, expected)
    assert all(tensors[k].grad is None for k in tensors if k != wanted)
