"""What stands for our operators in ONNX graphs computes what they compute."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ssm_core.errors import ConfigError
from ssm_core.export.decompositions import decompositions
from ssm_core.export.recurrence import recurrence

SIZES = st.integers(1, 4)
STEPS = st.integers(0, 5)
YES_OR_NO = st.booleans()


def compare(name: str, *arguments: Any, results: int = 2) -> None:
    """The operator and its decomposition give the same; the rest is only for the gradient."""
    operator = getattr(torch.ops.ssm_kernels, name).default
    expected = operator(*arguments, False)
    got = decompositions()[operator](*arguments, False)
    assert len(got) == len(expected)
    for a, b in zip(got[:results], expected[:results], strict=True):
        assert a.dtype is b.dtype
        torch.testing.assert_close(a, b)


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def maybe(wanted: bool, *shape: int) -> Tensor | None:
    return numbers(*shape) if wanted else None


@settings(max_examples=30, deadline=None)
@given(SIZES, STEPS, SIZES, SIZES, YES_OR_NO, YES_OR_NO)
def test_convolution(b: int, l: int, d: int, k: int, extras: bool, reverse: bool) -> None:
    x, weight = numbers(b, l, d), numbers(d, k)
    bias, state = maybe(extras, d), maybe(extras, b, d, k - 1)
    compare("causal_conv1d_forward", x, weight, bias, state, None, extras, reverse)


@settings(max_examples=60, deadline=None)
@given(SIZES, STEPS, SIZES, SIZES, st.sampled_from([0, 1, 2]), YES_OR_NO, YES_OR_NO)
def test_selective_scan(
    b: int, l: int, d: int, n: int, groups: int, extras: bool, reverse: bool
) -> None:
    d *= max(groups, 1)
    per_step = (b, l, groups, n) if groups else (d, n)
    B, C = numbers(*per_step), numbers(b, l, n)
    shared = (maybe(extras, d), maybe(extras, b, l, d), maybe(extras, d), maybe(extras, b, d, n))
    A = -numbers(d, n).exp()
    tensors = (numbers(b, l, d), numbers(b, l, d), A, B, C, *shared)
    compare("selective_scan_forward", *tensors, None, extras, reverse)


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(SIZES, SIZES, SIZES, SIZES, SIZES),
    st.lists(st.sampled_from(["forward", "backward", "down", "up"]), min_size=1, max_size=4),
    YES_OR_NO,
)
def test_scan_in_several_directions(
    sizes: tuple[int, ...], directions: list[str], extras: bool
) -> None:
    b, rows, columns, d, n = sizes
    l, k = rows * columns, len(directions)
    u = numbers(b, l, k, d) if extras else numbers(b, l, d)
    B, C = numbers(b, l, k, 1, n), numbers(b, l, k, 1, n)
    shared = (maybe(extras, k, d), maybe(extras, b, l, d), maybe(extras, k, d))
    tensors = (u, numbers(b, l, k, d), -numbers(k, d, n).exp(), B, C, *shared)
    name = "selective_scan_directions_forward"
    compare(name, *tensors, extras, ",".join(directions), columns, results=1)


@settings(max_examples=60, deadline=None)
@given(st.tuples(SIZES, STEPS, SIZES, SIZES, SIZES), SIZES, YES_OR_NO, YES_OR_NO)
def test_ssd_scan(sizes: tuple[int, ...], per_group: int, extras: bool, reverse: bool) -> None:
    b, l, groups, p, n = sizes
    h = groups * per_group
    D = numbers(h, p) if reverse else maybe(extras, h)
    shared = (D, maybe(extras, b, l, h, p), maybe(extras, h), maybe(extras, b, h, p, n))
    B, C = numbers(b, l, groups, n), numbers(b, l, groups, n)
    tensors = (numbers(b, l, h, p), numbers(b, l, h).exp(), -numbers(h).exp(), B, C, *shared)
    limits = (0.3, 0.9) if extras else (0.0, math.inf)
    compare("ssd_scan_forward", *tensors, None, extras, *limits, reverse, 0)


def test_half_precision_is_summed_in_float32() -> None:
    u, delta, B, C = (torch.randn(2, 9, 3, dtype=torch.bfloat16) for _ in range(4))
    A = -torch.rand(3, 3)
    compare("selective_scan_forward", u, delta, A, B, C, None, None, None, None, None, True, False)


@pytest.mark.parametrize("complex_A", [False, True])
def test_what_has_no_form_is_named(complex_A: bool) -> None:
    x, A = numbers(1, 4, 2), -numbers(2, 3).exp()
    offsets = None if complex_A else torch.tensor([0, 1, 4])
    A = A.to(torch.complex128) if complex_A else A
    B = numbers(1, 4, 3).to(A.dtype)
    scan = decompositions()[torch.ops.ssm_kernels.selective_scan_forward.default]
    with pytest.raises(ConfigError, match="complex A" if complex_A else "packed sequences"):
        scan(x, x, A, B, B, None, None, None, None, offsets, False, False, False)


def test_the_recurrence_is_an_operator_that_compilers_can_trace() -> None:
    step, n = numbers(2, 5, 3, 1), 4
    arguments = (step, numbers(3, n), step, numbers(2, 5, 1, n), numbers(2, 5, 1, n))
    torch.library.opcheck(recurrence, (*arguments, numbers(2, 3, n)))
