"""The CUDA convolution, simulated on the host: values and gradients against the float64 loop."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
import test_causal_conv1d as operator
import test_causal_conv1d_limits as limits
import torch
from conv_cases import EVERYTHING, Case, cases
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from kernel_cases import (
    DTYPES,
    TOLERANCE,
    assert_all_close,
    assert_close,
    gradient_slack,
    parameter,
    run,
)
from torch import Tensor

from ssm_kernels import causal_conv1d, causal_conv1d_reference, native

simulations = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
assert_torch_conv1d = operator.test_is_torch_conv1d
assert_special_values_spread = limits.test_special_values_spread_as_in_the_reference
assert_extreme_values = limits.test_extreme_values
pytestmark = pytest.mark.usefixtures("simulated")


def check(case: Case, dtype: torch.dtype) -> None:
    leaves = case.leaves(dtype)
    cotangents = case.cotangents()[0].to(dtype), case.cotangents()[1]
    wide = {name: leaf.widened() for name, leaf in leaves.items()}
    expected = run(causal_conv1d_reference, wide, cotangents, **case.options())
    got = run(causal_conv1d, leaves, cotangents, **case.options())
    assert got["y"].dtype is dtype
    assert_all_close(got, expected, TOLERANCE[dtype], gradient_slack(dtype))


@simulations
@given(case=cases, dtype=st.sampled_from(DTYPES))
@example(case=EVERYTHING, dtype=torch.float32)
def test_values_and_gradients(case: Case, dtype: torch.dtype) -> None:
    check(replace(case, d=min(case.d, 70)), dtype)


@simulations
@given(
    case=cases,
    d=st.sampled_from([4, 8, 36, 132]),
    k=st.sampled_from([1, 2, 3, 4, 4, 4, 5, 8]),
    layout=st.sampled_from(["contiguous", "chunk", "time first"]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
)
def test_vectors_of_channels(case: Case, d: int, k: int, layout: str, dtype: torch.dtype) -> None:
    """Aligned channels, every width that has a kernel of its own and some that have not."""
    check(replace(case, d=d, k=k, layout=layout), dtype)


@simulations
@given(
    case=cases,
    d=st.sampled_from([4, 12, 64, 140]),
    k=st.sampled_from([1, 2, 3, 4, 4, 4, 5, 8]),
    layout=st.sampled_from(["transposed", "sliced", "expanded", "expanded batch"]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
)
def test_tiles_of_any_layout(case: Case, d: int, k: int, layout: str, dtype: torch.dtype) -> None:
    """Results lie in vectors, arguments do not."""
    check(replace(case, d=d, k=k, layout=layout), dtype)


@simulations
@given(
    lengths=st.lists(st.sampled_from([0, 1, 2, 3, 5, 31, 32, 33, 90]), min_size=1, max_size=7),
    d=st.sampled_from([1, 5, 8, 36]),
    k=st.integers(1, 8),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    silu=st.booleans(),
    reverse=st.booleans(),
    carry=st.booleans(),
    layout=st.sampled_from(["contiguous", "contiguous", "transposed"]),
)
def test_packed_sequences_are_separate_convolutions(
    lengths: list[int],
    d: int,
    k: int,
    dtype: torch.dtype,
    silu: bool,
    reverse: bool,
    carry: bool,
    layout: str,
) -> None:
    torch.manual_seed(sum(lengths) + d)
    l, s = sum(lengths), len(lengths)
    leaves = Case(1, l, d, k, layout, True, False, silu, reverse, 1).leaves(dtype)
    if carry:
        leaves["initial_state"] = parameter(
            torch.randn(s, d, k - 1), leaves["weight"].storage.dtype
        )
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    cotangents = torch.randn(1, l, d).to(dtype), torch.randn(s, d, k - 1)

    def one_by_one(
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        initial_state: Tensor | None = None,
        **rest: object,
    ) -> tuple[Tensor, Tensor]:
        ys, states = [], []
        for i, (start, stop) in enumerate(pairwise(offsets.tolist())):
            state = None if initial_state is None else initial_state[i : i + 1]
            y, state = causal_conv1d_reference(
                x[:, start:stop], weight, bias, initial_state=state, **rest
            )
            ys.append(y)
            states.append(state)
        return torch.cat(ys, 1), torch.cat(states)

    options: dict[str, object] = {"activation": "silu" if silu else None, "reverse": reverse}
    wide = {name: leaf.widened() for name, leaf in leaves.items()}
    expected = run(one_by_one, wide, cotangents, **options)
    got = run(causal_conv1d, leaves, cotangents, cu_seqlens=offsets, **options)
    assert_all_close(got, expected, TOLERANCE[dtype], gradient_slack(dtype))


@pytest.mark.parametrize(("d", "transposed"), [(3, False), (8, False), (8, True)])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("values", [[9, 3, -4, 50], [5, 5, 5, 5], [-7, -7, 2, 3], [30, 40, 50, 60]])
def test_nonsense_offsets_stay_inside_the_tensors(
    values: list[int], reverse: bool, d: int, transposed: bool
) -> None:
    """Offsets on a GPU are not read before the kernel runs; what it returns does not matter."""
    margin, l, k = 64, 20, 4
    offsets = torch.tensor(values)
    weight, bias = torch.randn(d, k), torch.randn(d)
    states = torch.randn(len(values) - 1, d, k - 1)
    x, grad_y = torch.randn(1, l, d), torch.randn(1, l, d)
    options = {"silu": True, "reverse": reverse, "offsets": offsets}
    size = l + 2 * margin
    guarded = (
        x.new_full((d, size), float("nan")).T if transposed else x.new_full((size, d), float("nan"))
    )
    inner = guarded[margin : margin + l].unsqueeze(0).copy_(x)
    y, final = native.causal_conv1d_forward(inner, weight, bias, states, **options)
    gradients = native.causal_conv1d_backward(
        grad_y, torch.randn_like(states), inner, weight, bias, states, **options
    )
    for result in (y, final, *gradients):
        assert result is not None
        assert result.isfinite().all()  # nothing from outside got in


def test_is_torch_conv1d() -> None:
    assert_torch_conv1d("auto")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("argument", ["x", "weight", "bias", "initial_state"])
def test_special_values_spread_as_in_the_reference(value: float, argument: str) -> None:
    assert_special_values_spread("auto", value, argument)


@pytest.mark.parametrize("scale", [1e-30, 1e4, 1e30])
def test_extreme_values(scale: float) -> None:
    assert_extreme_values("auto", scale)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("k", [4, 6])
def test_a_cut_in_the_sequence_does_not_show(k: int, reverse: bool) -> None:
    """Runs begin at different steps; the sums of y and the gradient of x are the same bits."""
    b, l, d = 1, 150, 8
    x, grad_y = torch.randn(b, l, d), torch.randn(b, l, d)
    weight, bias, cut = torch.randn(d, k), torch.randn(d), 67
    convolve = partial(causal_conv1d, activation="silu", reverse=reverse, return_final_state=True)
    whole, _ = convolve(x, weight, bias)
    first, second = (x[:, cut:], x[:, :cut]) if reverse else (x[:, :cut], x[:, cut:])
    y_first, state = convolve(first, weight, bias)
    y_second, _ = convolve(second, weight, bias, initial_state=state)
    pieces = (y_second, y_first) if reverse else (y_first, y_second)
    assert torch.equal(whole, torch.cat(pieces, 1))
    options = {"silu": True, "reverse": reverse}
    runs = [
        native.causal_conv1d_backward(grad_y, None, x, weight, bias, None, **options)
        for _ in range(2)
    ]
    assert all(torch.equal(a, b) for a, b in zip(runs[0][:3], runs[1][:3], strict=True))


def test_large_enough_for_many_blocks_of_partial_sums() -> None:
    x, grad_y = torch.randn(9, 260, 8), torch.randn(9, 260, 8)
    weight = torch.randn(8, 4)
    _, got, _, _ = native.causal_conv1d_backward(
        grad_y, None, x, weight, None, None, silu=False, reverse=False
    )
    padded = torch.nn.functional.pad(x.double(), (0, 0, 3, 0))
    expected = torch.stack(
        [(padded[:, j : j + 260] * grad_y.double()).sum((0, 1)) for j in range(4)], 1
    )
    assert_close(got, expected, 1e-5)
