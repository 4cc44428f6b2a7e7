"""Every backend against the float64 reference: values and gradients, whatever the arguments."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kernel_cases import (
    BACKENDS,
    DTYPES,
    TOLERANCE,
    assert_all_close,
    examples,
    gradient_slack,
    parameter,
    run,
)
from scan_cases import EVERYTHING, Case, cases
from torch import Tensor

from ssm_kernels import selective_scan, selective_scan_reference


def check_against_reference(case: Case, dtype: torch.dtype, backend: str) -> None:
    leaves = case.leaves(dtype)
    cotangents = case.cotangents()
    wide = {name: leaf.widened() for name, leaf in leaves.items()}
    # Both sides start from the same rounded numbers.
    cotangents = cotangents[0].to(dtype), cotangents[1].to(leaves["A"].storage.dtype)
    expected = run(selective_scan_reference, wide, cotangents, **case.options())
    got = run(selective_scan, leaves, cotangents, backend=backend, **case.options())
    assert got["y"].dtype is dtype
    assert got["final state"].dtype is leaves["A"].storage.dtype
    for name, made in leaves.items():
        assert got[f"gradient of {name}"].dtype is made.storage.dtype
    # Products of complex numbers round four times as often as those of real ones.
    tolerance = TOLERANCE[dtype] * (2 if case.is_complex else 1)
    assert_all_close(got, expected, tolerance, gradient_slack(dtype, case.is_complex))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", BACKENDS)
@examples
@given(case=cases())
def test_values_and_gradients(case: Case, backend: str, dtype: torch.dtype) -> None:
    check_against_reference(case, dtype, backend)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", BACKENDS)
@examples
@given(case=cases(is_complex=True))
def test_values_and_gradients_complex(case: Case, backend: str, dtype: torch.dtype) -> None:
    check_against_reference(case, dtype, backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reverse", [False, True])
@examples
@given(cut=st.integers(0, 37), case=cases())
def test_carried_state_joins_the_pieces(backend: str, reverse: bool, cut: int, case: Case) -> None:
    """Two calls, the second from the final state of the first, equal one; gradients too."""
    case = replace(case, l=37, reverse=reverse, carry=True)
    leaves = case.leaves(torch.float64)
    cotangents = case.cotangents()

    def in_two(*, return_final_state: bool, initial_state: Tensor, **views: object) -> object:
        assert return_final_state
        spans = [slice(0, cut), slice(cut, None)]
        state, pieces = initial_state, []
        for span in reversed(spans) if reverse else spans:
            cutout = {k: v[:, span] if is_activation(v) else v for k, v in views.items()}
            y, state = selective_scan(**cutout, initial_state=state, return_final_state=True)
            pieces.append(y)
        return torch.cat(pieces[::-1] if reverse else pieces, 1), state

    options = {**case.options(), "backend": backend}
    whole = run(selective_scan, leaves, cotangents, **options)
    assert_all_close(run(in_two, leaves, cotangents, **options), whole, 1e-11)


def is_activation(value: object) -> bool:
    return isinstance(value, Tensor) and value.dim() > 2


@pytest.mark.parametrize("backend", BACKENDS)
@examples
@given(case=cases())
def test_reverse_is_forward_on_flipped_steps(backend: str, case: Case) -> None:
    case = replace(case, reverse=False)
    leaves = case.leaves(torch.float64)
    y_cotangent, state_cotangent = case.cotangents()

    def flipped(**arguments: object) -> object:
        turned = {
            k: v.flip(1) if is_activation(v) and k != "initial_state" else v
            for k, v in arguments.items()
        }
        y, state = selective_scan(**turned, reverse=True)
        return y.flip(1), state

    options = {"delta_softplus": case.softplus, "backend": backend}
    forward = run(selective_scan, leaves, (y_cotangent, state_cotangent), **options)
    backward = run(flipped, leaves, (y_cotangent, state_cotangent), **options)
    assert_all_close(backward, forward, 1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reverse", [False, True])
@examples
@given(lengths=st.lists(st.integers(0, 9), max_size=5), case=cases(), is_int32=st.booleans())
def test_packed_sequences_are_separate_calls(
    backend: str, reverse: bool, lengths: list[int], case: Case, is_int32: bool
) -> None:
    # Sequences enter as the batch axis of the states: make those with b = number of sequences.
    packed = replace(case, b=1, l=sum(lengths), reverse=reverse, carry=False)
    leaves = packed.leaves(torch.float64)
    if case.carry:
        state = torch.randn(len(lengths), case.d, case.n)
        leaves["initial_state"] = parameter(state, torch.float64)
    offsets = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32 if is_int32 else torch.int64)
    cotangents = packed.cotangents()[0], torch.randn(len(lengths), case.d, case.n)

    def one_by_one(
        *, return_final_state: bool, initial_state: Tensor | None = None, **views: object
    ) -> object:
        assert return_final_state
        ys, states = [views["u"][:, :0]], [views["A"].new_zeros(0, case.d, case.n)]
        for i, (start, stop) in enumerate(pairwise(offsets.tolist())):
            cutout = {k: v[:, start:stop] if is_activation(v) else v for k, v in views.items()}
            state = None if initial_state is None else initial_state[i : i + 1]
            y, state = selective_scan_reference(
                **cutout, initial_state=state, return_final_state=True
            )
            ys.append(y)
            states.append(state)
        return torch.cat(ys, 1), torch.cat(states)

    expected = run(one_by_one, leaves, cotangents, **packed.options())
    options = {**packed.options(), "backend": backend, "cu_seqlens": offsets}
    assert_all_close(run(selective_scan, leaves, cotangents, **options), expected, 1e-11)


@pytest.mark.parametrize("backend", BACKENDS)
def test_packed_sequences_do_not_leak(backend: str) -> None:
    case = replace(EVERYTHING, b=1, l=20, groups=(1, 1), carry=False)
    views = {k: v.view(v.storage).detach() for k, v in case.leaves(torch.float32).items()}
    offsets = torch.tensor([0, 7, 20])
    call = partial(selective_scan, delta_softplus=True, backend=backend, cu_seqlens=offsets)
    clean = call(**views)
    views["u"] = views["u"].clone()
    views["u"][:, :7] = float("nan")
    poisoned = call(**views)
    assert torch.isnan(poisoned[:, :7]).all()
    assert torch.equal(poisoned[:, 7:], clean[:, 7:])
