"""Every backend against the float64 reference: values and gradients, whatever the arguments."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
import torch
from conv_cases import Case, cases
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
from torch import Tensor
from torch.nn import functional as F

from ssm_kernels import causal_conv1d, causal_conv1d_reference, native


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", BACKENDS)
@examples
@given(case=cases)
def test_values_and_gradients(case: Case, backend: str, dtype: torch.dtype) -> None:
    leaves = case.leaves(dtype)
    cotangents = case.cotangents()[0].to(dtype), case.cotangents()[1]
    wide = {name: leaf.widened() for name, leaf in leaves.items()}
    expected = run(causal_conv1d_reference, wide, cotangents, **case.options())
    got = run(causal_conv1d, leaves, cotangents, backend=backend, **case.options())
    assert got["y"].dtype is dtype
    assert got["final state"].dtype is leaves["weight"].storage.dtype
    for name, made in leaves.items():
        assert got[f"gradient of {name}"].dtype is made.storage.dtype
    assert_all_close(got, expected, TOLERANCE[dtype], gradient_slack(dtype))


@pytest.mark.parametrize("isa", native.available_isas())
@examples
@given(case=cases, dtype=st.sampled_from(DTYPES))
def test_every_instruction_set(case: Case, isa: str, dtype: torch.dtype) -> None:
    leaves = case.leaves(dtype)
    cotangents = case.cotangents()[0].to(dtype), case.cotangents()[1]
    wide = {name: leaf.widened() for name, leaf in leaves.items()}
    expected = run(causal_conv1d_reference, wide, cotangents, **case.options())
    before = native.isa()
    native.set_isa(isa)
    try:
        got = run(causal_conv1d, leaves, cotangents, backend="cpu", **case.options())
    finally:
        native.set_isa(before)
    assert_all_close(got, expected, TOLERANCE[dtype], gradient_slack(dtype))


@pytest.mark.parametrize("backend", BACKENDS)
def test_is_torch_conv1d(backend: str) -> None:
    x = torch.randn(3, 50, 20, dtype=torch.float64)
    weight = torch.randn(20, 4, dtype=torch.float64)
    bias = torch.randn(20, dtype=torch.float64)
    expected = F.conv1d(x.transpose(1, 2), weight.unsqueeze(1), bias, padding=3, groups=20)
    y = causal_conv1d(x, weight, bias, "silu", backend=backend)
    assert_close(y, F.silu(expected[..., :50]).transpose(1, 2), 1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reverse", [False, True])
@examples
@given(cut=st.integers(0, 37), case=cases)
def test_carried_state_joins_the_pieces(backend: str, reverse: bool, cut: int, case: Case) -> None:
    case = replace(case, l=37, reverse=reverse, carry=True)
    leaves = case.leaves(torch.float64)

    def in_two(
        x: Tensor, initial_state: Tensor, *, return_final_state: bool, **rest: object
    ) -> object:
        assert return_final_state
        spans = [slice(0, cut), slice(cut, None)]
        state, pieces = initial_state, []
        for span in reversed(spans) if reverse else spans:
            y, state = causal_conv1d(
                x[:, span], initial_state=state, return_final_state=True, **rest
            )
            pieces.append(y)
        return torch.cat(pieces[::-1] if reverse else pieces, 1), state

    options = {**case.options(), "backend": backend}
    cotangents = case.cotangents()
    whole = run(causal_conv1d, leaves, cotangents, **options)
    assert_all_close(run(in_two, leaves, cotangents, **options), whole, 1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@examples
@given(case=cases)
def test_reverse_is_forward_on_flipped_steps(backend: str, case: Case) -> None:
    """States are in time order both ways, so they flip too."""
    leaves = replace(case, reverse=False).leaves(torch.float64)
    cotangents = case.cotangents()

    def flipped(
        x: Tensor, initial_state: Tensor | None = None, **rest: object
    ) -> tuple[Tensor, Tensor]:
        state = None if initial_state is None else initial_state.flip(2)
        y, final = causal_conv1d(x.flip(1), initial_state=state, reverse=True, **rest)
        return y.flip(1), final.flip(2)

    options = {"activation": "silu" if case.silu else None, "backend": backend}
    forward = run(causal_conv1d, leaves, cotangents, **options)
    assert_all_close(run(flipped, leaves, cotangents, **options), forward, 1e-13)


@pytest.mark.parametrize("backend", BACKENDS)
def test_states_are_the_neighbouring_samples_in_time_order(backend: str) -> None:
    x = torch.arange(1.0, 6.0).view(1, 5, 1)
    call = partial(causal_conv1d, x, torch.ones(1, 3), return_final_state=True, backend=backend)

    y, final = call(initial_state=torch.tensor([[[-10.0, 0.5]]]))
    assert y.flatten().tolist() == [-8.5, 3.5, 6, 9, 12]
    assert final.tolist() == [[[4, 5]]]

    y, final = call(initial_state=torch.tensor([[[0.5, -10.0]]]), reverse=True)
    assert y.flatten().tolist() == [6, 9, 12, 9.5, -4.5]
    assert final.tolist() == [[[1, 2]]]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reverse", [False, True])
def test_short_sequence_keeps_part_of_the_initial_state(backend: str, reverse: bool) -> None:
    x = torch.tensor([[[5.0]]])
    state = torch.tensor([[[1.0, 2.0, 3.0]]])
    _, final = causal_conv1d(
        x,
        torch.ones(1, 4),
        initial_state=state,
        return_final_state=True,
        reverse=reverse,
        backend=backend,
    )
    assert final.flatten().tolist() == ([5, 1, 2] if reverse else [2, 3, 5])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reverse", [False, True])
@examples
@given(lengths=st.lists(st.integers(0, 9), max_size=5), case=cases)
def test_packed_sequences_are_separate_calls(
    backend: str, reverse: bool, lengths: list[int], case: Case
) -> None:
    case = replace(case, b=1, l=sum(lengths), reverse=reverse, carry=False)
    leaves = case.leaves(torch.float64)
    leaves["initial_state"] = parameter(
        torch.randn(len(lengths), case.d, case.k - 1), torch.float64
    )
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    cotangents = case.cotangents()[0], torch.randn(len(lengths), case.d, case.k - 1)

    def one_by_one(
        x: Tensor, initial_state: Tensor, *, return_final_state: bool, **rest: object
    ) -> tuple[Tensor, Tensor]:
        assert return_final_state
        ys, states = [x[:, :0]], [initial_state[:0]]
        for i, (start, stop) in enumerate(pairwise(offsets.tolist())):
            y, state = causal_conv1d_reference(
                x[:, start:stop],
                initial_state=initial_state[i : i + 1],
                return_final_state=True,
                **rest,
            )
            ys.append(y)
            states.append(state)
        return torch.cat(ys, 1), torch.cat(states)

    expected = run(one_by_one, leaves, cotangents, **case.options())
    options = {**case.options(), "backend": backend, "cu_seqlens": offsets}
    assert_all_close(run(causal_conv1d, leaves, cotangents, **options), expected, 1e-12)
